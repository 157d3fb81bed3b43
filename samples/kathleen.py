r"""The Kathleen recordings, 82 minutes of one speaker of American English, as a manifest.

    git clone (the public GitHub repository rhasspy/dataset-voice-kathleen)
    python samples/kathleen.py dataset-voice-kathleen/ kathleen/

She reads the CMU Arctic prompts; the recordings are CC0. Writes 24 kHz mono FLAC. The prompts that
natural_texts.py keeps out of training texts, a tenth by the hash of their words, are of the split
"test", whichever take it is. Run again, it writes only what is missing.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from natural_texts import is_held_out

RATE = 24_000
PROMPT = re.compile(r'^\( (\w+) "(.*)" \)', re.MULTILINE)


def takes(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Recording, what is said, and split; the split is that of the prompt, not of its wording."""
    listed = (folder / "cmuarctic.data").read_text(encoding="utf-8")
    prompts = dict(PROMPT.findall(listed))
    for path in sorted((folder / "data").glob("*.wav")):
        text = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
        identifier = path.stem.rpartition("_")[0]
        yield path, text, "test" if is_held_out(prompts.get(identifier, text)) else "train"


def mono(path: Path) -> np.ndarray:
    """A recording at RATE."""
    channels, rate = sf.read(path, dtype="float32", always_2d=True)
    return np.clip(soxr.resample(channels.mean(1), rate, RATE), -1, 1)


def written(source: Path, target: Path) -> float:
    """Write a clip as a whole, unless it is there; its seconds."""
    if not target.exists():
        partial = target.with_suffix(".partial")
        sf.write(partial, mono(source), RATE, format="FLAC", subtype="PCM_16")
        partial.replace(target)
    return sf.info(target).duration


def main(folder: Path, output: Path) -> None:
    """Write the clips, and last their manifest."""
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    for source, text, split in takes(folder):
        name = f"{source.stem}.flac"
        row = {"path": name, "text": text, "speaker": "kathleen", "language": "en", "split": split}
        row |= {"seconds": round(written(source, output / name), 4), "sample_rate": RATE}
        rows.append(row | {"channels": 1, "domain": "speech", "license": "CC0-1.0"})
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (output / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")
    for split in ("train", "test"):
        seconds = [row["seconds"] for row in rows if row["split"] == split]
        print(f"{split}: {len(seconds)} clips, {sum(seconds) / 60:.1f} minutes")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("expected the folder of the repository and a folder to write")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
