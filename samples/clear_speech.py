r"""Spelled letters, numbers and dates by clear synthetic voices, as training data of CAT-TTS.

    python samples/clear_speech.py 9000 clear/ [HELD_OUT ...]

Eight voices of RHVoice, flite and SVOX Pico, which a recogniser of speech understands about as well
as recordings; each at ten sizes of the speaker (played faster and higher), so that there are eighty
speakers. 16 kHz, written as 24 kHz mono FLAC, with ``manifest.jsonl``. Texts are made up as by
``moss-audio data speak --spelling``, but a third are letters or digits alone; those that a
HELD_OUT file has (a text a line, or a manifest of which the split is not "train") are left out.
On Debian: apt install flite; from non-free: rhvoice rhvoice-english libttspico-utils. Run by hand.
"""

import itertools
import json
import string
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from moss_audio_tokenizer.training.data.spelling import spelling

RATE = 24_000
# As the recordings of AN4 are, which the same model hears.
BAND_RATE = 16_000
SEED = 5
SPELLING_SEED, SPELLING_SHARE = 55, 0.65
LETTERS_SHARE = 0.6
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# Program, voice, and share of the clips.
VOICES = (
    ("rhvoice", "bdl", 0.24),
    ("rhvoice", "alan", 0.20),
    ("rhvoice", "clb", 0.15),
    ("rhvoice", "slt", 0.14),
    ("flite", "awb", 0.08),
    ("flite", "rms", 0.08),
    ("pico", "en-US", 0.06),
    ("pico", "en-GB", 0.05),
)
SIZES = np.linspace(0.86, 1.16, 10)
QUIET = 0.02
MARGIN_SECONDS = 0.1
MOST_SECONDS = 60


@dataclass(frozen=True)
class Clip:
    """A text, who says it, and how.

    Attributes:
        number: among all.
        text: of the manifest.
        program: of the voice.
        voice: its name there.
        size: the result is played so many times as fast, and sounds as much smaller.
        pace: of the program, 1 is the voice's own.
        pauses: 0 to 1: above 0.3 there are some between letters, above 0.75 between all words.
        level: RMS in dBFS.
        quiet: how far white noise lies below it, in dB.
        seed: of the noise.
    """

    number: int
    text: str
    program: str
    voice: str
    size: float
    pace: float
    pauses: float
    level: float
    quiet: float
    seed: int


def made_up(count: int, held_out: set[str], random: np.random.Generator) -> list[str]:
    """Texts that are not held out, in no order."""
    texts = spelling(int(count * SPELLING_SHARE), SPELLING_SEED)
    while len(texts) < count:
        texts.append(" ".join(letters_or_digits(random)))
    texts = [text for text in texts if text not in held_out]
    random.shuffle(texts)
    return texts


def letters_or_digits(random: np.random.Generator) -> list[str]:
    """Three to seven; a nought is "zero" throughout or "oh" throughout."""
    if random.random() < LETTERS_SHARE:
        picked = range(int(random.integers(3, 8)))
        return [string.ascii_lowercase[int(random.integers(26))] for _ in picked]
    nought = ("zero", "oh")[int(random.integers(2))]
    digits = [DIGITS[int(random.integers(10))] for _ in range(int(random.integers(3, 8)))]
    return [nought if digit == "zero" else digit for digit in digits]


def planned(count: int, held_out: set[str]) -> list[Clip]:
    """The clips; the same for the same arguments."""
    random = np.random.default_rng(SEED)
    texts = made_up(count, held_out, random)
    sizes = [random.permutation(SIZES + random.uniform(-0.01, 0.01, len(SIZES))) for _ in VOICES]
    shares = np.array([share for *_, share in VOICES])
    clips = []
    for number, text in enumerate(texts):
        index = random.choice(len(VOICES), p=shares / shares.sum())
        program, voice, _ = VOICES[index]
        size = float(sizes[index][random.integers(len(SIZES))])
        pace, pauses = random.uniform(0.85, 1.25), random.random()
        level, quiet = random.uniform(-26, -20), random.uniform(50, 60)
        seed = int(random.integers(1 << 30))
        clips.append(Clip(number, text, program, voice, size, pace, pauses, level, quiet, seed))
    return clips


