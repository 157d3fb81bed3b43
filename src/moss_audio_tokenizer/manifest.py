"""Manifests of recordings: JSON lines, one clip each, paths relative to the manifest.

Owns what a line may say (docs/tokenizing.md describes it); knows nothing of sound.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import MALFORMED, InputError

# Splits become the names of files.
_SPLIT = re.compile(r"\w[\w.+ -]{0,63}")

# What a transcript is to its recording: the words of one speaker, of several, or a description.
# Larger numbers are not names of speakers, and may take minutes to print.
_MAX_NUMBER = 1e18
TASKS = ("asr", "ms_asr", "caption")


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One line of a manifest.

    Attributes:
        path: absolute path of the recording.
        domain: "speech", "sound", "music", ...
        split: "train", "valid", ...
        name: the path as the manifest has it, to print.
        speaker: name of the speaker; empty where it is not known.
        text: transcript or description; empty where it is not known.
        task: kind of the text, one of TASKS; empty without a text.
        language: empty where it is not known.
        seconds: length as the manifest has it; 0 where it does not say.
        member: (first byte, bytes) of the recording inside ``path``, for a recording that lies
            in an archive; None when the file is the recording.
        row: row of the recording in ``path``, for a recording that lies in a table.
    """

    path: Path
    domain: str = "speech"
    split: str = "train"
    name: str = ""
    speaker: str = ""
    text: str = ""
    task: str = ""
    language: str = ""
    seconds: float = 0.0
    member: tuple[int, int] | None = None
    row: int | None = None

    @property
    def location(self) -> str:
        """Where the recording is, to tell people."""
        if self.row is not None:
            return str(self.path / str(self.row))
        return str(self.path if self.member is None else self.path.parent / self.name)

    def explain(self, error: Exception) -> str:
        """A line that says what is wrong with the recording, and which it is."""
        where = self.location
        return str(error) if where in str(error) else f"{where!r}: {error}"


def read_manifest(
    path: str | Path, split: str | None = None, domain: str | None = None
) -> list[ManifestEntry]:
    """Read a JSON-lines manifest, keeping one split and one domain (default: all).

    Raises:
        InputError: the file is missing, empty or not text, a line is not a JSON object with a
            path, or nothing is left.
    """
    entries = _all_entries(path)
    kept = [
        entry
        for entry in entries
        if split in (None, entry.split) and domain in (None, entry.domain)
    ]
    if not kept:
        found = sorted({f"{entry.split}/{entry.domain}" for entry in entries})
        raise InputError(
            f"{path} has no entries of split {split!r} and domain {domain!r}; "
            f"it has {', '.join(found)}"
        )
    return kept


def _all_entries(path: str | Path) -> list[ManifestEntry]:
    entries = []
    for _, found in manifest_lines(path):
        if isinstance(found, InputError):
            raise found
        entries.append(found[0])
    return entries


def manifest_lines(
    path: str | Path,
) -> Iterator[tuple[int, tuple[ManifestEntry, dict[str, Any]] | InputError]]:
    """Every line's number, and what it says (parsed and as it stands) or what is wrong with it.

    Raises:
        InputError: the file is missing, empty or not text.
    """
    manifest = Path(path)
    if not str(path) or not manifest.is_file():
        raise InputError(
            f"no manifest at {str(path)!r}; expected JSON lines (a recipe: set data.manifest=PATH)"
        )
    try:
        text = manifest.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{manifest} cannot be read as text ({error}); expected JSON lines in UTF-8"
        ) from error
    if not text.strip():
        raise InputError(f"{manifest} is empty; expected one JSON object a line, with a 'path'")
    # Not splitlines(): JSON strings may hold line separators of Unicode.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _parsed(line, manifest, number)


def _parsed(
    line: str, manifest: Path, number: int
) -> tuple[ManifestEntry, dict[str, Any]] | InputError:
    where = f"{manifest} line {number}"
    try:
        item = json.loads(line)
    except (ValueError, RecursionError) as error:
        return InputError(f"{where} is not JSON ({error}); expected one object a line")
    try:
        return make_entry(item, manifest.parent.absolute(), where), item
    except InputError as error:
        return error


def make_entry(item: Any, folder: Path, where: str) -> ManifestEntry:
    """What a line says, as an entry.

    Args:
        item: the line's JSON value.
        folder: the folder that its path is relative to.
        where: what to call the line in an error.

    Raises:
        InputError: it is not an object, has no path, or a key has a value of another kind.
    """
    if not isinstance(item, dict):
        raise InputError(f"{where} holds {type(item).__name__}; expected an object")
    if item.get("path") is None and item.get("audio_filepath") is not None:  # as NeMo writes it
        item = item | {"path": item["audio_filepath"]}
    name = _text(item, "path", where)
    text = _text(item, "text", where, "", numbers=True)
    return ManifestEntry(
        path=folder / name,
        domain=_text(item, "domain", where, "speech") or "speech",
        split=_split(item, where),
        name=name,
        speaker=_text(item, "speaker", where, "", numbers=True),
        text=text,
        task=_task(item, where) if text else "",
        language=_text(item, "language", where, "", numbers=True),
        seconds=_seconds(item, where),
    )


def _split(item: dict[str, Any], where: str) -> str:
    split = _text(item, "split", where, "train") or "train"
    if not _SPLIT.fullmatch(split):
        raise InputError(
            f"{where} has 'split' = {split[:80]!r}; expected a short name, such as train"
        )
    return split


def _text(
    item: dict[str, Any], key: str, where: str, default: str | None = None, numbers: bool = False
) -> str:
    """Text, or the default where there is none or null; without a default it may not be empty.

    Args:
        item: the line's JSON value.
        key: the key of the text.
        where: what to call the line in an error.
        default: the value where there is none; None where there must be one.
        numbers: whether a number is taken as its text: speakers are often numbered.

    Raises:
        InputError: it is not text.
    """
    value = item.get(key)
    if value is None:
        value = default
    if numbers and isinstance(value, int | float) and not isinstance(value, bool):
        value = repr(value) if abs(value) < _MAX_NUMBER else None
    if not isinstance(value, str) or (default is None and not value):
        raise InputError(f"{where} has {key!r} = {value!r}; expected text")
    if not _can_be_encoded(value):
        raise InputError(f"{where} has {key!r} = {value!a}; expected text without lone surrogates")
    if default is None and "\0" in value:
        raise InputError(
            f"{where} has {key!r} = {value!a}; expected a path without null characters"
        )
    return value


def _can_be_encoded(text: str) -> bool:
    """JSON can hold a lone surrogate, which cannot be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _task(item: dict[str, Any], where: str) -> str:
    task = _text(item, "task", where, TASKS[0])
    if task not in TASKS:
        raise InputError(f"{where} has 'task' = {task!r}; expected one of {', '.join(TASKS)}")
    return task


def _seconds(item: dict[str, Any], where: str) -> float:
    seconds = item.get("seconds", item.get("duration"))
    if seconds is None:
        return 0.0
    try:
        usable = math.nan if isinstance(seconds, bool) else float(seconds)
    except MALFORMED:
        usable = math.nan
    if not 0 <= usable < math.inf:
        shown = f"{str(seconds)[:40]!r}" if isinstance(seconds, str) else f"{seconds!r:.40}"
        raise InputError(f"{where} has 'seconds' = {shown}; expected a number of at least 0")
    return usable
