r"""Pack recordings of several manifests into one file of at most so many megabytes, and unpack it.

    python samples/training_set.py pack set.tar --megabytes 50 \
        recordings/manifest.jsonl@24 kathleen/manifest.jsonl@32 speech/manifest.jsonl@32
    python samples/training_set.py unpack set.tar set/

A machine with a GPU often gets little data at once. ``@32`` encodes the training clips of a
manifest as Opus at 32 kbit/s, so that a source with a wide band gets more bits than one that was
sampled at 16 kHz; ``@32:1.5`` takes 1.5 hours of it, clips spread evenly over the manifest. Clips
of the split "valid" get 64 kbit/s; those of the split "test" are left out. All become 24 kHz mono.
The file is a tar with ``manifest.jsonl``, whose lines keep text, speaker, language, licence
and source, and ``sources.json``, which counts clips and hours by source and licence for the model
card. The unpacked folder is what `moss-audio train` and varied_copies.py read.
"""

import argparse
import io
import json
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr

RATE = 24_000
MANIFEST, SOURCES = "manifest.jsonl", "sources.json"
# What libsndfile makes of its compression level for one channel: 0 is 256 kbit/s, 1 is 6.
LEAST_KBPS, MOST_KBPS = 6.0, 256.0
# The headers of an Opus file and its member of the tar, which is padded to blocks.
FILE_BYTES = 1_400
# The final figures are taken from the recordings themselves, where they are.
VALID_KBPS = 64.0
SPLITS = ("train", "valid")


@dataclass(frozen=True)
class Part:
    """A manifest, and how much of it is packed.

    Attributes:
        manifest: its path.
        kbps: bitrate of the training clips.
        hours: the most training audio to take; None for all.
    """

    manifest: Path
    kbps: float
    hours: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Part":
        """From MANIFEST@KBPS or MANIFEST@KBPS:HOURS."""
        path, _, numbers = text.rpartition("@")
        kbps, _, hours = numbers.partition(":")
        try:
            part = cls(Path(path), float(kbps), float(hours) if hours else None)
        except ValueError:
            part = None
        if part is None or not path or not LEAST_KBPS <= part.kbps <= MOST_KBPS:
            raise SystemExit(
                f"{text!r} is no part of a training set; expected MANIFEST@KBPS or "
                f"MANIFEST@KBPS:HOURS, with {LEAST_KBPS:g} to {MOST_KBPS:g} kbit/s"
            )
        return part

    @property
    def name(self) -> str:
        """The folder of the manifest, which names its clips in the tar."""
        return self.manifest.resolve().parent.name

    def rows(self) -> list[dict[str, Any]]:
        """The lines that are packed, those of the split "train" within the hours."""
        lines = self.manifest.read_text(encoding="utf-8").split("\n")
        rows = [{"split": "train", **json.loads(line)} for line in lines if line.strip()]
        training = within_hours([row for row in rows if row["split"] == "train"], self.hours)
        return training + [row for row in rows if row["split"] == "valid"]

    def kbps_of(self, row: dict[str, Any]) -> float:
        """The bitrate of a clip."""
        return VALID_KBPS if row["split"] == "valid" else self.kbps


def within_hours(rows: list[dict[str, Any]], hours: float | None) -> list[dict[str, Any]]:
    """Clips spread evenly over a manifest, as long together as is wanted."""
    total = sum(row["seconds"] for row in rows)
    share = 1.0 if hours is None or total == 0 else min(1.0, hours * 3600 / total)
    chosen, owed = [], 0.0
    for row in rows:
        owed += share * row["seconds"]
        if owed >= row["seconds"] / 2:
            chosen.append(row)
            owed -= row["seconds"]
    return chosen


def mono(path: Path) -> np.ndarray:
    """A recording at RATE."""
    channels, rate = sf.read(path, dtype="float32", always_2d=True)
    return np.clip(soxr.resample(channels.mean(1), rate, RATE), -1, 1)


def encoded(audio: np.ndarray, kbps: float) -> bytes:
    """An Opus file of a bitrate."""
    level = (MOST_KBPS - kbps) / (MOST_KBPS - LEAST_KBPS)
    buffer = io.BytesIO()
    sf.write(buffer, audio, RATE, format="OGG", subtype="OPUS", compression_level=level)
    return buffer.getvalue()


