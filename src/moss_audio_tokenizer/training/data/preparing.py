"""Preparing a data set: every recording decoded and measured, and all of them put into shards.

Owns what is done to one recording and the files of the result: ``shards/*.tar``, ``errors.jsonl``,
``summary.json`` and ``summary.md``. The summary is written last: a folder without it is incomplete.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...audio import convert_channels, encode_audio, read_audio, resample
from ...errors import AudioFileError, InputError, MossAudioError, one_line
from ...files import write_file
from ...sources.recordings import Line, find_lines
from ...sources.tar_shards import ShardWriter
from .survey import Measures, Survey, markdown, measure

FORMATS = ("flac", "opus", "copy")
SUMMARY_NAME = "summary.json"
SETTINGS_NAME = "prepare.json"
ERRORS_NAME = "errors.jsonl"
TABLE_NAME = "summary.md"


@dataclass(frozen=True)
class Preparation:
    """How to prepare a data set.

    Attributes:
        source: the manifest, or the folder of sound files.
        splits: the splits to write; empty for all.
        audio_format: "flac" (16 bits), "opus", or "copy" for the files as they are.
        sampling_rate: the sampling rate to write; 0 keeps each file's.
        channels: the number of channels to write; 0 keeps each file's.
        shard_seconds: the length of audio after which a shard is full.
        shard_megabytes: the largest size of a shard.
        drop_duplicates: whether to leave out recordings with the samples of an earlier one.
        domain: the domain of the files of a folder.

    Raises:
        InputError: a value is out of range, or two do not fit each other.
    """

    source: str
    splits: tuple[str, ...] = ()
    audio_format: str = "flac"
    sampling_rate: int = 0
    channels: int = 0
    shard_seconds: float = 3600.0
    shard_megabytes: float = 1000.0
    drop_duplicates: bool = False
    domain: str = "speech"

    def __post_init__(self) -> None:
        if self.audio_format not in FORMATS:
            raise InputError(f"got format {self.audio_format!r}; expected {', '.join(FORMATS)}")
        if self.audio_format == "copy" and (self.sampling_rate or self.channels):
            raise InputError(
                "got a sampling rate or channels for files that are copied; use another format"
            )
        if not (self.shard_seconds > 0 and self.shard_megabytes > 0):
            raise InputError(
                f"got shards of {self.shard_seconds:g} s and {self.shard_megabytes:g} MB; expected "
                "both above 0"
            )


@dataclass(frozen=True)
class _Examined:
    line: Line
    found: Measures
    extension: str
    audio: bytes
    keys: dict[str, Any]


def prepare(
    wanted: Preparation,
    output: Path,
    workers: int = 2,
    advance: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write shards of a data set, and return their summary.

    Args:
        wanted: the source, and what to make of it.
        output: the folder to write: a new or empty one, or one that the same call did not finish.
        workers: the number of threads that decode and encode.
        advance: a function that is called with the number of recordings done and of all.

    Raises:
        InputError: the source cannot be read, nothing of it can be used, or the folder holds other
            files.
        AudioFileError: the folder cannot be written.
    """
    lines, errors = find_lines(Path(wanted.source), wanted.splits, wanted.domain)
    lines, repeated = _once(lines)
    errors += repeated
    settings = {**asdict(wanted), "splits": list(wanted.splits)}
    claim_folder(output, settings, SETTINGS_NAME, SUMMARY_NAME, ["shards"])
    for path in (output / "shards").glob("*"):
        path.unlink()
    survey, writers = Survey(), dict[str, ShardWriter]()
    with ExitStack() as stack:
        for done, item in enumerate(_examined(lines, wanted, workers), 1):
            if not isinstance(item, _Examined):
                errors.append(item)
            elif not (survey.add(item.line.entry, item.found) and wanted.drop_duplicates):
                _add(item, writers, stack, output / "shards", wanted)
            if advance is not None:
                advance(done, len(lines))
    if not writers:
        raise InputError(
            f"none of the {len(errors)} recordings of {wanted.source} can be used, the first: "
            f"{errors[0]['error'] if errors else 'there is none'}"
        )
    shards = [shard for _, writer in sorted(writers.items()) for shard in writer.shards]
    summary = {**survey.facts(), "errors": len(errors), "shards": shards}
    _write_results(output, summary, errors)
    return summary


