"""Readers of model folders and of a stream's messages, for `hostile_files.py`.

Each entry makes a valid file, and reads a mutated one beside the other files of its folder, which
are as they should be. Where a hash would notice every change, the hash is computed again, so that
the mutation reaches what lies behind.
"""

import io
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "mono-rlfq"
BUNDLED = ROOT / "src" / "moss_audio_tokenizer" / "bundled"

Reader = tuple[Callable[[], bytes], Callable[[Path], Any], str]


def _complete(folder: Path, source: Path) -> None:
    """Bring in the files of a model that are not there; links where the disk allows them."""
    for file in source.iterdir():
        target = folder / file.name
        if target.exists() or file.suffix == ".md":
            continue
        try:
            os.link(file, target)
        except OSError:
            shutil.copyfile(file, target)


def read_checkpoint(path: Path) -> None:
    """Configuration and weights of a checkpoint."""
    from moss_audio_tokenizer.checkpoint.codec_checkpoint import Checkpoint, load_codec

    _complete(path.parent, GOLDEN)
    with Checkpoint(path.parent) as checkpoint:
        load_codec(checkpoint)


def read_export(path: Path) -> None:
    """An exported folder, as far as its description and hashes go."""
    from moss_audio_tokenizer.onnx.folder import find_folder

    _complete(path.parent, BUNDLED)
    folder = find_folder(path.parent)
    folder.graph("encoder")
    folder.check_weights()


def read_sealed_export(path: Path) -> None:
    """The same, with the hash of the description computed again."""
    from moss_audio_tokenizer.onnx.manifest import sealed

    with suppress(ValueError, TypeError, AttributeError):
        path.write_text(json.dumps(sealed(json.loads(path.read_bytes()))))
    read_export(path)


def read_graph(path: Path) -> None:
    """A graph whose hash and size are entered into the description, opened and run."""
    from moss_audio_tokenizer.onnx.folder import hash_file
    from moss_audio_tokenizer.onnx.manifest import sealed
    from moss_audio_tokenizer.onnx.tokenizer import OnnxCodec

    manifest = json.loads((BUNDLED / "onnx.json").read_bytes())
    for entry in manifest["graphs"].values():
        if entry["file"] == path.name:
            entry |= {"bytes": path.stat().st_size, "sha256": hash_file(path)}
    (path.parent / "onnx.json").write_text(json.dumps(sealed(manifest)))
    _complete(path.parent, BUNDLED)
    OnnxCodec.from_pretrained(path.parent).encode(np.zeros((1, 9600), np.float32))


def _info() -> Any:
    from moss_audio_tokenizer.codes import CodecInfo

    return CodecInfo("0123456789abcdef", 24_000, 1, 1920, 8, 1000)


def codes_message() -> bytes:
    """Three packed frames of codes."""
    from moss_audio_tokenizer.serve.wire_format import PackedFrames

    codes = np.random.default_rng(0).integers(0, 1000, (7, 3))
    return PackedFrames(_info(), 7).write(codes)


def read_codes_message(path: Path) -> None:
    """Frames of codes."""
    from moss_audio_tokenizer.serve.wire_format import PackedFrames

    PackedFrames(_info(), 7).read(path.read_bytes())


def sound_message(audio_format: str) -> bytes:
    """The first message with sound of a tone of 0.2 s."""
    from moss_audio_tokenizer.serve.wire_format import audio_writer

    writer = audio_writer(audio_format, _info(), 32_000)
    tone = np.sin(np.arange(4800, dtype=np.float32) / 9)[None] / 2
    return next(filter(None, writer.messages(tone)))


def read_sound_message(audio_format: str) -> Callable[[Path], None]:
    """A function that reads such a message."""

    def read(path: Path) -> None:
        from moss_audio_tokenizer.serve.wire_format import audio_reader

        reader = audio_reader(audio_format, _info())
        for part in reader.parts(path.read_bytes(), 1920):
            reader.read(part)
        reader.rest()

    return read


def form() -> bytes:
    """A form with a file, as curl -F sends it."""
    out = io.BytesIO()
    head = 'Content-Disposition: form-data; name="{}"{}\r\n\r\n'
    for name, rest, value in (("file", '; filename="a.wav"', bytes(range(256))), ("n", "", b"8")):
        out.write(b"--limit\r\n" + head.format(name, rest).encode() + value + b"\r\n")
    out.write(b"--limit--\r\n")
    return out.getvalue()


def read_form(path: Path) -> None:
    """The parts of a form."""
    from moss_audio_tokenizer.errors import InputError
    from moss_audio_tokenizer.serve.admission import Refused
    from moss_audio_tokenizer.serve.request_body import parse_form

    try:
        parse_form("multipart/form-data; boundary=limit", path.read_bytes())
    except Refused as error:
        raise InputError(str(error)) from error


def _file(path: Path) -> Callable[[], bytes]:
    return path.read_bytes


MODEL_READERS: dict[str, Reader] = {
    "config": (_file(GOLDEN / "config.json"), read_checkpoint, "config.json"),
    "checkpoint": (_file(GOLDEN / "model.safetensors"), read_checkpoint, "model.safetensors"),
    "onnx-json": (_file(BUNDLED / "onnx.json"), read_export, "onnx.json"),
    "onnx-json-sealed": (_file(BUNDLED / "onnx.json"), read_sealed_export, "onnx.json"),
    "graph": (_file(BUNDLED / "encoder_step.onnx"), read_graph, "encoder_step.onnx"),
    "codes-message": (codes_message, read_codes_message, "message"),
    "pcm-message": (
        lambda: sound_message("pcm_f32le"),
        read_sound_message("pcm_f32le"),
        "message",
    ),
    "opus-message": (lambda: sound_message("opus"), read_sound_message("opus"), "message"),
    "form": (form, read_form, "form"),
}
