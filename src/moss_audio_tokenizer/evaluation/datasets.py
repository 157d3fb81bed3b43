"""Test sets: manifests of the paper's public sets, and texts with prompts for speech synthesis.

Owns the layouts of LibriSpeech, AISHELL-2, AudioSet, MUSDB18-HQ and Seed-TTS-Eval, three formats of
texts, and the choice of prompts. Nothing is copied or decoded.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_file
from ..manifest import ManifestEntry, manifest_lines, read_manifest
from .text_normalization import text_lines

_AUDIOSET_ROW = "YTID, start seconds, end seconds, labels"
_SEED_TTS_ROW = "name|prompt text|prompt path|text"
_AUDIO_SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3", ".m4a")

Line = dict[str, Any]


@dataclass(frozen=True)
class PreparedSet:
    """How many clips a manifest has, and which ones of the set's own lists are not there."""

    num_clips: int
    absent: tuple[str, ...]


def write_manifest(name: str, folder: Path, output: Path) -> PreparedSet:
    """Write the manifest of a public test set.

    Args:
        name: one of `DATASETS`.
        folder: as its publisher's archive unpacks.
        output: the manifest, a new or an old file; its paths are relative to it.

    Raises:
        InputError: the set is unknown, or the folder has another layout.
    """
    if name not in DATASETS:
        raise InputError(f"the data set {name!r} is unknown; expected {', '.join(DATASETS)}")
    read, layout = DATASETS[name]
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is not a folder; expected {layout}")
    lines, absent, start = [], [], output.parent.absolute()
    # Absolute, for splits are named by folders that may lie above a relative one.
    for line in read(folder.absolute()):
        # Seed-TTS-Eval's recordings of the texts themselves are not needed, and often not there.
        needed = line.get("prompt_path") or line["path"]
        if not needed.is_file():
            absent.append(str(line["path"].stem))
            continue
        for key in {"path", "prompt_path"} & line.keys():
            line[key] = Path(os.path.relpath(line[key].absolute(), start)).as_posix()
        lines.append(line)
    if not lines:
        raise InputError(f"{str(folder)!r} is not laid out as {name}: expected {layout}")
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_file(output, text)
    return PreparedSet(len(lines), tuple(absent))


def _librispeech(folder: Path) -> Iterator[Line]:
    """Transcripts stand in one file a chapter: ``61/70968/61-70968.trans.txt``."""
    for chapter in sorted(folder.rglob("*.trans.txt")):
        split = chapter.parents[2].name
        for name, text in _named_texts(chapter):
            speaker = name.partition("-")[0]
            path = chapter.parent / f"{name}.flac"
            yield _speech(path, text.capitalize(), "en", speaker) | {"split": split}


def _aishell2(folder: Path) -> Iterator[Line]:
    """``trans.txt`` (name, text) and ``wav.scp`` (name, path) for each device and split."""
    for transcripts in sorted(folder.rglob("trans.txt")):
        places = transcripts.with_name("wav.scp")
        if not places.is_file():
            continue
        paths = dict(_named_texts(places))
        for name, text in _named_texts(transcripts):
            path = transcripts.parent / paths.get(name, f"wav/{name}.wav")
            line = _speech(path, text, "zh", path.parent.name)
            yield line | {"split": transcripts.parent.name}


def _audioset(folder: Path) -> Iterator[Line]:
    """``eval_segments.csv`` names clips of 10 s by YouTube's identifiers; files carry these."""
    files = {
        path.stem: path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in _AUDIO_SUFFIXES
    }
    for table in sorted(folder.glob("*segments*.csv")):
        for number, row in enumerate(text_lines(table, _AUDIOSET_ROW), 1):
            if row.startswith("#"):
                continue
            name, start = _segment(row, f"{table} line {number}")
            names = name, f"Y{name}", f"{name}_{start}", f"{name}_{float(start):.0f}"
            found = next((files[one] for one in names if one in files), folder / f"{name}.wav")
            yield {"path": found, "domain": "sound", "split": table.stem.split("_")[0]}


def _segment(row: str, place: str) -> tuple[str, str]:
    """Identifier and start of a row; the other cells are not needed."""
    name, _, more = row.partition(",")
    start = more.partition(",")[0].strip()
    if not start.replace(".", "", 1).isdecimal():
        raise InputError(f"{place} is {row[:80]!r}; expected {_AUDIOSET_ROW}")
    return name.strip(), start


def _musdb(folder: Path) -> Iterator[Line]:
    """MUSDB18-HQ: ``test/ARTIST - TITLE/mixture.wav``."""
    for path in sorted(folder.rglob("mixture.wav")):
        yield {"path": path, "domain": "music", "split": path.parents[1].name}


def _seed_tts_eval(folder: Path) -> Iterator[Line]:
    """``en/meta.lst`` and ``zh/meta.lst``."""
    for language in ("en", "zh"):
        table = folder / language / "meta.lst"
        for name, prompt_text, prompt, text in _seed_tts_rows(table) if table.is_file() else ():
            line = _speech(table.parent / "wavs" / f"{name}.wav", text, language, "")
            line |= {"prompt_path": table.parent / prompt, "prompt_text": prompt_text}
            yield line | {"split": language}


def _seed_tts_rows(path: Path) -> Iterator[list[str]]:
    """Name, prompt text, prompt path and text of each line of Seed-TTS-Eval's list.

    A fifth cell is the recording of the text itself, which is not needed.
    """
    for number, line in enumerate(text_lines(path, _SEED_TTS_ROW), 1):
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) not in (4, 5) or not all(cells[:4]):
            raise InputError(f"{path} line {number} is {line[:80]!r}; expected {_SEED_TTS_ROW}")
        yield cells[:4]


