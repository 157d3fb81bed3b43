r"""Gather recordings of speech in 35 languages from packages of Debian, as training data.

    apt-get install asterisk-core-sounds-{en,es,fr,it,ru}-g722 klettres-data ktuberling-data \
        tuxpaint-stamps-default ffmpeg
    python samples/debian_speech.py speech/

Prompts, letters and words of a second or two are joined to clips of about 5 s, at most 5 minutes of
each language of the last three packages; 24 kHz mono FLAC and a manifest. Run by hand; the bundled
model was trained on it (docs/experiments.md), its card names the voices and licences.
"""

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

RATE = 24_000
CLIP_SECONDS = 5.0
GROUP_SECONDS = 300.0
RMS, PEAK = 0.08, 0.9
PROMPTS = {
    language: "CC-BY-3.0" if language == "ru" else "CC-BY-SA-3.0"
    for language in ("en", "fr", "ru", "es", "it")
}
# Package: what its languages are called in paths, and its licence.
WORDS = {
    "klettres-data": (r"/klettres/([^/]+)/", "GPL-2.0-or-later"),
    "ktuberling-data": (r"/sounds/([^/]+)/", "GPL-2.0-or-later"),
    "tuxpaint-stamps-default": (r"_(?:desc_)?([a-z]{2}(?:_[A-Z]{2})?)\.ogg$", "GPL-2.0-only"),
}


def groups() -> Iterator[tuple[str, str, str, float, list[str]]]:
    """Name, language, licence, most seconds and files of every voice or language."""
    for language, licence in PROMPTS.items():
        paths = installed(f"asterisk-core-sounds-{language}-g722")
        speech = [path for path in paths if "/silence/" not in path]
        yield f"asterisk-{language}", language, licence, float("inf"), speech
    for package, (pattern, licence) in WORDS.items():
        found: dict[str, list[str]] = defaultdict(list)
        for path in installed(package):
            if match := re.search(pattern, path):
                found[match.group(1)].append(path)
        for language, paths in found.items():
            name = f"{package.split('-')[0]}-{language}"
            yield name, language, licence, GROUP_SECONDS, paths


def installed(package: str) -> list[str]:
    """The sounds of a package, in an order that mixes them but is always the same."""
    listed = subprocess.run(
        ["/usr/bin/dpkg", "-L", package], capture_output=True, text=True, check=True
    )
    sounds = re.findall(r"^.+\.(?:g722|ogg|wav)$", listed.stdout, re.MULTILINE)
    return [str(path) for path in np.random.default_rng(0).permutation(sorted(sounds))]


def read(path: str) -> np.ndarray:
    """A recording at one level, mono; empty where there is next to nothing in it."""
    if path.endswith(".g722"):
        command = ["ffmpeg", "-v", "error", "-f", "g722", "-i", path]
        command += ["-f", "f32le", "-ac", "1", "-ar", "16000", "-"]
        done = subprocess.run(command, capture_output=True, check=True)
        audio, rate = np.frombuffer(done.stdout, np.float32), 16_000
    else:
        channels, rate = sf.read(path, dtype="float32", always_2d=True)
        audio = channels.mean(1)
    peak = float(np.abs(audio).max(initial=0.0))
    if len(audio) < 0.2 * rate or not 0.01 < peak < np.inf:
        return np.zeros(0, np.float32)
    rms = float(np.sqrt(np.square(audio).mean()))
    leveled = audio * min(RMS / max(rms, 1e-5), PEAK / peak)
    return soxr.resample(leveled.astype(np.float32), rate, RATE)


def clips(paths: list[str], most_seconds: float) -> Iterator[np.ndarray]:
    """Recordings one after the other, cut where a clip is long enough."""
    parts: list[np.ndarray] = []
    total = 0
    for path in paths:
        try:
            parts.append(read(path))
        except (sf.LibsndfileError, subprocess.CalledProcessError) as error:
            print(f"skipped: {path}: {error}", file=sys.stderr)
        length = sum(map(len, parts))
        if length > CLIP_SECONDS * RATE:
            yield np.concatenate(parts)
            total, parts = total + length, []
        if total > most_seconds * RATE:
            return
    if sum(map(len, parts)) > CLIP_SECONDS * RATE / 3:
        yield np.concatenate(parts)


def main(folder: Path) -> None:
    """Write the clips and their manifest."""
    folder.mkdir(parents=True)
    with (folder / "manifest.jsonl").open("w") as manifest:
        for group, language, licence, most_seconds, paths in groups():
            seconds = 0.0
            for number, audio in enumerate(clips(paths, most_seconds)):
                name = f"{group}-{number:03d}.flac"
                sf.write(folder / name, np.clip(audio, -1, 1), RATE, subtype="PCM_16")
                length = round(len(audio) / RATE, 3)
                row = {
                    "path": name,
                    "domain": "speech",
                    "seconds": length,
                    "sample_rate": RATE,
                    "channels": 1,
                    "speaker": group,
                    "language": language,
                    "license": licence,
                    "split": "train",
                }
                manifest.write(json.dumps(row) + "\n")
                seconds += length
            print(f"{group}: {seconds / 60:.1f} minutes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
