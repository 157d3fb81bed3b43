"""A repository with remote code: made from the reference, loaded without this package."""

import json
import os
import subprocess
import sys
import sysconfig

import pytest
import torch

from moss_audio_tokenizer.errors import MossAudioError
from moss_audio_tokenizer.export import remote_code

# What a user runs who has PyTorch and transformers alone. The interpreter is started with -I -S, so
# that an editable installation of this package is out of sight; the folder of libraries is not.
_ELSEWHERE = """
import importlib.util, sys
sys.path.append(sys.argv[1])
assert importlib.util.find_spec("moss_audio_tokenizer") is None
sys.modules["jaxtyping"] = None
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoFeatureExtractor, AutoModel
model = AutoModel.from_pretrained(sys.argv[2], trust_remote_code=True)
given = load_file(sys.argv[3])
encoded = model.encode(given["audio"], given["mask"])
codes, frames = model.encode(given["audio"], given["mask"], return_dict=False)
assert torch.equal(codes, encoded.audio_codes)
decoded = model.decode(codes, torch.arange(codes.shape[-1]) < frames[:, None])
called = model(given["audio"], given["mask"], return_dict=False)
assert torch.equal(called[0], codes) and torch.equal(called[1], decoded.audio)
few = model.decode(codes, num_quantizers=1, return_dict=False)
assert len(few) == 1
clips = [row[:, :n] for row, n in zip(given["audio"], given["mask"].sum(-1), strict=True)]
listed = model.batch_encode(clips)
assert torch.equal(listed.audio_codes, codes)
rows = [codes[:, row, :n] for row, n in enumerate(frames.tolist())]
assert torch.equal(model.batch_decode(rows).audio, decoded.audio)
extractor = AutoFeatureExtractor.from_pretrained(sys.argv[2], trust_remote_code=True)
inputs = extractor([clip.numpy() for clip in clips], return_tensors="pt")
assert torch.equal(model.encode(**inputs).audio_codes, codes)
try:
    extractor(clips[0].numpy(), sampling_rate=1)
except ValueError as error:
    assert "but the model takes 800" in str(error)
else:
    raise AssertionError("not refused")
for wrong in (torch.zeros(1, 3, 8), torch.zeros(1, 1, 8, dtype=torch.int64)):
    try:
        model.encode(wrong)
    except ValueError as error:
        assert "expected floats" in str(error)
    else:
        raise AssertionError("not refused")
for options in ({"dtype": torch.bfloat16}, {"torch_dtype": "float16"}):
    try:
        type(model).from_pretrained(sys.argv[2], **options)
    except ValueError as error:
        assert "float32" in str(error)
    else:
        raise AssertionError("not refused")
save_file({"codes": codes, "frames": frames, "audio": decoded.audio}, sys.argv[4])
"""


@pytest.mark.parametrize(("layout", "channels"), [("v1", 1), ("v2", 2)])
def test_the_repository_works_without_this_package(make_model, tmp_path, layout, channels):
    from safetensors.torch import load_file, save_file

    model = make_model(channels, windows=(0.05, 0.05))
    folder = tmp_path / "repository"
    model.save_pretrained(folder, layout=layout)
    remote_code.add_remote_code(folder)
    audio = 0.3 * torch.randn(2, channels, 300, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(300) < torch.tensor([[300], [171]])
    save_file({"audio": audio, "mask": mask}, tmp_path / "given.safetensors")
    libraries = sysconfig.get_paths()["purelib"]
    arguments = [libraries, folder, tmp_path / "given.safetensors", tmp_path / "got.safetensors"]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    subprocess.run(
        [sys.executable, "-I", "-S", "-c", _ELSEWHERE, *map(str, arguments)],
        check=True,
        env=environment | {"HF_HUB_OFFLINE": "1"},
    )
    got = load_file(tmp_path / "got.safetensors")
    expected = model.encode(audio, mask)
    assert torch.equal(got["frames"], expected.audio_codes_lengths)
    assert torch.equal(got["codes"], expected.audio_codes)
    decoded = model.batch_decode(
        [expected.audio_codes[:, row, :frames] for row, frames in enumerate(got["frames"].tolist())]
    )
    torch.testing.assert_close(got["audio"], decoded.audio, atol=1e-4, rtol=0)


def test_the_repository_has_a_map_a_card_and_no_trace_of_the_package(make_model, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    remote_code.add_remote_code(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for target in config["auto_map"].values():
        module, _, name = target.partition(".")
        assert f"class {name}(" in (tmp_path / f"{module}.py").read_text()
    for path in tmp_path.glob("*.py"):
        assert "from .." not in path.read_text()
        assert "import jaxtyping" not in path.read_text()
        compile(path.read_text(), path, "exec")
    assert "0.8 kHz, 1 channel(s), 100 frames" in (tmp_path / "README.md").read_text()


def test_names_that_would_overwrite_each_other_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(remote_code, "PACKAGE", tmp_path)
    (tmp_path / "a.py").write_text("def public():\n    return _private()\n\n_private = int\n")
    (tmp_path / "b.py").write_text("_private = str\n\ndef public():\n    return _private()\n")
    with pytest.raises(MossAudioError, match=r"public is defined in a\.py and in b\.py"):
        remote_code.joined_sources(["a.py", "b.py"])
    joined = remote_code.joined_sources(["a.py"])
    assert "_a__private = int" in joined
