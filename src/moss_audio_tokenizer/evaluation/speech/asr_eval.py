"""Speech recognition on codes: clips through a codec, their codes through systems, by layers.

A clip is coded once; fewer layers are its prefix. Knows no model: systems are behind a protocol.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Integer

from ...audio import load_audio
from ...codes import Codec
from ...errors import CodesError, InputError, MissingDependencyError, MossAudioError
from ...manifest import ManifestEntry
from ..text_normalization import normalizer
from .speech_rows import SpeechRow, Transcript


class AsrSystem(Protocol):
    """What turns codes into texts.

    Attributes:
        num_quantizers: layers that it can be given.
    """

    num_quantizers: int

    def transcribe_codes(
        self,
        clips: Sequence[Integer[np.ndarray, "num_quantizers _"]],
        num_quantizers: int,
        num_beams: int = 1,
    ) -> list[str]:
        """What is said in clips, by their first layers."""
        ...


@dataclass(frozen=True)
class AsrPlan:
    """What to read, and how.

    Attributes:
        clips: with texts.
        codec: makes the codes.
        quantizer_counts: numbers of layers; empty for powers of two.
        num_beams: of decoding.
        batch_size: clips that are transcribed together.
        text_normalization: one of `text_normalization.NORMALIZATIONS`.

    Raises:
        InputError: no clip has a text, or a number is not at least 1.
    """

    clips: Sequence[ManifestEntry]
    codec: Codec
    quantizer_counts: Sequence[int] = ()
    num_beams: int = 1
    batch_size: int = 8
    text_normalization: str = "plain"

    def __post_init__(self) -> None:
        normalizer(self.text_normalization)
        if not any(clip.text for clip in self.clips):
            raise InputError("none of the clips has a text; expected a manifest with 'text'")
        if self.num_beams < 0 or self.batch_size < 1:
            raise InputError(
                f"num_beams is {self.num_beams} and batch_size {self.batch_size}; "
                "expected 0 and 1 on"
            )


def chosen_quantizer_counts(quantizer_counts: Sequence[int], model: str, most: int) -> list[int]:
    """The quantizer_counts asked for, from the lowest; by default powers of two and all.

    Raises:
        CodesError: more layers than the model has, or none.
    """
    wrong = [depth for depth in quantizer_counts if not 1 <= depth <= most]
    if wrong:
        raise CodesError(f"num_quantizers is {wrong[0]}; expected 1 to {most} for {model!r}")
    powers = {1 << power for power in range(most.bit_length())} | {most}
    return sorted(set(quantizer_counts) or {one for one in powers if one <= most})


def run_asr(
    systems: Mapping[str, AsrSystem],
    plan: AsrPlan,
    on_progress: Callable[[int, int], None],
) -> list[SpeechRow]:
    """Rows of every clip that has a text, by system, from few quantizers to many.

    A clip that cannot be coded costs its own rows only.

    Args:
        systems: by label.
        plan: what to read.
        on_progress: called with the number of clips done and of all.

    Raises:
        CodesError: a depth that a reader does not have.
        MissingDependencyError: a package is not installed.
    """
    quantizer_counts = {
        label: chosen_quantizer_counts(
            plan.quantizer_counts, label, min(one.num_quantizers, plan.codec.info.num_quantizers)
        )
        for label, one in systems.items()
    }
    most = max(max(found) for found in quantizer_counts.values())
    clips = [clip for clip in plan.clips if clip.text]
    rows: list[SpeechRow] = []
    for start in range(0, len(clips), plan.batch_size):
        on_progress(start, len(clips))
        coded = [_coded(plan.codec, clip, most) for clip in clips[start : start + plan.batch_size]]
        rows += _rows(systems, quantizer_counts, coded, plan)
    on_progress(len(clips), len(clips))
    order = {label: index for index, label in enumerate(systems)}
    return sorted(rows, key=lambda row: (order[row.model], row.num_quantizers))


@dataclass(frozen=True)
class _Coded:
    """A clip's codes, or why there are none."""

    clip: ManifestEntry
    codes: np.ndarray
    seconds: float
    error: str = ""


def _coded(codec: Codec, clip: ManifestEntry, most: int) -> _Coded:
    try:
        sound = load_audio(clip.path, codec.info.sampling_rate, codec.info.num_channels)
        codes = codec.encode(sound, num_quantizers=most)
    except MissingDependencyError:
        raise
    except MossAudioError as error:
        return _Coded(clip, np.zeros((0, 0), np.int64), 0.0, str(error))
    return _Coded(clip, codes, round(sound.shape[1] / codec.info.sampling_rate, 3))


def _rows(
    systems: Mapping[str, AsrSystem],
    quantizer_counts: Mapping[str, list[int]],
    coded: Sequence[_Coded],
    plan: AsrPlan,
) -> Iterator[SpeechRow]:
    good = [one for one in coded if not one.error]
    for label, reader in systems.items():
        for depth in quantizer_counts[label]:
            for one in coded:
                if one.error:
                    clip = one.clip
                    yield SpeechRow(clip.name, clip.text, label, depth, error=one.error)
            codes = [one.codes[:depth] for one in good]
            texts = reader.transcribe_codes(codes, depth, plan.num_beams) if good else []
            for one, text in zip(good, texts, strict=True):
                clip, reading = (
                    one.clip,
                    Transcript.compared(
                        one.clip.text, text, normalizer(plan.text_normalization, one.clip.language)
                    ),
                )
                yield SpeechRow(
                    clip.name, clip.text, label, depth, {"": reading}, seconds=one.seconds
                )