def estimated_bytes(parts: list[Part]) -> float:
    """About how large the packed clips become."""
    rows = [(part.kbps_of(row), row["seconds"]) for part in parts for row in part.rows()]
    return sum(seconds * kbps * 125 + FILE_BYTES for kbps, seconds in rows)


def clips(parts: list[Part]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Every clip's manifest line and file."""
    for part in parts:
        for number, row in enumerate(part.rows()):
            audio = mono(part.manifest.parent / row["path"])
            path = f"{part.name}/{number:05d}.opus"
            source = row.get("source_repo") or part.name
            seconds = round(len(audio) / RATE, 4)
            line = {name: value for name, value in row.items() if value is not None}
            line |= {"path": path, "seconds": seconds, "sample_rate": RATE, "channels": 1}
            yield line | {"source_repo": source}, encoded(audio, part.kbps_of(row))


def sources(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Clips and hours by source and licence."""
    groups = defaultdict[tuple[str, str], list[float]](list)
    for row in rows:
        groups[row["source_repo"], row.get("license", "unknown")].append(row["seconds"])
    return [
        {"source": source, "license": name, "clips": len(of), "hours": round(sum(of) / 3600, 3)}
        for (source, name), of in sorted(groups.items())
    ]


def pack(target: Path, parts: list[Part], megabytes: float) -> None:
    """Write the tar; refuse what does not fit, before any of it is encoded."""
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise SystemExit(f"the folders of the manifests are called {names}; expected other names")
    expected = estimated_bytes(parts) / 1e6
    if expected > megabytes:
        raise SystemExit(
            f"the clips make about {expected:.1f} MB; expected at most {megabytes:g}: "
            "take a lower bitrate, or hours of a part (MANIFEST@KBPS:HOURS)"
        )
    partial, rows = target.with_name(target.name + ".partial"), []
    with tarfile.open(partial, "w") as archive:
        for row, data in clips(parts):
            _add(archive, row["path"], data)
            rows.append(row)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        _add(archive, MANIFEST, text.encode())
        _add(archive, SOURCES, (json.dumps(sources(rows), indent=1) + "\n").encode())
    size = partial.stat().st_size / 1e6
    if size > megabytes:
        partial.unlink()
        raise SystemExit(f"the set makes {size:.1f} MB; expected at most {megabytes:g}")
    partial.replace(target)
    for split in SPLITS:
        seconds = [row["seconds"] for row in rows if row["split"] == split]
        print(f"{split}: {len(seconds)} clips, {sum(seconds) / 60:.1f} minutes")
    print(f"{target}: {size:.1f} MB")


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def unpack(packed: Path, folder: Path) -> None:
    """Write the clips, and last their manifest; refuse a tar that lacks one of them."""
    with tarfile.open(packed) as archive:
        names = archive.getnames()
        manifest = archive.extractfile(MANIFEST) if MANIFEST in names else None
        if manifest is None:
            raise SystemExit(f"{packed} has no {MANIFEST}; expected what pack wrote")
        text = manifest.read().decode()
        wanted = {json.loads(line)["path"] for line in text.splitlines()}
        missing = wanted.difference(names)
        if missing:
            raise SystemExit(f"{packed} lacks {min(missing)}; copy it again")
        folder.mkdir(parents=True)
        archive.extractall(
            folder,
            [member for member in archive.getmembers() if member.name != MANIFEST],
            filter="data",
        )
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    print(f"{folder / MANIFEST}: {len(wanted)} clips")


def main(arguments: list[str] | None = None) -> None:
    """Pack, or unpack."""
    parser = argparse.ArgumentParser(description="Pack or unpack a training set.")
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("target", type=Path)
    packing.add_argument("parts", nargs="+", help="MANIFEST@KBPS or MANIFEST@KBPS:HOURS")
    packing.add_argument("--megabytes", type=float, default=50.0)
    unpacking = commands.add_parser("unpack")
    unpacking.add_argument("packed", type=Path)
    unpacking.add_argument("folder", type=Path)
    given = parser.parse_args(arguments)
    if given.command == "pack":
        pack(given.target, [Part.parse(part) for part in given.parts], given.megabytes)
    else:
        unpack(given.packed, given.folder)


if __name__ == "__main__":
    main()
