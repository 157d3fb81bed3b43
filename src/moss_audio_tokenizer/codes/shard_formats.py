"""A shard of codes: what its clips are, and its three formats.

Owns `CodedClip`, what all clips of a shard share, and how a shard is written and read as Parquet,
as a tar of .moss files each beside a JSON file (WebDataset), and as a folder of them. A row of
Parquet is a clip, its codes lists of lists, the first axis that of the codebooks; a dictionary of
the codebook's entries makes a code take as many bits as in .moss; pages have checksums. pyarrow
(the extra ``bulk``) is imported when a shard is written or read.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MALFORMED, CodesError, CodesFileError, MissingDependencyError, one_line
from .codec import CodecInfo
from .container import AudioCodes

# Of every array of codes, inside shards and out.
AXIS_ORDER = ("num_quantizers", "frames")
METADATA_KEY = b"moss_audio_codes"
_FORMAT = 1
# Clips that are read at once.
_CLIPS_A_BLOCK = 256
_SIZES = ("num_samples", "num_frames")
TEXT_KEYS = ("name", "text", "task", "speaker", "language", "domain", "split", "extra")


@dataclass(frozen=True)
class CodedClip:
    """A clip.

    Attributes:
        codes: with rates, number of samples and identity of the model.
        name: what its data set calls it: a path, or a place in an archive.
        text: transcript or caption; empty where that is not known.
        task: what the text is: "asr", "ms_asr", "caption"; empty without a text.
        speaker: whose voice it is; empty where that is not known.
        language: empty where it is not known.
        domain: "speech", "sound", "music", ...
        split: "train", "valid", ...
        extra: whatever else its manifest had, as a JSON object; empty where that is nothing.
    """

    codes: AudioCodes
    name: str
    text: str = ""
    task: str = ""
    speaker: str = ""
    language: str = ""
    domain: str = "speech"
    split: str = "train"
    extra: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """Everything but the codes, as plain values."""
        sizes = {"num_samples": self.codes.num_samples, "num_frames": self.codes.num_frames}
        return {key: getattr(self, key) for key in TEXT_KEYS} | sizes


# The largest number that a shard's head may hold.
_MAX_NUMBER = 2**31 - 1


def head_values(head: CodecInfo) -> dict[str, Any]:
    """What all clips of a shard share, as plain values, with the order of axes.

    Its num_quantizers are the layers in the shard, which may be fewer than the model has.
    """
    rates = asdict(head)
    return {"model": rates.pop("identity")} | rates | {"axis_order": list(AXIS_ORDER)}


def read_head(values: Any, where: str) -> CodecInfo:
    """The inverse of `head_values`.

    Raises:
        CodesFileError: they are those of another format.
    """
    try:
        found = dict(values)
        if tuple(found.pop("axis_order")) != AXIS_ORDER:
            raise ValueError(f"its axes are not {', '.join(AXIS_ORDER)}")
        model = found.pop("model", None)
        if not isinstance(model, str):
            raise ValueError("model is not a text")
        for name, value in found.items():
            if type(value) is not int or not 0 < value <= _MAX_NUMBER:
                raise ValueError(f"{name} is not a number from 1 to {_MAX_NUMBER}")
        return CodecInfo(identity=model, **found)
    except (TypeError, ValueError, KeyError) as error:
        raise CodesFileError(f"{where} does not describe codes ({one_line(error)})") from error


def write_tar(path: Path, head: CodecInfo, clips: Sequence[CodedClip]) -> None:
    """Write a shard as a tar; the same bytes for the same clips."""
    with (
        path.open("wb") as file,
        tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, data in _files(head, clips):
            member = tarfile.TarInfo(name)  # of no time and no owner
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))


def write_folder(path: Path, head: CodecInfo, clips: Sequence[CodedClip]) -> None:
    """Write a shard as a folder, which must not be there yet."""
    path.mkdir()
    for name, data in _files(head, clips):
        (path / name).write_bytes(data)


def _files(head: CodecInfo, clips: Sequence[CodedClip]) -> Iterator[tuple[str, bytes]]:
    for number, clip in enumerate(clips):
        said = json.dumps(
            clip.facts | {"head": head_values(head)}, ensure_ascii=False, sort_keys=True
        )
        yield f"{number:08d}.json", said.encode()
        yield f"{number:08d}.moss", clip.codes.to_bytes()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except CodesFileError:
        raise
    except (tarfile.TarError, *MALFORMED) as error:
        kind = "holds no valid codes" if isinstance(error, CodesError) else "cannot be read"
        raise CodesFileError(
            f"{str(path)!r} {kind} ({one_line(error)}); get a whole copy, or tokenize it again"
        ) from error


class PackedShard:
    """A tar or a folder to read from.

    Args:
        path: of the tar or folder.

    Raises:
        CodesFileError: it is damaged, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, tuple[int, int]] | None = None

    def facts(self) -> list[dict[str, Any]]:
        """Everything but the codes of all clips; no codes are read."""
        return [self._said(number) for number in range(len(self._places()) // 2)]

    def blocks(self) -> list[int]:
        """The number of clips of every block, the unit that is read at once."""
        count = len(self._places()) // 2
        return [min(_CLIPS_A_BLOCK, count - i) for i in range(0, count, _CLIPS_A_BLOCK)]

    def read(self, block: int) -> list[CodedClip | CodesFileError]:
        """The clips of a block, and of those that are damaged what is wrong with them."""
        first = block * _CLIPS_A_BLOCK
        stop = min(first + _CLIPS_A_BLOCK, len(self._places()) // 2)
        return [self._attempt(number) for number in range(first, stop)]

    def _attempt(self, number: int) -> CodedClip | CodesFileError:
        try:
            return self._clip(number)
        except CodesFileError as error:
            return error

    def _clip(self, number: int) -> CodedClip:
        name = f"{number:08d}.moss"
        codes = AudioCodes.from_bytes(self._bytes(name), f"'{self.path}/{name}'")
        said = {key: self._said(number)[key] for key in TEXT_KEYS}
        return CodedClip(codes, **said)

    def _said(self, number: int) -> dict[str, Any]:
        with _explained(self.path):
            said = json.loads(self._bytes(f"{number:08d}.json"))
            read_head(said.pop("head"), f"'{self.path}/{number:08d}.json'")
            return {key: said[key] for key in (*TEXT_KEYS, *_SIZES)}

    def _bytes(self, name: str) -> bytes:
        with _explained(self.path):
            if self.path.is_dir():
                return (self.path / name).read_bytes()
            first, size = self._places()[name]
            with self.path.open("rb") as file:
                file.seek(first)
                return file.read(size)

    def _places(self) -> dict[str, tuple[int, int]]:
        """First byte and size of every file of the tar; for a folder, its names."""
        if self._found is None:
            with _explained(self.path):
                if self.path.is_dir():
                    names = (path.name for path in self.path.iterdir())
                    self._found = dict.fromkeys(sorted(names), (0, 0))
                else:
                    with tarfile.open(self.path, "r:") as archive:
                        members = archive.getmembers()
                    self._found = {item.name: (item.offset_data, item.size) for item in members}
        return self._found


def write_parquet(path: Path, head: CodecInfo, clips: Sequence[CodedClip]) -> None:
    """Write a shard; the same bytes for the same clips."""
    arrow, parquet = parquet_libraries()
    facts = [clip.facts for clip in clips]
    columns = {key: arrow.array([fact[key] for fact in facts], arrow.string()) for key in TEXT_KEYS}
    columns |= {key: arrow.array([fact[key] for fact in facts], arrow.int64()) for key in _SIZES}
    columns["codes"] = _nested(arrow, [clip.codes.codes for clip in clips], head.num_quantizers)
    described = json.dumps({"format": _FORMAT, **head_values(head)}, sort_keys=True)
    table = arrow.table(columns).replace_schema_metadata({METADATA_KEY: described.encode()})
    parquet.write_table(
        table,
        path,
        row_group_size=_CLIPS_A_BLOCK,
        compression="zstd",
        write_page_checksum=True,
    )


def _nested(arrow: Any, codes: Sequence[np.ndarray], num_quantizers: int) -> Any:
    """(num_quantizers, frames) of every clip as one array of lists of lists."""
    frames = np.array([array.shape[1] for array in codes], np.int64)
    values = np.concatenate([array.astype(np.uint16).reshape(-1) for array in codes] or [_none()])
    inner = np.concatenate([[0], np.cumsum(np.repeat(frames, num_quantizers))]).astype(np.int32)
    outer = np.arange(len(codes) + 1, dtype=np.int32) * num_quantizers
    layers = arrow.ListArray.from_arrays(arrow.array(inner), arrow.array(values))
    return arrow.ListArray.from_arrays(arrow.array(outer), layers)


def _none() -> np.ndarray:
    return np.zeros(0, np.uint16)


class ParquetShard:
    """A shard to read from; the file is opened again for every call.

    Args:
        path: of the file.

    Raises:
        CodesFileError: it is damaged, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def facts(self) -> list[dict[str, Any]]:
        """Everything but the codes of all clips; no codes are read."""
        with self._opened() as file:
            return file.read(columns=[*TEXT_KEYS, *_SIZES]).to_pylist()

    def blocks(self) -> list[int]:
        """The number of clips of every block, the unit that is read at once."""
        with self._opened() as file:
            groups = range(file.num_row_groups)
            return [file.metadata.row_group(group).num_rows for group in groups]

    def read(self, block: int) -> list[CodedClip]:
        """The clips of a block."""
        with self._opened() as file:
            head = read_head(self._description(file), repr(str(self.path)))
            table = file.read_row_group(block, columns=[*TEXT_KEYS, *_SIZES, "codes"])
            texts = table.select([*TEXT_KEYS, "num_samples"]).to_pylist()
            arrays = _arrays(table.column("codes").combine_chunks(), head.num_quantizers)
            clips = []
            for codes, said in zip(arrays, texts, strict=True):
                num_samples = said.pop("num_samples")
                clips.append(CodedClip(AudioCodes.of_codec(head, codes, num_samples), **said))
            return clips

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        _, parquet = parquet_libraries()
        with (
            _explained(self.path),
            parquet.ParquetFile(self.path, page_checksum_verification=True) as file,
        ):
            yield file

    def _description(self, file: Any) -> dict[str, Any]:
        values = json.loads((file.schema_arrow.metadata or {}).get(METADATA_KEY, b"{}"))
        if values.pop("format", None) != _FORMAT:
            raise ValueError(f"it is no shard of codes of format {_FORMAT}")
        return dict(values)


def _arrays(column: Any, num_quantizers: int) -> Iterator[np.ndarray]:
    """The rows of a column of codes; their order and lengths are the container's to check."""
    if hasattr(column, "chunks"):  # combined from nothing
        column = column.chunk(0)
    outer = column.offsets.to_numpy()
    inner, values = column.values.offsets.to_numpy(), column.values.values.to_numpy()
    for first, stop in pairwise(outer):
        lengths = np.diff(inner[first : stop + 1])
        if len(lengths) != num_quantizers or len(set(lengths.tolist())) != 1:
            raise ValueError(f"a clip has layers of {lengths.tolist()} frames")
        yield values[inner[first] : inner[stop]].reshape(num_quantizers, -1)


def parquet_libraries(
    purpose: str = "shards in Parquet need", instead: str = ", or choose webdataset or moss"
) -> tuple[Any, Any]:
    """Pyarrow and pyarrow.parquet.

    Args:
        purpose: what needs them, the verb included, for the message.
        instead: what to do without them, for the message.

    Raises:
        MissingDependencyError: they are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{purpose} pyarrow, which is not installed; "
            f"pip install 'moss-audio-tokenizer[bulk]'{instead}"
        ) from error
    return pyarrow, pyarrow.parquet
