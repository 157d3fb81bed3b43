"""A toy codec in place of a model, and `moss-audio` run inside the test's process."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from moss_audio_tokenizer.cli import loading
from moss_audio_tokenizer.cli.main import app
from moss_audio_tokenizer.codes import AudioCodes, CodecInfo
from moss_audio_tokenizer.errors import CodesError

RATE, FRAME, LAYERS, BOOK = 8000, 640, 4, 16


@dataclass
class ToyCodec:
    """A frame's mean level in hexadecimal: each layer of codes is one more digit."""

    identity: str = "0123456789abcdef"
    calls: list[tuple] = field(default_factory=list)

    @property
    def info(self) -> CodecInfo:
        return CodecInfo(self.identity, RATE, 1, FRAME, LAYERS, BOOK)

    def encode(self, audio, *, num_quantizers=None, chunk_duration=None):
        layers = num_quantizers or LAYERS
        self.calls.append(("encode", layers, chunk_duration))
        frames = -(-audio.shape[1] // FRAME)
        padded = np.pad(audio[0], (0, frames * FRAME - audio.shape[1]))
        level = ((padded.reshape(frames, FRAME).mean(1) + 1) / 2 * (BOOK**LAYERS - 1)).round()
        digits = [level.astype(np.int64) // BOOK**power % BOOK for power in range(LAYERS)]
        return np.stack(digits[::-1])[:layers]

    def decode(self, codes, *, chunk_duration=None):
        self.calls.append(("decode", len(codes), chunk_duration))
        if len(codes) > LAYERS:
            raise CodesError(f"codes have {len(codes)} layers; expected at most {LAYERS}")
        powers = BOOK ** np.arange(LAYERS - 1, LAYERS - 1 - len(codes), -1)
        level = (powers @ codes) / (BOOK**LAYERS - 1) * 2 - 1
        return np.repeat(level, FRAME)[None].astype(np.float32)


@pytest.fixture
def codec(monkeypatch):
    """The toy codec that every command loads; `loads` records how it was asked for."""
    toy = ToyCodec()
    toy.loads, toy.backends = [], []

    def load(
        model,
        parts="all",
        device="cpu",
        backend=None,
        compute_dtype="fp32",
        attention=None,
        deterministic=False,
    ):
        toy.computing = {"compute_dtype": compute_dtype, "attention": attention}
        toy.loads.append((model, parts, device, deterministic))
        toy.backends.append(backend)
        return toy

    monkeypatch.setattr(loading, "load_codec", load)
    return toy


@pytest.fixture
def moss_audio(monkeypatch):
    """Run `moss-audio` with arguments; the result has exit_code, stdout and stderr."""
    monkeypatch.delenv("MOSS_AUDIO_DEBUG", raising=False)

    def invoke(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def refused(moss_audio):
    """Run `moss-audio`, which must end in one line on stderr; returns that line."""

    def invoke(*arguments, code=2):
        result = moss_audio(*arguments)
        assert result.exit_code == code, result.output
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith("moss-audio: error: ")
        return line

    return invoke


@pytest.fixture
def json_of(moss_audio):
    """Run `moss-audio ... --json`; returns the one document on stdout."""

    def invoke(*arguments, code=0):
        result = moss_audio(*arguments, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    return invoke


@pytest.fixture
def write_wav(tmp_path):
    """Write a ramp of some samples as a wav file below tmp_path."""

    def write(name="clip.wav", num_samples=1500, rate=RATE) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.linspace(-0.5, 0.5, num_samples), rate)
        return path

    return write


@pytest.fixture
def write_codes(tmp_path):
    """Write random codes of 1500 samples below tmp_path."""

    def write(name="clip.moss", layers=LAYERS, model="0123456789abcdef", rate=RATE) -> Path:
        codes = np.random.default_rng(0).integers(0, BOOK, (layers, 3))
        path = tmp_path / name
        AudioCodes(codes, rate, 1500, downsample_rate=FRAME, codebook_size=BOOK, model=model).save(
            path
        )
        return path

    return write


@pytest.fixture
def names_in():
    """Names of all files below a folder, hidden ones too: what was left behind shows up."""

    def listing(folder: Path) -> set[str]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)) for path in files}

    return listing
