r"""Copies of recordings as other devices and rooms would have heard them, as training data.

    python samples/varied_copies.py MANIFEST [MANIFEST ...] copies/

Of every training clip of speech: one at another speed; of nearly half of them one of a narrower
band (telephones, old recordings) and one with noise or in a room, both at another speed too. Of
most other sounds only the speed changes. 24 kHz mono WAV, not quite twice as long as the data, and
a manifest for each kind: speed.jsonl, band.jsonl, noise.jsonl. Run by hand; the bundled model 0.4
was trained on what an earlier form made (docs/experiments.md).
"""

import json
import random
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

RATE = 24_000
# How many of the clips of speech are copied in these ways, and how many of the others at all.
BAND_SHARE = NOISE_SHARE = 0.45
OTHERS_SHARE = 0.7
# The lowest is drawn the most: what is narrow is mostly telephones.
NARROW_RATES = (8_000, 8_000, 8_000, 11_025, 12_000, 16_000)
LOWEST_TELEPHONE_HERTZ = 200
MU = 255


@dataclass(frozen=True)
class Clip:
    """A training clip of a manifest."""

    path: Path
    domain: str


def clips_of(manifest: Path) -> list[Clip]:
    """The clips of the split "train"."""
    lines = manifest.read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line.strip()]
    return [
        Clip(manifest.parent / row["path"], row.get("domain") or "speech")
        for row in rows
        if row.get("split", "train") == "train"
    ]


def read(path: Path) -> np.ndarray:
    """A recording in mono."""
    channels, rate = sf.read(path, dtype="float32", always_2d=True)
    if not len(channels):
        raise SystemExit(f"{path} is empty; take it out of its manifest")
    return soxr.resample(channels.mean(1), rate, RATE)


def speeded(audio: np.ndarray, factor: float) -> np.ndarray:
    """So many times as fast, pitch and tempo."""
    return soxr.resample(audio, RATE * factor, RATE)


def narrowed(audio: np.ndarray, chance: random.Random) -> np.ndarray:
    """As a lower sampling rate leaves it; half of the lowest as a telephone does."""
    rate = chance.choice(NARROW_RATES)
    narrow = soxr.resample(audio, RATE, rate)
    if rate == min(NARROW_RATES) and chance.random() < 0.5:
        narrow = telephoned(narrow, rate)
    return soxr.resample(narrow.astype(np.float32), rate, RATE)


def telephoned(audio: np.ndarray, rate: int) -> np.ndarray:
    """Without low frequencies, in 8 bits of mu-law."""
    spectrum, hertz = np.fft.rfft(audio), np.fft.rfftfreq(len(audio), 1 / rate)
    spectrum /= 1 + (LOWEST_TELEPHONE_HERTZ / np.maximum(hertz, 1.0)) ** 4
    audio = np.fft.irfft(spectrum, len(audio))
    peak = np.abs(audio).max() + 1e-9
    coded = np.sign(audio) * np.log1p(MU * np.abs(audio / peak)) / np.log1p(MU)
    coded = np.round(coded * 127) / 127
    return np.sign(coded) * np.expm1(np.abs(coded) * np.log1p(MU)) / MU * peak


def disturbed(audio: np.ndarray, noises: list[Clip], chance: random.Random) -> np.ndarray:
    """Half of them in a room; all with another recording or white noise behind them."""
    numbers = np.random.default_rng(chance.randrange(1 << 30))
    if chance.random() < 0.5:
        audio = reverberant(audio, numbers, chance)
    if noises and chance.random() < 0.7:
        noise, decibels = read(chance.choice(noises).path), chance.uniform(6, 25)
        noise = np.resize(noise, len(audio))
    else:
        noise = numbers.standard_normal(len(audio), np.float32)
        decibels = chance.uniform(15, 35)
    level = rms(audio) / (rms(noise) + 1e-6) * 10 ** (-decibels / 20)
    return audio + noise * level


def reverberant(
    audio: np.ndarray, numbers: np.random.Generator, chance: random.Random
) -> np.ndarray:
    """Through a room of decaying noise, at the level that it had."""
    seconds = np.arange(int(RATE * chance.uniform(0.1, 0.5))) / RATE
    decay = np.exp(-seconds / chance.uniform(0.03, 0.15)) * chance.uniform(0.02, 0.08)
    room = numbers.standard_normal(len(seconds)) * decay
    room[0] = 1.0
    size = len(audio) + len(room)
    heard = np.fft.irfft(np.fft.rfft(audio, size) * np.fft.rfft(room, size), size)[: len(audio)]
    return (heard * (rms(audio) / (rms(heard) + 1e-6))).astype(np.float32)


def rms(audio: np.ndarray) -> float:
    """The root mean square."""
    return float(np.sqrt(np.mean(np.square(audio))))


def copies(
    numbered: tuple[int, Clip], noises: list[Clip], folder: Path
) -> list[tuple[str, dict[str, object]]]:
    """Write the copies of a clip: kind and manifest line of each."""
    number, clip = numbered
    chance, audio = random.Random(number), read(clip.path)
    made = {}
    if clip.domain != "speech":
        if chance.random() < OTHERS_SHARE:
            made["speed"] = speeded(audio, chance.uniform(0.85, 1.18))
    else:
        slow, fast = chance.uniform(0.82, 0.95), chance.uniform(1.06, 1.22)
        made["speed"] = speeded(audio, chance.choice((slow, fast)))
        if chance.random() < BAND_SHARE:
            made["band"] = narrowed(speeded(audio, chance.uniform(0.9, 1.12)), chance)
        if chance.random() < NOISE_SHARE:
            made["noise"] = disturbed(speeded(audio, chance.uniform(0.9, 1.12)), noises, chance)
    return [
        (kind, written(folder / f"{kind}-{number:05d}.wav", copy, clip.domain))
        for kind, copy in made.items()
    ]


def written(path: Path, audio: np.ndarray, domain: str) -> dict[str, object]:
    """Write a copy; its manifest line."""
    peak = float(np.abs(audio).max()) + 1e-9
    sf.write(path, audio * min(1.0, 0.99 / peak), RATE, subtype="PCM_16")
    seconds = round(len(audio) / RATE, 3)
    return {"path": path.name, "domain": domain, "seconds": seconds, "split": "train"}


def main(manifests: list[Path], folder: Path) -> None:
    """Write all copies and their manifests."""
    folder.mkdir(parents=True)
    clips = [clip for manifest in manifests for clip in clips_of(manifest)]
    noises = [clip for clip in clips if clip.domain != "speech"]
    lines = defaultdict(list)
    with ProcessPoolExecutor() as pool:
        work = partial(copies, noises=noises, folder=folder)
        for made in pool.map(work, enumerate(clips), chunksize=8):
            for kind, line in made:
                lines[kind].append(line)
    for kind, of_kind in lines.items():
        text = "".join(json.dumps(line) + "\n" for line in of_kind)
        (folder / f"{kind}.jsonl").write_text(text, encoding="utf-8")
        print(f"{kind}: {sum(line['seconds'] for line in of_kind) / 60:.1f} minutes")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit("expected one or more manifests, and a folder to write")
    main([Path(name) for name in sys.argv[1:-1]], Path(sys.argv[-1]))
