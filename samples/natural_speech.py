r"""Natural speech of the TTS models Kokoro-82M and Piper, as training data.

    python samples/natural_speech.py texts.txt speech/ --assets assets/ --until 22:55
    python samples/natural_speech.py test.txt test/ --assets assets/ --test-speakers

Speaks the texts (one a line, see natural_texts.py) by named voices and by mixtures of two voices of
one sex, which are new speakers. Writes 24 kHz mono FLAC in folders of 200 clips, with one
``manifest.jsonl``. Clip 1234 is the same for the same texts, seed and voices, so a run that was
stopped continues where it was: start it again with the same arguments. Needs kokoro-onnx,
soundfile and soxr, or piper-tts; it does not need PyTorch. README.md beside this file says where
model and voices come from.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import soundfile as sf
from natural_plan import ENGLISH, VOICES, Clip, Plan, Speaker, make_speakers
from natural_voices import RATE, KokoroVoices, PiperVoice, Voices, crop_silence

CLIPS_PER_FOLDER = 200
# Shorter than any sentence: the synthesizer failed.
LEAST_SECONDS = 0.4
REPORT_CLIPS = 20


@dataclass(frozen=True)
class Limits:
    """When a run ends, whichever comes first.

    Attributes:
        clips: number of clips in the folder.
        hours: of audio in the folder.
        until: a time, in UTC.
    """

    clips: int | None = None
    hours: float | None = None
    until: datetime | None = None

    def reached(self, clips: int, seconds: float) -> bool:
        """Whether to stop before the next clip."""
        late = self.until is not None and datetime.now(timezone.utc) >= self.until
        enough = self.hours is not None and seconds >= self.hours * 3600
        return late or enough or (self.clips is not None and clips >= self.clips)


class Dataset:
    """A folder of clips and its manifest; a line is there only when its clip is whole."""

    def __init__(self, folder: Path, settings: dict[str, object]):
        """Open or start a folder.

        Args:
            folder: of the dataset.
            settings: what the plan was made from; a folder with others is refused.
        """
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._check(settings)
        self.manifest = folder / "manifest.jsonl"
        self.rows = self._whole_rows()

    def _check(self, settings: dict[str, object]) -> None:
        """The clips of a folder follow one plan, or they would repeat or mix texts."""
        path = self.folder / "settings.json"
        if path.exists() and json.loads(path.read_text(encoding="utf-8")) != settings:
            raise SystemExit(
                f"{path} has other settings than this run: use the same texts, seed, language and "
                "engine to continue, or another folder"
            )
        replace_text(path, json.dumps(settings, indent=2) + "\n")

    def _whole_rows(self) -> list[dict[str, object]]:
        """Rows of the manifest; a line that was cut off when a run was killed is removed."""
        if not self.manifest.exists():
            return []
        text = self.manifest.read_text(encoding="utf-8", errors="replace")
        whole, _, rest = text.rpartition("\n")
        if rest:
            replace_text(self.manifest, whole + "\n" if whole else "")
        return [json.loads(line) for line in whole.split("\n") if line]

    @property
    def numbers(self) -> set[int]:
        """Of the clips that are there."""
        return {int(Path(str(row["path"])).stem) for row in self.rows}

    @property
    def seconds(self) -> float:
        """Of audio in the folder."""
        return sum(float(str(row["seconds"])) for row in self.rows)

    def add(self, clip: Clip, audio: np.ndarray, split: str) -> None:
        """Write a clip beside its place, move it there, and only then name it in the manifest."""
        name = f"{clip.number // CLIPS_PER_FOLDER:04d}/{clip.number:06d}.flac"
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial")
        sf.write(partial, audio, RATE, format="FLAC", subtype="PCM_16")
        partial.replace(path)
        row = manifest_row(clip, name, len(audio) / RATE, split)
        with self.manifest.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.rows.append(row)


def replace_text(path: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def manifest_row(clip: Clip, name: str, seconds: float, split: str) -> dict[str, object]:
    """The line of a clip."""
    return {
        "path": name,
        "text": clip.text,
        "speaker": clip.speaker.name,
        "language": clip.language,
        "split": split,
        "seconds": round(seconds, 4),
        "sample_rate": RATE,
        "channels": 1,
        "domain": "speech",
        "license": clip.speaker.license,
        "speed": clip.speed,
    }


def generate(plan: Plan, voices: Voices, dataset: Dataset, limits: Limits, split: str) -> None:
    """Speak the clips of a plan that the dataset does not have yet."""
    done, progress = dataset.numbers, Progress(dataset, limits)
    number = 0
    while plan.has(number) and not limits.reached(len(dataset.rows), dataset.seconds):
        if number not in done:
            clip = plan.clip(number)
            audio = spoken_clip(voices, clip)
            if len(audio) < LEAST_SECONDS * RATE:
                print(f"skipped: {clip.speaker.name} says nothing for {clip.text!r}", flush=True)
            else:
                dataset.add(clip, audio, split)
                progress.report()
        number += 1
    progress.report(last=True)


def spoken_clip(voices: Voices, clip: Clip) -> np.ndarray:
    """Samples of a clip; none where its text has nothing that the model can say."""
    try:
        return crop_silence(voices.speak(clip))
    except ValueError as error:
        print(f"{clip.text!r}: {error}", file=sys.stderr, flush=True)
        return np.zeros(0, np.float32)


class Progress:
    """Prints how much audio there is, how fast it comes, and how much is expected."""

    def __init__(self, dataset: Dataset, limits: Limits):
        """Count from what the dataset has now."""
        self.dataset, self.limits = dataset, limits
        self.start, self.start_cpu = time.monotonic(), time.process_time()
        self.start_clips, self.start_seconds = len(dataset.rows), dataset.seconds

    def report(self, last: bool = False) -> None:
        """A line after some clips, and one at the end."""
        clips = len(self.dataset.rows) - self.start_clips
        if not last and clips % REPORT_CLIPS != 1:
            return
        made = max(self.dataset.seconds - self.start_seconds, 1e-9)
        speed = made / (time.monotonic() - self.start)
        cpu = (time.process_time() - self.start_cpu) / made
        now = datetime.now(timezone.utc)
        total = f"{len(self.dataset.rows)} clips, {self.dataset.seconds / 3600:.3f} h"
        speeds = f"{speed:.2f} s of audio a second, {cpu:.2f} CPU s for one"
        print(f"{now:%H:%M:%S} {total}; {speeds}{self._expected(speed, now)}", flush=True)

    def _expected(self, speed: float, now: datetime) -> str:
        total = self.dataset.seconds / 3600
        if self.limits.hours is not None and speed > 0:
            left = (self.limits.hours - total) / speed
            return f"; {self.limits.hours} h in {max(left, 0):.2f} h"
        if self.limits.until is not None:
            left = max((self.limits.until - now).total_seconds(), 0) / 3600
            return f"; {total + left * speed:.2f} h expected at {self.limits.until:%H:%M}"
        return ""


def next_time(text: str) -> datetime:
    """A time in UTC: 2030-12-31T22:55, or the next time that a clock shows 22:55."""
    now = datetime.now(timezone.utc)
    if "T" in text:
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    clock = datetime.strptime(text, "%H:%M")
    found = now.replace(hour=clock.hour, minute=clock.minute, second=0, microsecond=0)
    return found if found > now else found + timedelta(days=1)


def parsed_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("texts", type=Path, help="one text a line")
    parser.add_argument("folder", type=Path, help="to write or to continue")
    parser.add_argument("--assets", type=Path, help="folder of the Kokoro model and its voices")
    parser.add_argument("--engine", choices=("kokoro", "piper"), default="kokoro")
    parser.add_argument("--piper-voice", type=Path, help="the .onnx file of a Piper voice")
    parser.add_argument("--language", choices=sorted(VOICES), default=ENGLISH)
    parser.add_argument("--mixtures", type=int, default=72, help="number of mixed speakers")
    parser.add_argument("--mixture-share", type=float, default=0.5, help="of clips by them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clips", type=int, help="stop at so many clips")
    parser.add_argument("--hours", type=float, help="stop at so many hours of audio")
    parser.add_argument("--until", type=next_time, help="stop at this time in UTC, HH:MM")
    parser.add_argument(
        "--test-speakers",
        action="store_true",
        help="make the test set: every test speaker says every text, at normal speed",
    )
    return parser.parse_args(arguments)


def make_voices(options: argparse.Namespace) -> Voices:
    """The synthesizer that was asked for."""
    if options.engine == "piper":
        if options.piper_voice is None:
            raise SystemExit("--engine piper needs --piper-voice, the .onnx file of a voice")
        return PiperVoice(options.piper_voice)
    if options.assets is None:
        raise SystemExit("--engine kokoro needs --assets, see README.md beside this script")
    return KokoroVoices(options.assets)


def chosen_speakers(options: argparse.Namespace) -> list[Speaker]:
    """Who speaks."""
    if options.engine == "piper":
        return [Speaker("piper-joe", (("joe", 1.0),), license="CC0-1.0")]
    return make_speakers(options.language, options.mixtures, options.seed, options.test_speakers)


def main(arguments: list[str] | None = None) -> None:
    """Generate until a limit or the end of the plan."""
    options = parsed_arguments(arguments)
    lines = options.texts.read_text(encoding="utf-8").split("\n")
    plan = Plan(
        [line.strip() for line in lines if line.strip()],
        chosen_speakers(options),
        options.language,
        options.seed,
        options.mixture_share,
        every_pair=options.test_speakers,
    )
    dataset = Dataset(options.folder, plan.settings() | {"engine": options.engine})
    limits = Limits(options.clips, options.hours, options.until)
    split = "test" if options.test_speakers else "train"
    generate(plan, make_voices(options), dataset, limits, split)


if __name__ == "__main__":
    main()
