"""Artifacts of a run for each clip: content hash, original, decoded versions, codes.

Owns the names of these files, and what becomes of them where another file has taken the clip's
name; knows no metrics.
"""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..audio import convert_channels, read_audio, save_audio
from ..manifest import ManifestEntry
from ..metrics.signals import MEASURED_RATE
from .alignment import without_delay
from .codecs import CodedClip, EvaluatedCodec
from .result_rows import Content, Key, Row

_BLOCK_BYTES = 1 << 20
_DIGITS = 16
# Of a name's part in a file's: file systems take 255 for the whole.
_MOST_BYTES = 100


def content_of(path: Path) -> Content | None:
    """What a file holds; None where it has gone or cannot be read."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
    except (OSError, ValueError):
        return None
    return Content(size, digest.hexdigest()[:_DIGITS])


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
    shutil.rmtree(audio_folder(folder, clip), ignore_errors=True)
    for path in folder.glob(f"codes/*/{clip_slug(clip)}.npy"):
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
    name = f"{slug(codec.name, coded_clip.num_quantizers)}.flac"
    path = audio_folder(folder, clip) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_audio(path, np.stack(rows), rate)


def save_reference(folder: Path, clip: ManifestEntry) -> None:
    """The original in mono beside what codecs made of it."""
    path = reference_file(folder, clip)
    samples, rate = read_audio(clip.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written again for every codec: the file there may be of another clip of this name.
    save_audio(path, convert_channels(samples, 1), rate)


def reference_file(folder: Path, clip: ManifestEntry) -> Path:
    """Where the original of a clip lies."""
    return audio_folder(folder, clip) / "reference.flac"


def audio_folder(folder: Path, clip: ManifestEntry) -> Path:
    """Where the versions of a clip lie."""
    return folder / "audio" / clip_slug(clip)


def codes_file(folder: Path, codec: str, clip: ManifestEntry) -> Path:
    """Where the codes of a clip lie."""
    return folder / "codes" / slug(codec) / f"{clip_slug(clip)}.npy"


def clip_slug(clip: ManifestEntry) -> str:
    """A clip's name as a file's: the same in every run, other than that of every other clip."""
    digest = hashlib.sha256(clip.name.encode()).hexdigest()[:8]
    return f"{slug(Path(clip.name).stem)[:60]}-{digest}"


def save_codes(folder: Path, clip: ManifestEntry, codec: EvaluatedCodec, codes: np.ndarray) -> None:
    """The codes of a clip with the most quantizers, for statistics."""
    path = codes_file(folder, codec.name, clip)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, codes.astype(np.int32), allow_pickle=False)
