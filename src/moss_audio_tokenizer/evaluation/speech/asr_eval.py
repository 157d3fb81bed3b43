"""Speech recognition on codes: clips through a codec, their codes through ASR systems.

A clip is encoded once; the codes of fewer quantizers are its prefix. Systems are behind a
protocol; PyTorch is loaded when a CAT-ASR system is made.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Integer

from ...audio import load_audio
from ...codes import Codec
from ...errors import InputError, MissingDependencyError, MossAudioError
from ...manifest import ManifestEntry
from ..clip_results import content_of
from ..loading import fingerprint
from ..text_normalization import compare, normalizer
from .speech_rows import (
    Batch,
    OnProgress,
    SpeechRow,
    chosen_quantizer_counts,
    digest_of,
    run_batches,
)


class AsrSystem(Protocol):
    """An ASR system under evaluation: codes to texts.

    Attributes:
        identity: which version it is, so that results of another one are not taken for its own.
        num_quantizers: the most quantizers whose codes it reads.
    """

    identity: str
    num_quantizers: int

    def transcribe_codes(
        self,
        clips: Sequence[Integer[np.ndarray, "num_quantizers _"]],
        num_quantizers: int,
        num_beams: int | None = None,
    ) -> list[str]:
        """The transcripts of clips, from the codes of their first quantizers."""
        ...


class CatAsrSystem:
    """A CAT-ASR model as an `AsrSystem`.

    Args:
        name: folder of the model, or its id on the hub.
        codec: codec whose codes the model reads.
        device: where to compute.

    Raises:
        CheckpointError: there is no such model.
        ModelMismatchError: it was trained on codes of another codec.
    """

    def __init__(self, name: str, codec: Codec, device: str = "cpu") -> None:
        from ...asr import CatAsr, Transcriber
        from ...model.inputs import require_device

        model: Any = CatAsr.from_pretrained(name)
        self.identity = fingerprint(model)
        self.num_quantizers = int(model.config.num_quantizers)
        self.transcribe_codes = Transcriber(
            model.to(require_device(device)), codec
        ).transcribe_codes


@dataclass(frozen=True)
class AsrPlan:
    """What to transcribe, and how.

    Attributes:
        clips: recordings, of which those with texts count.
        quantizer_counts: empty for powers of two.
        num_beams: width of the beam search; 0 is by the frames alone, None the model's best.
        batch_size: clips that are transcribed together.

    Raises:
        InputError: no clip has a text, or a number is not at least 1.
    """

    clips: Sequence[ManifestEntry]
    codec: Codec
    quantizer_counts: Sequence[int] = ()
    num_beams: int | None = None
    batch_size: int = 8
    text_normalization: str = "plain"

    def __post_init__(self) -> None:
        normalizer(self.text_normalization)
        if not any(clip.text for clip in self.clips):
            raise InputError("none of the clips has a text; expected a manifest with 'text'")
        if (self.num_beams or 0) < 0 or self.batch_size < 1:
            raise InputError(
                f"num_beams is {self.num_beams} and batch_size {self.batch_size}; "
                "expected 0 and 1 on"
            )


def run_asr(
    systems: Mapping[str, AsrSystem], plan: AsrPlan, folder: Path, on_progress: OnProgress
) -> list[SpeechRow]:
    """Rows of every clip that has a text, by system, from few quantizers to many.

    A clip that cannot be encoded costs its own rows only.

    Args:
        systems: ASR systems by label.
        plan: what to transcribe.
        folder: of the results; an interrupted run resumes there.
        on_progress: called with the number of rows done and of all.

    Raises:
        CodesError: a number of quantizers that a system does not have.
        EvaluationError: another run has the folder, or it holds rows of another kind.
    """
    available = plan.codec.info.num_quantizers
    most = {label: min(one.num_quantizers, available) for label, one in systems.items()}
    counts = chosen_quantizer_counts(plan.quantizer_counts, most)
    clips = [clip for clip in plan.clips if clip.text]
    batches = _batches(systems, counts, clips, plan)
    num_rows = len(clips) * sum(map(len, counts.values()))
    return run_batches(batches, folder, list(systems), num_rows, on_progress)


def _batches(
    systems: Mapping[str, AsrSystem],
    counts: Mapping[str, list[int]],
    clips: Sequence[ManifestEntry],
    plan: AsrPlan,
) -> Iterator[Batch]:
    most = max(max(found) for found in counts.values())
    for start in range(0, len(clips), plan.batch_size):
        batch = clips[start : start + plan.batch_size]
        # A clip is encoded when the first system asks for it: a resumed run may not need it.
        encode = cache(partial(_encoded, batch, plan.codec, most))
        contents = [content_of(clip.path) for clip in batch]
        for label, system in systems.items():
            settings = system.identity, plan.codec.info.identity, plan.num_beams
            origins = [
                digest_of(settings, plan.text_normalization, clip.text, clip.language, content)
                for clip, content in zip(batch, contents, strict=True)
            ]
            for count in counts[label]:
                keys = [(clip.name, label, count) for clip in batch]
                rows = partial(_rows, batch, encode, label, system, count, plan)
                yield Batch(dict(zip(keys, origins, strict=True)), rows)


@dataclass(frozen=True)
class _Encoded:
    """A clip's codes, or why there are none."""

    codes: np.ndarray
    seconds: float
    error: str = ""


def _encoded(clips: Sequence[ManifestEntry], codec: Codec, num_quantizers: int) -> list[_Encoded]:
    def encode(clip: ManifestEntry) -> _Encoded:
        info = codec.info
        try:
            sound = load_audio(clip.path, info.sampling_rate, info.num_channels)
            codes = codec.encode(sound, num_quantizers=num_quantizers)
        except MissingDependencyError:
            raise
        except MossAudioError as error:
            return _Encoded(np.zeros((0, 0), np.int64), 0.0, str(error))
        return _Encoded(codes, round(sound.shape[1] / info.sampling_rate, 3))

    return [encode(clip) for clip in clips]


def _rows(
    clips: Sequence[ManifestEntry],
    encode: Callable[[], list[_Encoded]],
    label: str,
    system: AsrSystem,
    count: int,
    plan: AsrPlan,
) -> list[SpeechRow]:
    encoded = encode()
    codes = [one.codes[:count] for one in encoded if not one.error]
    texts = iter(system.transcribe_codes(codes, count, plan.num_beams) if codes else ())
    rows = []
    for clip, one in zip(clips, encoded, strict=True):
        row = SpeechRow(clip.name, label, count, one.error, clip.text, seconds=one.seconds)
        if not one.error:
            normalize = normalizer(plan.text_normalization, clip.language)
            transcript = compare(clip.text, next(texts), normalize)
            row = replace(row, transcripts={"": transcript})
        rows.append(row)
    return rows
