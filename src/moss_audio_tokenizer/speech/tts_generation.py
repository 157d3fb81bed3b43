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
from .phonemes import Lexicon
from .sampling import CodeSampler, SpeechSampling, checked_num_quantizers
from .text_conditions import EncodedText, FramePlan
from .tokens import TextCodec

END, CONTINUE = 0, 1
Scores = Float32[np.ndarray, "rows classes"]
Conditions = Float32[np.ndarray, "rows width"]


@dataclass(frozen=True)
class TtsInput:
    """What precedes the first generated frame of a row.

    Attributes:
        ids: text tokens of the prompt and of what to say; none with a text encoder.
        codes: codes of the prompt; None without one.
        condition: condition of the first generated frame; None without a text encoder.
    """

    ids: list[int]
    codes: Int64[np.ndarray, "num_quantizers frames"] | None
    condition: Float32[np.ndarray, "width"] | None = None


class TtsDecoder(Protocol):
    """The Transformers of CAT-TTS with their KV caches; methods are called in their order."""

    def end_scores(self) -> Scores:
        """Begin a frame: logits of ending and continuing."""
        ...

    def code_scores(
        self,
        previous: Int64[np.ndarray, "rows"] | None,
        index: int,
        condition: Conditions | None,
    ) -> Scores:
        """Logits of codebook ``index``.

        Args:
            previous: codes of the codebook before; None for the first.
            index: index of the codebook.
            condition: condition of the frame; None without a text encoder.

        Returns:
            Rows as the batch was given, and the unconditioned ones behind them, if any.
        """
        ...

    def advance(
        self, codes: Int64[np.ndarray, "num_quantizers rows"], condition: Conditions | None
    ) -> None:
        """Feed a complete frame, with the condition of the next, to the temporal Transformer."""
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

    @property
    def lexicon(self) -> Lexicon:
        """Pronunciations, for a text encoder."""
        ...

    @property
    def code_vectors(self) -> Float32[np.ndarray, "num_quantizers codebook_size dim"] | None:
        """Vectors of all codes in the codec's latent space; None in a model without them."""
        ...

    def encode_text(
        self, tokens: Sequence[int], codes: Int64[np.ndarray, "num_quantizers frames"] | None
    ) -> EncodedText:
        """Read phoneme tokens in the voice of a prompt; for models with a text encoder.

        Args:
            tokens: phoneme tokens of what to say (`Lexicon.tokens`).
            codes: codes of the prompt; None without one.
        """
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
    plan = _plan(model, texts, prompts, inputs)
    if plan is not None:
        first = plan.at(0)
        inputs = [replace(row, condition=own) for row, own in zip(inputs, first, strict=True)]
    settings = replace(
        settings,
        guidance=_guidance(facts, settings.guidance),
        temperature=settings.temperature or facts.temperature,
    )
    vectors = _vectors(model, settings)
    decoder = model.decoder(inputs, settings.guidance != 1)
    sampler = CodeSampler(settings, len(texts))
    ended = np.zeros(len(texts), bool)
    history = np.zeros((depth, len(texts), 0), np.int64)
    for number in range(settings.max_frames):
        if plan is not None:
            ended = plan.ended(number)
        if ended.all():
            yield Frame(np.zeros((depth, len(texts)), np.int64), ended)
            return
        draws = sampler.draws(facts.num_quantizers + 1)
        decision = sampler.choice(decoder.end_scores(), draws[:, 0])
        condition = None if plan is None else plan.at(number)
        codes = _frame(decoder, condition, sampler, history, draws, vectors)
        if plan is None:
            ended = ended | (decision == END)
        yield Frame(codes, ended)
        if ended.all():
            return
        history = np.concatenate((history, codes[..., None]), -1)
        decoder.advance(codes, None if plan is None else plan.at(number + 1))


def _changed(sampling: SpeechSampling, changes: dict[str, Any]) -> SpeechSampling:
    try:
        return replace(sampling, **changes)
    except TypeError as error:
        raise InputError(f"unknown option ({error}); see SpeechSampling") from error


def _guidance(facts: ModelFacts, asked: float) -> float:
    """The guidance scale that was asked for, or the model's own.

    Raises:
        InputError: the model has no text encoder.
    """
    if asked not in (0, 1) and not facts.has_text_encoder:
        raise InputError(
            f"guidance is {asked:g}; expected 1 for this model, which has no text encoder"
        )
    return asked or float(facts.guidance)


def _vectors(
    model: TtsModel, settings: SpeechSampling
) -> Float32[np.ndarray, "num_quantizers codebook_size dim"] | None:
    """The vectors of codes, if codes near their mean are wanted; not with ``do_sample=False``.

    Raises:
        InputError: the model has none.
    """
    chosen = settings.code_choice or model.facts.code_choice
    if not settings.do_sample or chosen != "mean":
        return None
    vectors = model.code_vectors
    if vectors is None or not vectors.any():
        raise InputError(
            "code_choice is 'mean'; expected 'sample' for this model, which holds no code vectors"
        )
    return vectors


def _plan(
    model: TtsModel,
    texts: Sequence[str],
    prompts: Sequence[Prompt | None],
    inputs: Sequence[TtsInput],
) -> FramePlan | None:
    """What each frame says behind the prompts; None in a model without a text encoder."""
    if not model.facts.has_text_encoder:
        return None
    said = [
        text.removeprefix(prompt.text) if prompt else text
        for text, prompt in zip(texts, prompts, strict=True)
    ]
    tokens = [model.lexicon.tokens(text) for text in said]
    encoded = [model.encode_text(own, row.codes) for own, row in zip(tokens, inputs, strict=True)]
    return FramePlan([text.frames() for text in encoded])


def _frame(
    decoder: TtsDecoder,
    condition: Conditions | None,
    sampler: CodeSampler,
    history: np.ndarray,
    draws: np.ndarray,
    vectors: np.ndarray | None,
) -> Int64[np.ndarray, "num_quantizers rows"]:
    """The codes of one frame, one codebook after another."""
    codes: list[np.ndarray] = []
    for index, own in enumerate(history):
        scores = decoder.code_scores(codes[-1] if codes else None, index, condition)
        scores = sampler.guided(scores, len(draws))
        space = None if vectors is None else vectors[index]
        codes.append(sampler.code(scores, own, draws[:, index + 1], space))
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
    ids = [] if model.facts.has_text_encoder else model.text.encode(text)
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
