"""Generation of CAT-TTS: one frame of codes a step, from a text and the codes of a prompt.

One loop in NumPy for PyTorch and onnxruntime: a model runs its Transformers (`TtsModel`,
`TtsDecoder`), and everything else is here. Streamed speech and complete speech are the same
frames.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float32, Int64

from ..errors import InputError
from .model_facts import ModelFacts, check_codes
from .sampling import CodeSampler, SpeechSampling, checked_num_quantizers
from .token_frames import FrameAlignment, TextCursor
from .tokens import TextCodec

END, CONTINUE = 0, 1
Scores = Float32[np.ndarray, "rows classes"]


@dataclass(frozen=True)
class TtsInput:
    """What precedes the first generated frame of a row.

    Attributes:
        ids: text tokens of the prompt and of what to say.
        codes: codes of the prompt; None without one.
    """

    ids: list[int]
    codes: Int64[np.ndarray, "num_quantizers frames"] | None


class TtsDecoder(Protocol):
    """The Transformers of CAT-TTS with their KV caches; methods are called in their order."""

    def duration_scores(self, tokens: Int64[np.ndarray, "rows"]) -> Scores:
        """Logits of the durations of tokens that would begin in the next frame."""
        ...

    def end_scores(self) -> Scores:
        """Begin a frame: logits of ending and continuing."""
        ...

    def code_scores(
        self,
        previous: Int64[np.ndarray, "rows"] | None,
        index: int,
        alignment: FrameAlignment | None,
    ) -> Scores:
        """Logits of codebook ``index``.

        Args:
            previous: codes of the codebook before; None for the first.
            index: index of the codebook.
            alignment: alignment of the frame; None without.

        Returns:
            Rows as the batch was given, and the unconditioned ones behind them, if any.
        """
        ...

    def advance(
        self, codes: Int64[np.ndarray, "num_quantizers rows"], alignment: FrameAlignment | None
    ) -> None:
        """Feed a complete frame to the temporal Transformer."""
        ...


class TtsModel(Protocol):
    """A CAT-TTS model, by PyTorch or onnxruntime."""

    @property
    def facts(self) -> ModelFacts:
        """Sizes of the model."""
        ...

    @property
    def text(self) -> TextCodec:
        """Tokens of texts."""
        ...

    def decoder(self, inputs: Sequence[TtsInput], guided: bool) -> TtsDecoder:
        """Start a batch; ``guided`` adds unconditioned copies of all rows."""
        ...


@dataclass(frozen=True)
class Prompt:
    """A recording that a row continues.

    Attributes:
        codes: codes of the recording.
        text: its transcript, with which the row's text begins.
    """

    codes: Int64[np.ndarray, "num_quantizers frames"]
    text: str


@dataclass(frozen=True)
class Frame:
    """One generated frame of a batch.

    Attributes:
        codes: codes of each row; undefined for rows that have ended.
        ended: rows that ended before this frame.
    """

    codes: Int64[np.ndarray, "num_quantizers rows"]
    ended: Bool[np.ndarray, "rows"]


@dataclass(frozen=True)
class GeneratedSpeech:
    """Generated codes of a batch.

    Attributes:
        audio_codes: codes, zero behind the end of each row.
        audio_codes_lengths: number of frames of each row.
        finished: rows that ended before the limit.
    """

    audio_codes: Int64[np.ndarray, "num_quantizers rows frames"]
    audio_codes_lengths: Int64[np.ndarray, "rows"]
    finished: Bool[np.ndarray, "rows"]


def generate(
    model: TtsModel,
    texts: Sequence[str],
    prompts: Sequence[Prompt | None] | None = None,
    sampling: SpeechSampling | None = None,
    **changes: Any,
) -> GeneratedSpeech:
    """Generate speech of several texts as one batch.

    Args:
        model: a CAT-TTS model.
        texts: complete texts, each beginning with that of its prompt.
        prompts: prompt of each row, of at least as many codebooks as are generated.
        sampling: settings of generation.
        changes: changes of ``sampling``, such as ``temperature=0.8``.

    Raises:
        InputError: a text is empty, has an unknown character, or is too long.
    """
    generated = list(frames(model, texts, prompts, sampling, **changes))
    ended = np.stack([frame.ended for frame in generated])
    lengths = (~ended).sum(0)
    codes = np.stack([frame.codes for frame in generated], -1)[..., : int(lengths.max())]
    inside = np.arange(codes.shape[-1]) < lengths[:, None]
    return GeneratedSpeech(codes * inside, lengths, ended[-1])


def frames(
    model: TtsModel,
    texts: Sequence[str],
    prompts: Sequence[Prompt | None] | None = None,
    sampling: SpeechSampling | None = None,
    **changes: Any,
) -> Iterator[Frame]:
    """Yield frames until all rows have ended, or up to the limit; arguments as of `generate`."""
    settings, facts = _changed(sampling or SpeechSampling(), changes), model.facts
    depth = checked_num_quantizers(settings.num_quantizers, facts.num_quantizers)
    prompts = prompts or [None] * len(texts)
    inputs = _inputs(model, texts, prompts, depth)
    _check_length(facts, inputs, settings.max_frames)
    cursor = make_cursor(model, texts, prompts)
    settings = replace(settings, guidance=_guidance(facts, settings.guidance))
    decoder = model.decoder(inputs, settings.guidance != 1)
    sampler = CodeSampler(settings, len(texts))
    ended = np.zeros(len(texts), bool)
    history = np.zeros((depth, len(texts), 0), np.int64)
    for _ in range(settings.max_frames):
        draws = sampler.draws(facts.num_quantizers + (1 if cursor is None else 2))
        alignment = None
        if cursor is not None:
            scores = decoder.duration_scores(cursor.next_token)
            alignment = cursor.step(sampler.choice(scores, draws[:, -1]))
        decision = sampler.choice(decoder.end_scores(), draws[:, 0])
        codes = _frame(decoder, alignment, sampler, history, draws)
        if cursor is not None:
            decision = np.where(cursor.may_end, decision, CONTINUE)
        ended = ended | (decision == END)
        yield Frame(codes, ended)
        if ended.all():
            return
        history = np.concatenate((history, codes[..., None]), -1)
        decoder.advance(codes, alignment)


def _changed(sampling: SpeechSampling, changes: dict[str, Any]) -> SpeechSampling:
    try:
        return replace(sampling, **changes)
    except TypeError as error:
        raise InputError(f"unknown option ({error}); see SpeechSampling") from error


def _guidance(facts: ModelFacts, asked: float) -> float:
    """The guidance scale that was asked for, or the model's own.

    Raises:
        InputError: the model has no alignment.
    """
    if asked not in (0, 1) and not facts.has_alignment:
        raise InputError(
            f"guidance is {asked:g}; expected 1 for this model, which was trained without an "
            "aligner"
        )
    return asked or float(facts.guidance)


def make_cursor(
    model: TtsModel, texts: Sequence[str], prompts: Sequence[Prompt | None]
) -> TextCursor | None:
    """A cursor at what each row says behind its prompt; None in a model without an alignment."""
    if not model.facts.has_alignment:
        return None
    encode, end = model.text.encode, model.text.end
    tokens = [[*encode(text), end] for text in texts]
    first = [
        len(ids) - len(encode(text.removeprefix(prompt.text).strip() if prompt else text)) - 1
        for ids, text, prompt in zip(tokens, texts, prompts, strict=True)
    ]
    return TextCursor(tokens, first)


def _frame(
    decoder: TtsDecoder,
    alignment: FrameAlignment | None,
    sampler: CodeSampler,
    history: np.ndarray,
    draws: np.ndarray,
) -> Int64[np.ndarray, "num_quantizers rows"]:
    """The codes of one frame, one codebook after another."""
    codes: list[np.ndarray] = []
    for index, own in enumerate(history):
        scores = decoder.code_scores(codes[-1] if codes else None, index, alignment)
        scores = sampler.guided(scores, len(draws))
        codes.append(sampler.code(scores, own, draws[:, index + 1]))
    return np.stack(codes)


def _inputs(
    model: TtsModel, texts: Sequence[str], prompts: Sequence[Prompt | None], depth: int
) -> list[TtsInput]:
    if isinstance(texts, str):
        raise InputError("got a text; expected a list of texts")
    if not texts or len(prompts) != len(texts):
        raise InputError(f"got {len(texts)} texts and {len(prompts)} prompts; expected as many")
    return [_input(model, *row, depth) for row in zip(texts, prompts, strict=True)]


def _input(model: TtsModel, text: str, prompt: Prompt | None, depth: int) -> TtsInput:
    if not text.strip():
        raise InputError("the text is empty; give something to say")
    ids = model.text.encode(text)
    if prompt is None:
        return TtsInput(ids, None)
    if not text.startswith(prompt.text):
        raise InputError(f"the text {text[:60]!r} does not begin with that of its prompt")
    return TtsInput(ids, check_codes(np.asarray(prompt.codes), model.facts, depth))


def _check_length(facts: ModelFacts, inputs: Sequence[TtsInput], max_frames: int) -> None:
    longest = max(
        len(row.ids) + 1 + (0 if row.codes is None else row.codes.shape[1]) for row in inputs
    )
    if longest + max_frames > facts.max_steps:
        raise InputError(
            f"the text and its prompt take {longest} steps, and max_frames is {max_frames}; "
            f"expected at most {facts.max_steps} together: say less at a time"
        )
