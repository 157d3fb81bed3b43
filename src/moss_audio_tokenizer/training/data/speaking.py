"""Synthetic speech for training: texts spoken by espeak-ng in many voices, with their manifest.

Owns the choice of voice and rate for each text, and the files of the result: ``speak.json``,
``audio/*/*.flac`` and, last of all, ``manifest.jsonl``. A folder without a manifest is incomplete;
the same call completes it.
"""

import itertools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...audio import audio_info, read_audio, resample, save_audio
from ...errors import AudioFileError, InputError, MissingDependencyError
from ...files import write_file
from .preparing import claim_folder

PROGRAM = "espeak-ng"
MANIFEST_NAME = "manifest.jsonl"
SETTINGS_NAME = "speak.json"
AUDIO_NAME = "audio"

VOICES = (
    *("en-us", "en-us-nyc", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan"),
    *("en-gb-x-gbcwmd", "en-029"),
)
# The variants of espeak-ng that sound like people; those that whisper, croak or ring are left out.
VARIANTS = (
    *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5", "adam", "Alex"),
    *("Alicia", "Andrea", "Andy", "Annie", "belinda", "benjamin", "caleb", "david", "Denis"),
    *("edward", "Gene", "john", "Lee", "linda", "Mario", "max", "Michael", "Mike", "pablo"),
    *("quincy", "rob", "robert", "sandro", "shelby", "travis", "victor"),
)
# espeak-ng's scale; 50 is the variant's own pitch.
_PITCHES = (30, 70)
_WORDS_A_MINUTE = (130, 220)
_MOST_GAP = 8  # tens of milliseconds between words

_USUAL_SPEAKERS = 60
_MOST_SECONDS = 120
_CLIPS_A_FOLDER = 1000


@dataclass(frozen=True)
class Speaking:
    """How texts are spoken.

    Attributes:
        seed: the seed of every random choice.
        num_speakers: the number of different speakers; None takes 60, or all that the voices have
            if these are fewer.
        voices: espeak-ng's names of languages and accents; a repeated name counts once.
        valid_share: the share of clips in the split "valid"; the others are in "train".
        sampling_rate: the sampling rate of the sound files.

    Raises:
        InputError: a value is out of range.
    """

    seed: int = 0
    num_speakers: int | None = None
    voices: tuple[str, ...] = VOICES
    valid_share: float = 0.02
    sampling_rate: int = 24_000

    def __post_init__(self) -> None:
        _check_names(self.voices)
        object.__setattr__(self, "voices", tuple(dict.fromkeys(self.voices)))
        most = len(self.voices) * len(VARIANTS)
        if self.num_speakers is None:
            object.__setattr__(self, "num_speakers", min(_USUAL_SPEAKERS, most))
        elif not 1 <= self.num_speakers <= most:
            raise InputError(
                f"got {self.num_speakers} speakers; expected 1 to {most}, {len(VARIANTS)} of each "
                "voice; ask for fewer --speakers, or name another --voice"
            )
        if not 0 <= self.valid_share < 1:
            raise InputError(f"got a valid share of {self.valid_share:g}; expected 0 up to 1")


@dataclass(frozen=True)
class Speaker:
    """A speaker of the corpus: a voice of espeak-ng, one of its variants, and a pitch."""

    voice: str
    variant: str
    pitch: int

    @property
    def name(self) -> str:
        """The name of the speaker in manifests."""
        return f"espeak-{self.voice}-{self.variant}-{self.pitch}".lower()


@dataclass(frozen=True)
class Utterance:
    """A text with its speaker and rate.

    Attributes:
        number: the index of the text.
        text: the text for the manifest.
        spoken: the text for espeak-ng.
        speaker: the speaker.
        words_a_minute: the rate of espeak-ng.
        gap: the pause between words, in tens of milliseconds.
        split: "train" or "valid".
    """

    number: int
    text: str
    spoken: str
    speaker: Speaker
    words_a_minute: int
    gap: int
    split: str

    @property
    def path(self) -> str:
        """The path of the sound file, relative to the manifest."""
        return f"{_folder(self.number)}/{self.number:06d}.flac"


def _folder(number: int) -> str:
    return f"{AUDIO_NAME}/{number // _CLIPS_A_FOLDER:03d}"


def speak(
    texts: Sequence[str],
    wanted: Speaking,
    output: Path,
    pronounce: Callable[[str], str] | None = None,
    workers: int = 2,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write a folder of speech and its manifest, and return a summary.

    Args:
        texts: the texts, a clip each; blank ones are left out.
        wanted: the speakers, and how they speak.
        output: the folder to write: a new or empty one, or one that the same call left unfinished.
        pronounce: a function that makes espeak-ng's text of a text; None leaves it as it is, but
            ``[[`` does not start phonemes.
        workers: the number of programs that run at a time.
        advance: a function that is called after each clip with the number of clips done.

    Raises:
        MissingDependencyError: espeak-ng is not installed.
        InputError: there are no texts, espeak-ng lacks a voice, or the folder holds other files.
        AudioFileError: espeak-ng failed, or the folder cannot be written.
    """
    program = find_espeak()
    texts = [" ".join(text.split()) for text in texts if text.strip()]
    if not texts:
        raise InputError("got no texts; expected at least one")
    _check_voices(program, wanted.voices)
    settings = {**asdict(wanted), "voices": list(wanted.voices), "texts": texts}
    folders = [_folder(number) for number in range(0, len(texts), _CLIPS_A_FOLDER)]
    claim_folder(output, settings, SETTINGS_NAME, MANIFEST_NAME, folders)
    items = list[dict[str, Any]]()
    with ThreadPoolExecutor(workers) as pool:
        utterances = plan(texts, wanted, pronounce or _literal)
        for item in pool.map(lambda one: _made(program, one, output, wanted), utterances):
            items.append(item)
            if advance is not None:
                advance(len(items))
    lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
    write_file(output / MANIFEST_NAME, lines, AudioFileError)
    return _summary(items)


def find_espeak() -> str:
    """The path of espeak-ng.

    Raises:
        MissingDependencyError: it is not installed.
    """
    path = shutil.which(PROGRAM)
    if path is None:
        raise MissingDependencyError(
            f"the program {PROGRAM} is not installed (on Debian and Ubuntu: apt install {PROGRAM})"
        )
    return path


def plan(
    texts: Sequence[str], wanted: Speaking, pronounce: Callable[[str], str]
) -> Iterator[Utterance]:
    """The speaker and rate of each text; for a given seed they do not depend on later texts."""
    random = np.random.default_rng(wanted.seed)
    speakers = _speakers(random, wanted)
    slowest, fastest = _WORDS_A_MINUTE
    for number, text in enumerate(texts):
        yield Utterance(
            number,
            text,
            pronounce(text),
            speakers[int(random.integers(len(speakers)))],
            int(random.integers(slowest, fastest + 1)),
            int(random.integers(_MOST_GAP + 1)),
            "valid" if random.random() < wanted.valid_share else "train",
        )


def _speakers(random: np.random.Generator, wanted: Speaking) -> list[Speaker]:
    """Different pairs of voice and variant, each at a random pitch."""
    pairs = list(itertools.product(wanted.voices, VARIANTS))
    chosen = [pairs[index] for index in random.permutation(len(pairs))[: wanted.num_speakers]]
    low, high = _PITCHES
    return [
        Speaker(voice, variant, int(random.integers(low, high + 1))) for voice, variant in chosen
    ]


def _literal(text: str) -> str:
    return text.replace("[[", "[ [")


def _check_names(voices: Sequence[str]) -> None:
    """Refuse what cannot be the name of a voice, whatever is installed."""
    if not voices:
        raise InputError("got no voices; expected at least one")
    for voice in voices:
        if not voice.strip() or not voice.isprintable():
            raise InputError(f"got voice {voice!r}; expected a name from {PROGRAM} --voices")


def _check_voices(program: str, voices: Sequence[str]) -> None:
    for voice in voices:
        # A name that starts with a dash would be read as an option.
        if voice.startswith("-") or _run([program, "-q", "-v", voice, "--stdin"], "").returncode:
            raise InputError(
                f"got voice {voice!r}, which {PROGRAM} does not have; see {PROGRAM} --voices"
            )


def _made(program: str, one: Utterance, output: Path, wanted: Speaking) -> dict[str, Any]:
    """Write a clip unless its file exists, and return its line of the manifest."""
    path = output / one.path
    if not path.is_file():
        save_audio(path, _speech(program, one, wanted.sampling_rate), wanted.sampling_rate)
    return {
        "path": one.path,
        "text": one.text,
        "speaker": one.speaker.name,
        "language": one.speaker.voice.split("-")[0],
        "split": one.split,
        "seconds": round(audio_info(path).duration_seconds, 6),
        "sample_rate": wanted.sampling_rate,
        "channels": 1,
        "domain": "speech",
    }


def _speech(program: str, one: Utterance, sampling_rate: int) -> np.ndarray:
    """The samples (1, samples) of an utterance."""
    voice = f"{one.speaker.voice}+{one.speaker.variant}"
    with tempfile.TemporaryDirectory(prefix="moss-audio-") as folder:
        path = Path(folder) / "speech.wav"
        arguments = [program, "--stdin", "-b", "1", "-z", "-v", voice, "-w", str(path)]
        arguments += ["-p", str(one.speaker.pitch), "-s", str(one.words_a_minute)]
        done = _run([*arguments, "-g", str(one.gap)], one.spoken)
        if done.returncode or not path.is_file():
            said = " ".join(done.stderr.decode("utf-8", "replace").split())
            raise AudioFileError(
                f"{PROGRAM} could not say {one.text[:80]!r} with the voice {voice} (status "
                f"{done.returncode}): {said or 'no message'}"
            )
        samples, rate = read_audio(path)
    return resample(samples, rate, sampling_rate)


def _run(arguments: Sequence[str], text: str) -> subprocess.CompletedProcess[bytes]:
    try:
        # No shell: the arguments are a list, and the text goes to stdin.
        return subprocess.run(  # noqa: S603
            arguments, input=text.encode(), capture_output=True, timeout=_MOST_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise AudioFileError(
            f"{PROGRAM} took over {_MOST_SECONDS} s and was stopped; give it shorter texts"
        ) from error


def _summary(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "clips": len(items),
        "speakers": len({item["speaker"] for item in items}),
        "seconds": round(sum(item["seconds"] for item in items), 3),
        "manifest": MANIFEST_NAME,
    }