def _once(lines: Iterable[Line]) -> tuple[list[Line], list[dict[str, Any]]]:
    """The first line of every recording and text, and an error for each repetition.

    A recording may have several texts, such as captions. A repeated line is a mistake in the
    manifest: the recording would be counted, and trained on, twice.
    """
    first: dict[tuple[Path, str], Line] = {}
    repeated = []
    for line in lines:
        before = first.setdefault((line.entry.path.resolve(), line.entry.text), line)
        if before is not line:
            error = f"listed before, as {before.entry.name!r}, with the same text; left out"
            repeated.append({"path": line.entry.name, "line": None, "error": error})
    return list(first.values()), repeated


def _add(
    item: _Examined,
    writers: dict[str, ShardWriter],
    stack: ExitStack,
    folder: Path,
    wanted: Preparation,
) -> None:
    """Put a recording into its split's shards."""
    split = item.line.entry.split
    if split not in writers:
        size = round(wanted.shard_megabytes * 1e6)
        writer = ShardWriter(folder, split, wanted.shard_seconds, size)
        writers[split] = stack.enter_context(writer)
    writers[split].add(item.extension, item.audio, item.found.seconds, item.keys)


def _examined(
    lines: Iterable[Line], wanted: Preparation, workers: int
) -> Iterator[_Examined | dict[str, Any]]:
    """The result of every line, in order; threads work a few lines ahead."""
    with ThreadPoolExecutor(workers) as pool:
        ahead = deque[Future[_Examined | dict[str, Any]]]()
        for line in lines:
            ahead.append(pool.submit(_examine, line, wanted))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _examine(line: Line, wanted: Preparation) -> _Examined | dict[str, Any]:
    entry = line.entry
    try:
        samples, rate = read_audio(entry.path)
        found = measure(samples, rate)
        if wanted.channels:
            samples = convert_channels(samples, wanted.channels)
        if wanted.sampling_rate:
            samples, rate = resample(samples, rate, wanted.sampling_rate), wanted.sampling_rate
        if wanted.audio_format == "copy":
            extension, audio = entry.path.suffix.lower(), entry.path.read_bytes()
        else:
            extension = f".{wanted.audio_format}"
            audio = encode_audio(samples, rate, extension)
    except (MossAudioError, OSError) as error:
        return {"path": entry.name, "line": None, "error": one_line(error)}
    keys = {
        **line.keys,
        "domain": entry.domain,
        "split": entry.split,
        "seconds": round(found.seconds, 6),
        "sample_rate": rate,
        "channels": len(samples),
    }
    return _Examined(line, found, extension, audio, keys)


def _write_results(output: Path, summary: dict[str, Any], errors: list[dict[str, Any]]) -> None:
    lines = "".join(json.dumps(error, ensure_ascii=False) + "\n" for error in errors)
    write_file(output / ERRORS_NAME, lines, AudioFileError)
    write_file(output / TABLE_NAME, markdown(summary), AudioFileError)
    write_file(output / SUMMARY_NAME, _as_json(summary), AudioFileError)


def _as_json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def claim_folder(
    output: Path, settings: dict[str, Any], name: str, last: str, folders: Iterable[str]
) -> None:
    """Make a folder, or take over one that the same call left unfinished; refuse any other.

    Args:
        output: the folder.
        settings: what the call is to do, as plain values.
        name: the name of the file of settings, which tells calls apart.
        last: the name of the file that is written last: a folder with it is complete.
        folders: folders to make inside.

    Raises:
        InputError: the folder holds other files.
        AudioFileError: the folder cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in output.iterdir()}
        if names and (last in names or _settings(output / name) != settings):
            raise InputError(
                f"{str(output)!r} holds other files; name a folder that is empty or not there"
            )
        write_file(output / name, _as_json(settings), AudioFileError)
        for folder in folders:
            (output / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if isinstance(error, MossAudioError):
            raise
        raise AudioFileError(f"cannot write in {str(output)!r}: {error.strerror}") from error


def _settings(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
