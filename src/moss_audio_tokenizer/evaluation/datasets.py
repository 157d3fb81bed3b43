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
from ..files import atomic_path
from ..manifest import ManifestEntry, manifest_lines, read_manifest
from .text_normalization import text_lines

_SEED_TTS_ROW = "name|prompt text|prompt path|text"
_AUDIO_SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3", ".m4a")

Line = dict[str, Any]
Pairs = list[tuple["SpeechItem", ManifestEntry | None]]


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
        for row in text_lines(table, "a table of segments"):
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


@dataclass(frozen=True)
class SpeechItem:
    """A text to synthesize, and the recording that prompts the voice.

    Attributes:
        name: name of the item, unique among the items.
        text: text to synthesize.
        prompt: path of the recording, or None.
        prompt_name: path of the recording as the list has it.
        prompt_text: transcript of the recording.
        language: language of the text, such as "en" or "zh"; "" where that is not known.
    """

    name: str
    text: str
    prompt: Path | None = None
    prompt_name: str = ""
    prompt_text: str = ""
    language: str = ""


def read_test_items(
    path: Path, prompts: Path | None = None, split: str | None = None, limit: int | None = None
) -> list[SpeechItem]:
    """The items of a file.

    Args:
        path: by its extension: ``.jsonl``, a manifest of texts (a line may name its
            own ``prompt_path`` and ``prompt_text``); ``.lst``, Seed-TTS-Eval's
            ``name|prompt text|prompt path|text``; any other, a text per line.
        prompts: a manifest of recordings with texts: a text of a known speaker gets another
            recording of that speaker, any other one the next in turn.
        split: split of both manifests; None is all.
        limit: how many items from the first; None is all.

    Raises:
        InputError: a file cannot be read, has no texts, or has prompts without text.
    """
    readers = {".jsonl": _of_manifest, ".lst": _of_list}
    pairs = readers.get(path.suffix, _of_lines)(path, split)[:limit]
    items = [item for item, _ in pairs]
    if not items:
        raise InputError(f"{str(path)!r} has no texts; expected at least one")
    _check_names(items, path)
    if prompts is None:
        return items
    clips = [clip for clip in read_manifest(prompts, split, "speech") if clip.text]
    if not clips:
        raise InputError(f"{str(prompts)!r} has no speech with a text; prompts need what they say")
    return [
        item if item.prompt else _prompted(item, _chosen(index, entry, clips))
        for index, (item, entry) in enumerate(pairs)
    ]


def _check_names(items: Sequence[SpeechItem], path: Path) -> None:
    names = [item.name for item in items]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{str(path)!r} has {twice!r} twice; expected each once")


def _chosen(
    index: int, entry: ManifestEntry | None, clips: Sequence[ManifestEntry]
) -> ManifestEntry:
    others = [
        clip
        for clip in clips
        if entry and entry.speaker and clip.speaker == entry.speaker and clip.path != entry.path
    ]
    return (others or clips)[index % len(others or clips)]


def _prompted(item: SpeechItem, clip: ManifestEntry) -> SpeechItem:
    return replace(item, prompt=clip.path, prompt_name=clip.name, prompt_text=clip.text)


def _of_manifest(path: Path, split: str | None) -> Pairs:
    pairs = Pairs()
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
        pairs.append(
            (SpeechItem(entry.name, entry.text, prompt, name, text, entry.language), entry)
        )
    return pairs


def _of_list(path: Path, split: str | None) -> Pairs:
    del split  # the format has none
    folder, pairs = path.parent.absolute(), Pairs()
    for name, prompt_text, prompt, text in _seed_tts_rows(path):
        # The set does not name its two languages: a text with a Han character is Chinese.
        language = "zh" if any("\u4e00" <= letter <= "\u9fff" for letter in text) else "en"
        item = SpeechItem(name, text, folder / prompt, prompt, prompt_text, language)
        pairs.append((item, None))
    return pairs


def _of_lines(path: Path, split: str | None) -> Pairs:
    del split
    lines = text_lines(path, "a text a line, or a .jsonl manifest")
    return [(SpeechItem(f"text {number}", line), None) for number, line in enumerate(lines, 1)]
