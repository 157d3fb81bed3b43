"""What workers open: either runtime behind one protocol, and neither PyTorch nor pyarrow for it."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from moss_audio_tokenizer.audio import load_audio
from moss_audio_tokenizer.bulk import CodecChoice
from moss_audio_tokenizer.codes import Codec
from moss_audio_tokenizer.errors import ConfigError, MissingDependencyError

SAMPLES = Path(__file__).parents[2] / "samples"

# Workers import the file too, so that what is hidden here is hidden there.
BASE_INSTALL = """
import sys
for name in ("torch", "transformers", "pyarrow", "huggingface_hub"):
    sys.modules[name] = None
from moss_audio_tokenizer.bulk import Tokenizing, detokenize, tokenize
if __name__ == "__main__":
    source, output, shard_format = sys.argv[1:]
    tokenize(Tokenizing(source, shard_format=shard_format), f"{output}/codes", workers=1)
    detokenize(f"{output}/codes", f"{output}/sound", workers=1)
"""


def test_runtimes_are_interchangeable():
    audio = load_audio(SAMPLES / "hello.flac", 24_000, 1)
    found = {}
    for backend in ("onnx", "torch"):
        codec = CodecChoice(backend=backend).open("encoder")
        assert isinstance(codec, Codec)
        found[backend] = (codec.info, codec.encode(audio), codec.encode_batch([audio, audio])[1])
    assert found["onnx"][0] == found["torch"][0]
    assert all(map(np.array_equal, found["onnx"][1:], found["torch"][1:]))


@pytest.mark.parametrize("shard_format", ["webdataset", "moss"])
def test_the_base_install_tokenizes_with_the_bundled_model(tmp_path, shard_format):
    program = tmp_path / "program.py"
    program.write_text(BASE_INSTALL)
    (tmp_path / "in").mkdir()
    shutil.copy(SAMPLES / "hello.flac", tmp_path / "in")
    command = [sys.executable, program, tmp_path / "in", tmp_path, shard_format]
    subprocess.run(command, check=True)
    (sound,) = (tmp_path / "sound" / "audio" / "train-000000").iterdir()
    original = load_audio(SAMPLES / "hello.flac", 24_000, 1)
    assert load_audio(sound).shape == original.shape


def test_parquet_without_pyarrow_is_refused_before_any_work(manifest, tmp_path, monkeypatch):
    from moss_audio_tokenizer.bulk import Tokenizing, tokenize

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match="or choose webdataset or moss"):
        tokenize(Tokenizing(str(manifest)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_torch_the_way_out_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "moss_audio_tokenizer.hf.torch_codec", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"moss-audio export onnx.*\[torch\]"):
        CodecChoice("someone/model").open("encoder")


def test_what_runs_is_part_of_the_choice():
    assert CodecChoice().runs_on == "onnx"
    assert CodecChoice(backend="torch").runs_on == "torch"
    assert CodecChoice(dtype="bf16").runs_on == "torch"
    assert CodecChoice(device="cuda").runs_on == "torch"
    assert CodecChoice().revision() == CodecChoice(backend="torch").revision()
    with pytest.raises(ConfigError, match="expected onnx or torch"):
        CodecChoice(backend="jax")
    with pytest.raises(ConfigError, match="take backend torch"):
        CodecChoice(backend="onnx", dtype="bf16")
