"""Manifests of the public test sets of the paper, from their official folders.

Owns the layouts of LibriSpeech, AISHELL-2, AudioSet, MUSDB18-HQ and Seed-TTS-Eval. Nothing is
copied or decoded: a manifest names the recordings where they are.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import atomic_path

_AUDIO_SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3", ".m4a")

Line = dict[str, Any]


@dataclass(frozen=True)
class PreparedSet:
    """What a manifest holds.

    Attributes:
        num_clips: lines of the manifest.
        absent: names in the set's own lists that have no recording in the folder.
    """

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
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is not a folder; expected {_LAYOUTS[name]}")
    lines, absent = [], []
    for line in DATASETS[name](folder):
        # Seed-TTS-Eval's recordings of the texts themselves are not needed, and often not there.
        if name != "seed-tts-eval" and not line["path"].is_file():
            absent.append(str(line["path"].stem))
            continue
        lines.append({**line, **_relative(line, output)})
    if not lines:
        raise InputError(f"{str(folder)!r} is not laid out as {name}: expected {_LAYOUTS[name]}")
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(output) as beside:
        beside.write_text(text, encoding="utf-8")
    return PreparedSet(len(lines), tuple(absent))


def _relative(line: Line, output: Path) -> dict[str, str]:
    start = output.parent.absolute()
    return {
        name: Path(os.path.relpath(line[name].absolute(), start)).as_posix()
        for name in ("path", "prompt_path")
        if name in line
    }


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
    listed = sorted(folder.glob("*segments*.csv"))
    files = {
        path.stem: path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in _AUDIO_SUFFIXES
    }
    for table in listed:
        for row in _text_lines(table):
            if row.startswith("#"):
                continue
            name, start = (cell.strip() for cell in row.split(",")[:2])
            path = _first(files, name, f"Y{name}", f"{name}_{start}", f"{name}_{float(start):.0f}")
            found = path or folder / f"{name}.wav"
            yield {"path": found, "domain": "sound", "split": table.stem.split("_")[0]}


def _first(files: dict[str, Path], *names: str) -> Path | None:
    return next((files[name] for name in names if name in files), None)


def _musdb(folder: Path) -> Iterator[Line]:
    """MUSDB18-HQ: ``test/ARTIST - TITLE/mixture.wav``."""
    for path in sorted(folder.rglob("mixture.wav")):
        yield {"path": path, "domain": "music", "split": path.parents[1].name}


def _seed_tts_eval(folder: Path) -> Iterator[Line]:
    """``en/meta.lst`` and ``zh/meta.lst``: name|prompt text|prompt path|text."""
    for language in ("en", "zh"):
        table = folder / language / "meta.lst"
        for row in _text_lines(table) if table.is_file() else ():
            cells = [cell.strip() for cell in row.split("|")]
            if len(cells) < 4 or not all(cells[:4]):
                raise InputError(
                    f"{table} has {row[:80]!r}; expected name|prompt text|prompt path|text"
                )
            name, prompt_text, prompt, text = cells[:4]
            line = _speech(table.parent / "wavs" / f"{name}.wav", text, language, "")
            line |= {"prompt_path": table.parent / prompt, "prompt_text": prompt_text}
            yield line | {"split": language}


def _speech(path: Path, text: str, language: str, speaker: str) -> Line:
    line: Line = {"path": path, "domain": "speech", "language": language, "text": text}
    return line | ({"speaker": speaker} if speaker else {})


def _named_texts(path: Path) -> Iterator[tuple[str, str]]:
    """Lines of a name, white space, and the rest."""
    for line in _text_lines(path):
        name, _, text = line.replace("\t", " ", 1).partition(" ")
        yield name, text.strip()


def _text_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    return [line.strip() for line in lines if line.strip()]


DATASETS: dict[str, Callable[[Path], Iterator[Line]]] = {
    "librispeech": _librispeech,
    "aishell2": _aishell2,
    "audioset": _audioset,
    "musdb": _musdb,
    "seed-tts-eval": _seed_tts_eval,
}
"""Readers of the layouts, by the names that `moss-audio data prepare` takes."""

_LAYOUTS = {
    "librispeech": "test-clean/SPEAKER/CHAPTER/ with .flac files and a .trans.txt",
    "aishell2": "iOS/test/ with trans.txt, wav.scp and wav/",
    "audioset": "eval_segments.csv and sound files named by YouTube's identifiers",
    "musdb": "MUSDB18-HQ: test/TRACK/mixture.wav (not the .stem.mp4 files of MUSDB18)",
    "seed-tts-eval": "en/meta.lst and zh/meta.lst with prompt-wavs/",
}