def spelled(clip: Clip) -> str:
    """The text as the program pronounces it correctly."""
    letter_a = '<phoneme alphabet="xsampa" ph="eI"/>' if clip.program == "pico" else "ay"
    read = {"a": letter_a, "rubout": "rub out"}
    words = clip.text.split()
    said = read.get(words[0], words[0])
    for word, following in itertools.pairwise(words):
        letter = len(word) == 1 or len(following) == 1
        paused = clip.pauses > (0.3 if letter else 0.75)
        said += (", " if paused else " ") + read.get(following, following)
    return said + "."


def synthesised(clip: Clip) -> tuple[np.ndarray, int]:
    """Samples and their rate, as the program makes them."""
    text, percent = spelled(clip), str(int(100 * clip.pace))
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "speech.wav")
        if clip.program == "rhvoice":
            command = ["RHVoice-test", "-p", clip.voice, "-r", percent, "-o", path, "-R", str(RATE)]
        elif clip.program == "flite":
            stretch = f"duration_stretch={1 / clip.pace:.3f}"
            command = ["flite", "-voice", clip.voice, "--setf", stretch, "-t", text, "-o", path]
        else:
            text = f'<speed level="{percent}">{text}</speed>'
            command = ["pico2wave", "-l", clip.voice, "-w", path, text]
        subprocess.run(
            command, input=text.encode(), capture_output=True, timeout=MOST_SECONDS, check=True
        )
        return sf.read(path, dtype="float32")


def heard(clip: Clip) -> np.ndarray:
    """The clip at ``RATE``: without silence at its ends, at its size and level, with its noise."""
    audio, rate = synthesised(clip)
    audio = soxr.resample(audio, rate * clip.size, BAND_RATE).astype(np.float32)
    loud = np.flatnonzero(np.abs(audio) > QUIET * np.abs(audio).max(initial=0.0))
    if not len(loud):
        raise SystemExit(f"{clip.program} is silent as {clip.voice} about {clip.text!r}")
    margin = int(MARGIN_SECONDS * BAND_RATE)
    audio = audio[max(0, loud[0] - margin) : loud[-1] + margin]
    audio = audio * 10 ** (clip.level / 20) / np.sqrt(np.mean(audio**2))
    noise = np.random.default_rng(clip.seed).standard_normal(len(audio)).astype(np.float32)
    audio = audio + noise * 10 ** ((clip.level - clip.quiet) / 20)
    return np.clip(soxr.resample(audio, BAND_RATE, RATE), -1, 1)


def written(clip: Clip, folder: Path) -> dict[str, object]:
    """Write a clip; its manifest line."""
    name, audio = f"{clip.number:05d}.flac", heard(clip)
    sf.write(folder / name, audio, RATE)
    return {
        "path": name,
        "text": clip.text,
        "speaker": f"{clip.program}-{clip.voice}-{int(clip.size * 1000)}".lower(),
        "language": "en",
        "split": "train",
        "seconds": round(len(audio) / RATE, 4),
        "sample_rate": RATE,
        "channels": 1,
        "domain": "speech",
    }


def held_out_texts(path: Path) -> set[str]:
    """Of a text file, or of what a manifest does not train on."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if path.suffix != ".jsonl":
        return {line.strip() for line in lines}
    rows = [json.loads(line) for line in lines]
    return {row["text"] for row in rows if row.get("split", "train") != "train" and "text" in row}


def main(count: int, folder: Path, held_out: list[Path]) -> None:
    """Write all clips, and last their manifest."""
    folder.mkdir(parents=True)
    clips = planned(count, set().union(*map(held_out_texts, held_out)))
    with ThreadPoolExecutor(2) as pool:
        items = list(pool.map(partial(written, folder=folder), clips))
    lines = "".join(json.dumps(item) + "\n" for item in items)
    (folder / "manifest.jsonl").write_text(lines, encoding="utf-8")
    print(f"{len(items)} clips, {sum(item['seconds'] for item in items) / 3600:.2f} hours")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit("expected how many clips, a folder to write, and files of held-out texts")
    main(int(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
