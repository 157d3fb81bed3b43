"""Every clip through a codec at several bitrates, and what came back measured.

Owns the rows; averages are `summary.py`'s.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from ..audio import load_audio
from ..codes import Codec
from ..errors import CodesError, MissingDependencyError, MossAudioError
from ..manifest import ManifestEntry
from .measures import DEFAULT_METRICS, SPEECH_METRICS, measure


@dataclass(frozen=True)
class Row:
    """One clip at one bitrate, or one clip that failed.

    Attributes:
        name: the clip.
        domain: "speech", "music", ...
        model: identity of the codec.
        num_quantizers: layers of codes that were decoded; 0 for a clip that failed.
        kbps: nominal kilobits a second; 0 for a clip that failed.
        metrics: values by name; NaN where undefined.
        error: what went wrong, or "".
    """

    name: str
    domain: str
    model: str
    num_quantizers: int = 0
    kbps: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON, which has no NaN and no infinity: null instead."""
        clip = {"path": self.name, "domain": self.domain, "model": self.model}
        if self.error:
            return {**clip, "error": self.error}
        values = {name: value if isfinite(value) else None for name, value in self.metrics.items()}
        return {**clip, "num_quantizers": self.num_quantizers, "kbps": self.kbps, **values}


def evaluate_clips(
    codec: Codec,
    clips: Iterable[ManifestEntry],
    num_quantizers: Sequence[int],
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> list[Row]:
    """Measure every clip at every number of quantizers.

    A clip is encoded once, at the greatest number: fewer layers are a prefix of it. Metrics of
    speech are left out for clips of another domain. A clip that cannot be read, encoded or
    measured gives one row with its error, and the others go on.

    Raises:
        CodesError: a number of quantizers that the codec does not have.
        MissingDependencyError: a metric's package is not installed.
    """
    most = codec.info.num_quantizers
    if not num_quantizers:
        raise CodesError(f"num_quantizers is empty; expected one or more of 1 to {most}")
    for count in num_quantizers:
        if not 1 <= count <= most:
            raise CodesError(f"num_quantizers is {count}; expected 1 to {most} for this model")
    return [row for clip in clips for row in _rows(codec, clip, num_quantizers, metrics)]


def _rows(
    codec: Codec, clip: ManifestEntry, num_quantizers: Sequence[int], metrics: Sequence[str]
) -> list[Row]:
    try:
        return _evaluate(codec, clip, num_quantizers, metrics)
    except MissingDependencyError:
        raise  # every clip would fail the same way
    except MossAudioError as error:
        return [Row(clip.name, clip.domain, codec.info.identity, error=str(error))]


def _evaluate(
    codec: Codec, clip: ManifestEntry, num_quantizers: Sequence[int], metrics: Sequence[str]
) -> list[Row]:
    info = codec.info
    audio = load_audio(clip.path, info.sampling_rate, info.num_channels)
    codes = codec.encode(audio, num_quantizers=max(num_quantizers))
    spoken = clip.domain == "speech"
    names = [name for name in metrics if spoken or name not in SPEECH_METRICS]
    rows = []
    for count in num_quantizers:
        decoded = codec.decode(codes[:count])[:, : audio.shape[1]]
        values = measure(audio, decoded, info.sampling_rate, names)
        kbps = info.bitrate(count) / 1000
        rows.append(Row(clip.name, clip.domain, info.identity, count, kbps, values))
    return rows
