"""Generation: a frame of codes a step, from text and, for a voice, codes of a prompt.

Owns both caches and the order within a step. A frame is the same whether somebody waits for it
or for the whole: `frames` is the one way there is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import DynamicCache

from ..errors import InputError
from ..llm import cache_argument, check_codes, pad_in_front
from .alignment import TextCursor
from .depth import DepthCache
from .model import CONTINUE, END, CatTts
from .sampling import CodeSampler, SpeechSampling, checked_depth


@dataclass(frozen=True)
class Prompt:
    """What a row goes on from.

    Attributes:
        codes: of the recording.
        text: what is said in it, with which the row's whole text begins.
    """

    codes: Int[Tensor, "num_quantizers frames"]
    text: str


@dataclass(frozen=True)
class Frame:
    """One step's.

    Attributes:
        codes: of each row; of rows that have ended they mean nothing.
        ended: rows that had ended before this frame.
    """

    codes: Int[Tensor, "num_quantizers rows"]
    ended: Bool[Tensor, "rows"]


@dataclass(frozen=True)
class GeneratedSpeech:
    """Of a batch.

    Attributes:
        audio_codes: zero behind the end of each row.
        audio_codes_lengths: frames of each row.
        finished: rows that came to an end by themselves, before the limit.
    """

    audio_codes: Int[Tensor, "num_quantizers rows frames"]
    audio_codes_lengths: Int[Tensor, "rows"]
    finished: Bool[Tensor, "rows"]


def generate(
    model: CatTts,
    texts: Sequence[str],
    prompts: Sequence[Prompt | None] | None = None,
    sampling: SpeechSampling | None = None,
    streamer: Any = None,
    **changes: Any,
) -> GeneratedSpeech:
    """Speak texts as one batch.

    Args:
        model: what speaks.
        texts: whole texts, that of a row's prompt in front.
        prompts: what each row goes on from, of at least as many layers as are spoken.
        sampling: how.
        streamer: gets every frame's codes (num_quantizers, rows) by ``put``, and ``end`` at last,
            in the manner of transformers.
        changes: of ``sampling``, such as ``temperature=0.8``.

    Raises:
        InputError: a text is empty, a character is unknown, or it is all too long.
    """
    kept: list[Frame] = []
    for frame in frames(model, texts, prompts, sampling, **changes):
        kept.append(frame)
        if streamer is not None:
            streamer.put(frame.codes.cpu())
    if streamer is not None:
        streamer.end()
    return _gathered(kept)


@torch.no_grad()
def frames(
    model: CatTts,
    texts: Sequence[str],
    prompts: Sequence[Prompt | None] | None = None,
    sampling: SpeechSampling | None = None,
    **changes: Any,
) -> Iterator[Frame]:
    """Frame after frame, until one that all rows have ended before, or to the limit.

    Takes what `generate` takes.
    """
    settings = _changed(sampling or SpeechSampling(), changes)
    depth = checked_depth(settings.num_quantizers, model.config.num_quantizers)
    prompts = prompts or [None] * len(texts)
    rows = _rows(model, texts, prompts, depth)
    _check_length(model, rows, settings.max_frames)
    cursor = _cursor(model, texts, prompts)
    # Guided rows are duplicated: conditioned, then unconditioned.
    settings = replace(settings, guidance=_guidance(model, settings.guidance))
    twice = 1 if settings.guidance == 1 else 2
    sampler = CodeSampler(settings, len(rows), model.device)
    clock = _Clock(model, rows * twice)
    ended = torch.zeros(len(rows), dtype=torch.bool, device=model.device)
    spoken = torch.zeros(depth, len(rows), 0, dtype=torch.long, device=model.device)
    for _ in range(settings.max_frames):
        draws = sampler.draws(model.config.num_quantizers + (1 if cursor is None else 2))
        condition = torch.zeros_like(clock.hidden)
        if cursor is not None:
            durations = sampler.choice(cursor.scores(clock.hidden[: len(rows)]), draws[:, -1])
            condition[: len(rows)] = cursor.step(durations)
        signs = model.continuation + condition
        codes, continues = _frame(model, clock.hidden, signs, sampler, spoken, draws)
        if cursor is not None:
            continues = continues.where(cursor.may_end, CONTINUE)
        ended = ended | (continues == END)
        yield Frame(codes, ended)
        if ended.all():
            return
        spoken = torch.cat((spoken, codes[..., None]), -1)
        embedded = model.code_embedding(codes[..., None]).repeat(twice, 1, 1)
        clock.advance(embedded + condition[:, None])


def _changed(sampling: SpeechSampling, changes: dict[str, Any]) -> SpeechSampling:
    try:
        return replace(sampling, **changes)
    except TypeError as error:
        raise InputError(f"unknown option ({error}); see SpeechSampling") from error


class _Clock:
    """The temporal Transformer with its cache."""

    def __init__(self, model: CatTts, rows: list[Tensor]) -> None:
        self._model = model
        self._cache = DynamicCache()
        steps, self._mask = pad_in_front(rows)
        self._run(steps, (self._mask.cumsum(-1) - 1).clamp_min(0))

    def _run(self, steps: Tensor, positions: Tensor) -> None:
        self._next = positions[:, -1:] + 1
        self.hidden: Tensor = self._model.temporal(
            inputs_embeds=steps,
            attention_mask=self._mask,
            position_ids=positions,
            **cache_argument(self._model.temporal, self._cache),
        ).last_hidden_state[:, -1]

    def advance(self, step: Tensor) -> None:
        """One frame further."""
        self._mask = torch.cat((self._mask, torch.ones_like(self._mask[:, :1])), 1)
        self._run(step, self._next)


def _guidance(model: CatTts, asked: float) -> float:
    """The one that was asked for, or the model's own.

    Raises:
        InputError: there is to be some in a model that is told nothing.
    """
    if asked not in (0, 1) and model.guide is None:
        raise InputError(
            f"guidance is {asked:g}; expected 1 for this model, which is not told its place in "
            "the text: it was trained without an aligner"
        )
    return asked or float(model.config.guidance)


def _cursor(
    model: CatTts, texts: Sequence[str], prompts: Sequence[Prompt | None]
) -> TextCursor | None:
    """Through what is left to say behind each prompt, in a model that is told its place."""
    if model.guide is None:
        return None
    tokens = [model.spoken_tokens(text) for text in texts]
    first = [
        len(ids) - len(model.spoken_tokens(_still_to_say(text, prompt)))
        for ids, text, prompt in zip(tokens, texts, prompts, strict=True)
    ]
    return TextCursor(model.guide, tokens, first)


def _still_to_say(text: str, prompt: Prompt | None) -> str:
    return text if prompt is None else text.removeprefix(prompt.text).strip()


def _frame(
    model: CatTts,
    hidden: Tensor,
    following: Tensor,
    sampler: CodeSampler,
    spoken: Tensor,
    draws: Tensor,
) -> tuple[Tensor, Tensor]:
    """A frame's codes, one layer after another, and whether there is to be one at all."""
    state, count = DepthCache(), len(draws)
    outputs = model.depth(hidden[:, None], state)[:, 0]
    continues = sampler.choice(model.depth.scores(outputs[:count], 0), draws[:, 0])
    codes: list[Tensor] = []
    for layer, history in enumerate(spoken):
        outputs = model.depth(following[:, None], state)[:, 0]
        scores = sampler.guided(model.depth.scores(outputs, layer + 1), count)
        codes.append(sampler.code(scores, history, draws[:, layer + 1]))
        following = model.code_embedding.of_layer(codes[-1], layer)
        following = following.repeat(len(hidden) // count, 1)
    return torch.stack(codes), continues


def _rows(
    model: CatTts, texts: Sequence[str], prompts: Sequence[Prompt | None], depth: int
) -> list[Tensor]:
    """What stands before the first frame of each row."""
    if isinstance(texts, str):
        raise InputError("got a text; expected a list of texts")
    if not texts or len(prompts) != len(texts):
        raise InputError(f"got {len(texts)} texts and {len(prompts)} prompts; expected as many")
    rows = []
    for text, prompt in zip(texts, prompts, strict=True):
        if not text.strip():
            raise InputError("the text is empty; give something to say")
        row = model.prompt(text)
        if prompt is not None:
            if not text.startswith(prompt.text):
                raise InputError(f"the text {text[:60]!r} does not begin with that of its prompt")
            codes = torch.from_numpy(check_codes(prompt.codes.cpu().numpy(), model.config, depth))
            spoken = model.code_embedding(codes[:, None].to(model.device))[0]
            row = torch.cat((row, spoken))
        rows.append(row)
    return rows


def _check_length(model: CatTts, rows: list[Tensor], max_frames: int) -> None:
    most = int(getattr(model.temporal.config, "max_position_embeddings", 1 << 30))
    longest = max(map(len, rows))
    if longest + max_frames > most:
        raise InputError(
            f"the text and its prompt take {longest} steps, and max_frames is {max_frames}; "
            f"expected at most {most} together: say less at a time"
        )


def _gathered(kept: list[Frame]) -> GeneratedSpeech:
    ended = torch.stack([frame.ended for frame in kept])
    lengths = (~ended).sum(0)
    codes = torch.stack([frame.codes for frame in kept], -1)[..., : int(lengths.max())]
    inside = torch.arange(codes.shape[-1], device=codes.device) < lengths[:, None]
    return GeneratedSpeech(codes * inside, lengths, ended[-1])
