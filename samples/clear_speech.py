r"""Speech by clear synthetic voices, as training data of CAT-ASR and CAT-TTS.

    python samples/clear_speech.py 9000 clear/ [HELD_OUT ...]
    python samples/clear_speech.py 4000 clear/ --texts en.txt

Nine voices of RHVoice, flite and SVOX Pico, which a recognizer of speech understands about as well
as recordings; each at ten sizes of the speaker (played faster and higher), so that there are ninety
speakers. 16 kHz, written as 24 kHz mono FLAC, with ``manifest.jsonl``, which grows with the clips.
Texts are the lines of ``--texts`` (see natural_texts.py) in random order. Without it they are
spelled letters, numbers and dates, made up as by ``moss-audio data speak --spelling``, but a third
are letters or digits alone. Those that a HELD_OUT file has (a text a line, or a manifest of which
the split is not "train") are left out.

On Debian: apt install flite; from non-free: rhvoice rhvoice-english libttspico-utils. Run by hand.
"""

import argparse
import itertools
import json
import string
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import soundfile as sf
import soxr

from moss_audio_tokenizer.training.data.spelling import spelling

RATE = 24_000
# As the recordings of AN4 are.
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
    ("flite", "slt", 0.05),
    ("pico", "en-US", 0.06),
    ("pico", "en-GB", 0.05),
)
SIZES = np.linspace(0.86, 1.16, 10)
QUIET = 0.02
MARGIN_SECONDS = 0.1
MOST_SECONDS = 60
# Longer lines make rows that training leaves out.
LONGEST_TEXT = 140
REPORT_CLIPS = 200


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
        spelled: whether letters that stand alone are to be named.
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
    spelled: bool


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


def lines_of(path: Path, count: int, held_out: set[str], random: np.random.Generator) -> list[str]:
    """The lines of a file in random order, more than once if they are too few."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    lines = [line for line in lines if len(line) <= LONGEST_TEXT and line not in held_out]
    if not lines:
        raise SystemExit(f"{path} has no line of up to {LONGEST_TEXT} characters to say")
    random.shuffle(lines)
    return list(itertools.islice(itertools.cycle(lines), count))


def planned(count: int, held_out: set[str], source: Path | None = None) -> list[Clip]:
    """The clips; the same for the same arguments."""
    random = np.random.default_rng(SEED)
    texts = (
        lines_of(source, count, held_out, random) if source else made_up(count, held_out, random)
    )
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
        sound = (program, voice, size, pace, pauses, level, quiet, seed)
        clips.append(Clip(number, text, *sound, spelled=source is None))
    return clips


def spelled(clip: Clip) -> str:
    """The text as the program pronounces it correctly."""
    if not clip.spelled:
        return escape(clip.text) if clip.program == "pico" else clip.text
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


def main(arguments: argparse.Namespace) -> None:
    """Write all clips, and with each its line of the manifest."""
    folder, count = arguments.folder, arguments.count
    held_out: set[str] = set().union(*map(held_out_texts, arguments.held_out))
    clips = planned(count, held_out, arguments.texts)
    folder.mkdir(parents=True)
    seconds = 0.0
    with (
        ThreadPoolExecutor(arguments.threads) as pool,
        (folder / "manifest.jsonl").open("w", encoding="utf-8") as manifest,
    ):
        for number, item in enumerate(pool.map(partial(written, folder=folder), clips), 1):
            manifest.write(json.dumps(item) + "\n")
            seconds += float(str(item["seconds"]))
            if number % REPORT_CLIPS == 0 or number == len(clips):
                manifest.flush()
                print(f"{number} of {len(clips)} clips, {seconds / 3600:.2f} hours", flush=True)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Speech by clear synthetic voices.")
    parser.add_argument("count", type=int, help="number of clips")
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("held_out", type=Path, nargs="*", help="files of texts to leave out")
    parser.add_argument("--texts", type=Path, help="texts to say, one a line")
    parser.add_argument("--threads", type=int, default=2, help="programs at a time (default 2)")
    return parser.parse_args()


if __name__ == "__main__":
    main(parsed())
