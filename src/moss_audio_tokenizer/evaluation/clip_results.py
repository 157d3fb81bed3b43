"""What a run of codecs leaves of each clip: its row, its sound and its codes.

Owns what a row says, the names of the files, and what becomes of both where another file has taken
the clip's name. The results file is `results_file.py`'s, averages are `summary.py`'s.
"""

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..audio import convert_channels, read_audio, save_audio
from ..manifest import ManifestEntry
from ..metrics.signals import MEASURED_RATE, without_delay
from .codecs import CodedClip, EvaluatedCodec
from .metric_registry import METRICS
from .results_file import (
    Key,
    ResultRow,
    as_count,
    as_text,
    checked,
    number_or_nan,
    number_or_null,
    parsing,
)

# Of a name's part in a file's: file systems take 255 for the whole.
_MOST_BYTES = 100


@dataclass(frozen=True)
class Content:
    """A clip's file when it was measured: its bytes, and the beginning of their SHA-256."""

    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Row(ResultRow):
    """One clip through one model at one bitrate, or why that failed.

    Attributes:
        domain: "speech", "music", ...
        language: "en", ...; "" where that is not known.
        identity: which version of the codec.
        kbps: nominal kilobits a second; 0 for a clip that failed.
        actual_kbps: kilobits that were made, over the clip's seconds.
        delay_ms: by which the codec's answer came late, and which was taken away.
        metrics: values by name; NaN where undefined or infinite.
        num_words, num_characters: of the clip's text, which weigh its error rates.
        transcript: text that the ASR model understood; None without one.
        text: text that the transcript was compared with; None without an ASR model.
        scoring_models: names of the models that brought metrics, by metric.
        content: of the clip's file; None for a clip that failed.
    """

    domain: str = ""
    language: str = ""
    identity: str = ""
    kbps: float = 0.0
    actual_kbps: float = 0.0
    delay_ms: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    num_words: int = 0
    num_characters: int = 0
    transcript: str | None = None
    text: str | None = None
    scoring_models: Mapping[str, str] = field(default_factory=dict)
    content: Content | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON, which has no NaN and no infinity: null instead."""
        names = ["path", "domain", "language", "model", "identity", "num_quantizers"]
        names += ["error"] if self.error else ["kbps", "actual_kbps", "delay_ms"]
        found = {name: getattr(self, name) for name in names} | {"language": self.language or None}
        if self.error:
            return found
        found |= {name: number_or_null(value) for name, value in self.metrics.items()}
        if self.transcript is not None:
            texts = ("num_words", "num_characters", "transcript", "text")
            found |= {name: getattr(self, name) for name in texts}
        if self.scoring_models:
            found["scorers"] = dict(self.scoring_models)
        if self.content:
            found["clip_bytes"] = self.content.num_bytes
            found["clip_sha256"] = self.content.sha256
        return found


def row_from_json(item: Mapping[str, Any]) -> Row:
    """The row that `Row.as_json` was made from.

    Raises:
        EvaluationError: it was made from something else, such as a row of a speech model's.
    """
    with parsing(item):
        values = checked(item, Row, language=lambda value: as_text(value or ""))
        values["metrics"] = {name: number_or_nan(item[name]) for name in item if name in METRICS}
        values["scoring_models"] = {
            name: as_text(model) for name, model in item.get("scorers", {}).items()
        }
        if "clip_sha256" in item:
            content = as_count(item["clip_bytes"]), as_text(item["clip_sha256"])
            values["content"] = Content(*content)
        if "heard" in item:  # in files of older versions
            values["transcript"] = as_text(item["heard"])
        if not values["domain"]:
            raise ValueError("the row has no domain")
        return Row(**values)


def content_of(path: Path) -> Content | None:
    """What a file holds; None where it has gone or cannot be read."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
    except (OSError, ValueError):
        return None
    return Content(size, digest.hexdigest()[:16])


def without_changed(
    folder: Path, clips: Iterable[ManifestEntry], rows: Iterable[Row]
) -> dict[Key, Row]:
    """The rows that still hold; of a clip with other content, nothing is left in the folder.

    A clip whose file has gone keeps its rows: nothing says that they are wrong.
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.path, []).append(row)
    for clip in clips:
        before = [row for row in found.get(clip.name, []) if not row.error]
        now = content_of(clip.path) if before else None
        if now and any(row.content != now for row in before):
            found[clip.name] = [row for row in before if row.content == now]
            _forget(folder, clip)
    return {row.key: row for of_clip in found.values() for row in of_clip}


def _forget(folder: Path, clip: ManifestEntry) -> None:
    shutil.rmtree(version_file(folder, clip).parent, ignore_errors=True)
    for path in folder.glob(f"codes/*/{name_slug(clip.name)}.npy"):
        path.unlink()


def slug(name: str, num_quantizers: int | None = None) -> str:
    """A codec's name as part of a file's."""
    plain = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in name)
    if len(plain.encode()) > _MOST_BYTES:
        begin = plain.encode()[:_MOST_BYTES].decode(errors="ignore")
        plain = f"{begin}-{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:8]}"
    return plain if num_quantizers is None else f"{plain}-{num_quantizers}"


def save_decoded_audio(
    folder: Path,
    clip: ManifestEntry,
    codec: EvaluatedCodec,
    coded_clip: CodedClip,
    delay: int,
    num_samples: int,
) -> None:
    """What a codec made of a clip, without its delay, beside the original."""
    rate = codec.sampling_rate
    late = round(delay * rate / MEASURED_RATE)
    rows = [without_delay(channel, late, num_samples) for channel in coded_clip.audio]
    path = version_file(folder, clip, slug(codec.name, coded_clip.num_quantizers))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_audio(path, np.stack(rows), rate)


def save_reference(folder: Path, clip: ManifestEntry) -> None:
    """The original in mono beside what codecs made of it."""
    path = version_file(folder, clip)
    samples, rate = read_audio(clip.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written again for every codec: the file there may be of another clip of this name.
    save_audio(path, convert_channels(samples, 1), rate)


def version_file(folder: Path, clip: ManifestEntry, version: str = "reference") -> Path:
    """Where a version of a clip lies: what a codec made of it, or the original."""
    return folder / "audio" / name_slug(clip.name) / f"{version}.flac"


def name_slug(name: str) -> str:
    """A clip's name as a file's: the same in every run, other than that of every other clip."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{slug(Path(name).stem)[:60]}-{digest}"


def save_codes(folder: Path, clip: ManifestEntry, codec: EvaluatedCodec, codes: np.ndarray) -> None:
    """The codes of a clip with the most quantizers, for statistics."""
    path = _codes_file(folder, codec.name, clip)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, codes.astype(np.int32), allow_pickle=False)


def read_codes(folder: Path, codec: str, clips: Iterable[ManifestEntry]) -> list[np.ndarray]:
    """The stored codes of one codec; clips that failed have none."""
    paths = (_codes_file(folder, codec, clip) for clip in clips)
    return [np.load(path, allow_pickle=False) for path in paths if path.is_file()]


def _codes_file(folder: Path, codec: str, clip: ManifestEntry) -> Path:
    return folder / "codes" / slug(codec) / f"{name_slug(clip.name)}.npy"