def _speech(path: Path, text: str, language: str, speaker: str) -> Line:
    line: Line = {"path": path, "domain": "speech", "language": language, "text": text}
    return line | ({"speaker": speaker} if speaker else {})


def _named_texts(path: Path) -> Iterator[tuple[str, str]]:
    """Lines of a name, white space, and the rest."""
    for line in text_lines(path, "a name and a text a line"):
        name, _, text = line.replace("\t", " ", 1).partition(" ")
        yield name, text.strip()


DATASETS: dict[str, tuple[Callable[[Path], Iterator[Line]], str]] = {
    "librispeech": (_librispeech, "test-clean/SPEAKER/CHAPTER/ with .flac files and a .trans.txt"),
    "aishell2": (_aishell2, "iOS/test/ with trans.txt, wav.scp and wav/"),
    "audioset": (_audioset, "eval_segments.csv and sound files named by YouTube's identifiers"),
    "musdb": (_musdb, "MUSDB18-HQ: test/TRACK/mixture.wav (not the .stem.mp4 files of MUSDB18)"),
    "seed-tts-eval": (_seed_tts_eval, "en/meta.lst and zh/meta.lst with prompt-wavs/"),
}
"""Readers and layouts, by the names that `moss-audio data prepare` takes."""


@dataclass(frozen=True)
class SpeechItem:
    """A text to synthesize, and the recording that prompts the voice.

    Attributes:
        name: unique among the items.
        prompt: path of the recording, or None; prompt_name is the path as the list has it.
        prompt_text: transcript of the recording.
        language: of the text, such as "en" or "zh"; "" where that is not known.
        speaker, recording: who says the text in which file, where that is known.
    """

    name: str
    text: str
    prompt: Path | None = None
    prompt_name: str = ""
    prompt_text: str = ""
    language: str = ""
    speaker: str = ""
    recording: Path | None = None


def read_test_items(
    path: Path, prompts: Path | None = None, split: str | None = None, limit: int | None = None
) -> list[SpeechItem]:
    """The items of a file.

    Args:
        path: by its extension: ``.jsonl``, a manifest of texts (a line may name its
            own ``prompt_path`` and ``prompt_text``); ``.lst``, Seed-TTS-Eval's
            ``name|prompt text|prompt path|text``; any other, a text per line.
        prompts: a manifest of recordings with texts: a text of a known speaker gets another
            recording of that speaker, any other one the next in turn; one that says
            something else, where there is such.
        split: split of both manifests; None is all.
        limit: how many items from the first; None is all.

    Raises:
        InputError: a file cannot be read, has no texts, or has prompts without text.
    """
    readers = {".jsonl": _of_manifest, ".lst": _of_list}
    items = list(readers.get(path.suffix, _of_lines)(path, split))[:limit]
    if not items:
        raise InputError(f"{str(path)!r} has no texts; expected at least one")
    names = [item.name for item in items]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{str(path)!r} has {twice!r} twice; expected each once")
    if prompts is None:
        return items
    clips = [clip for clip in read_manifest(prompts, split, "speech") if clip.text]
    if not clips:
        raise InputError(f"{str(prompts)!r} has no speech with a text; prompts need what they say")
    return [
        item if item.prompt else _prompted(item, index, clips) for index, item in enumerate(items)
    ]


def _prompted(item: SpeechItem, index: int, clips: Sequence[ManifestEntry]) -> SpeechItem:
    own = [
        clip
        for clip in clips
        if item.speaker and clip.speaker == item.speaker and clip.path != item.recording
    ]
    # A prompt that says the text itself would only be repeated.
    others = [clip for clip in own or clips if clip.text != item.text] or own or clips
    clip = others[index % len(others)]
    return replace(item, prompt=clip.path, prompt_name=clip.name, prompt_text=clip.text)


def _of_manifest(path: Path, split: str | None) -> Iterator[SpeechItem]:
    for number, found in manifest_lines(path):
        if isinstance(found, InputError):
            raise found
        entry, line = found
        if not entry.text or entry.domain != "speech" or split not in (None, entry.split):
            continue
        name, text = line.get("prompt_path") or "", line.get("prompt_text") or ""
        if not isinstance(name, str) or not isinstance(text, str) or bool(name) != bool(text):
            raise InputError(
                f"{path} line {number} has prompt_path {name!r} and prompt_text {text!r}; "
                "expected texts, both or none"
            )
        prompt = path.parent.absolute() / name if name else None
        whose = entry.language, entry.speaker, entry.path
        yield SpeechItem(entry.name, entry.text, prompt, name, text, *whose)


def _of_list(path: Path, split: str | None) -> Iterator[SpeechItem]:
    del split  # the format has none
    folder = path.parent.absolute()
    for name, prompt_text, prompt, text in _seed_tts_rows(path):
        # The set does not name its two languages: a text with a Han character is Chinese.
        language = "zh" if any("\u4e00" <= letter <= "\u9fff" for letter in text) else "en"
        yield SpeechItem(name, text, folder / prompt, prompt, prompt_text, language)


def _of_lines(path: Path, split: str | None) -> Iterator[SpeechItem]:
    del split
    lines = text_lines(path, "a text a line, or a .jsonl manifest")
    yield from (SpeechItem(f"text {number}", line) for number, line in enumerate(lines, 1))
