"""A repository with remote code: made from the reference, loaded without this package."""

import json
import os
import subprocess
import sys
import sysconfig

import pytest
import torch
from safetensors.torch import load_file, save_file

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

def refuses(call, message):
    try:
        call()
    except ValueError as error:
        assert message in str(error)
    else:
        raise AssertionError("not refused")

def use(repository):
    model = AutoModel.from_pretrained(repository, trust_remote_code=True)
    given = load_file(repository + ".given.safetensors")
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
    extractor = AutoFeatureExtractor.from_pretrained(repository, trust_remote_code=True)
    inputs = extractor([clip.numpy() for clip in clips], return_tensors="pt")
    assert torch.equal(model.encode(**inputs).audio_codes, codes)
    one = clips[0].numpy()
    refuses(lambda: extractor(one, sampling_rate=1), "but the model takes 800")
    for wrong in (torch.zeros(1, 3, 8), torch.zeros(1, 1, 8, dtype=torch.int64)):
        refuses(lambda: model.encode(wrong), "expected floats")
    for options in ({"dtype": torch.bfloat16}, {"torch_dtype": "float16"}):
        refuses(lambda: type(model).from_pretrained(repository, **options), "float32")
    got = {"codes": codes, "frames": frames, "audio": decoded.audio}
    save_file(got, repository + ".got.safetensors")

for repository in sys.argv[2:]:
    use(repository)
"""


def make_repository(model, folder, layout):
    """Write a repository, and beside it clips for its model, which are returned with their mask."""
    model.save_pretrained(folder, layout=layout)
    remote_code.add_remote_code(folder)
    random = torch.Generator().manual_seed(0)
    audio = 0.3 * torch.randn(2, model.config.number_channels, 300, generator=random)
    mask = torch.arange(300) < torch.tensor([[300], [171]])
    save_file({"audio": audio, "mask": mask}, f"{folder}.given.safetensors")
    return audio, mask


def test_repositories_work_without_this_package(make_model, tmp_path):
    """Of both layouts, in one process: PyTorch and transformers are imported once."""
    models = {
        layout: make_model(channels, windows=(0.05, 0.05))
        for layout, channels in (("v1", 1), ("v2", 2))
    }
    given = {
        layout: make_repository(model, tmp_path / layout, layout)
        for layout, model in models.items()
    }
    folders = [str(tmp_path / layout) for layout in models]
    own = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    libraries = sysconfig.get_paths()["purelib"]
    command = [sys.executable, "-I", "-S", "-c", _ELSEWHERE, libraries, *folders]
    subprocess.run(command, check=True, env=os.environ | own)
    for layout, model in models.items():
        got = load_file(tmp_path / f"{layout}.got.safetensors")
        expected = model.encode(*given[layout])
        assert torch.equal(got["frames"], expected.audio_codes_lengths)
        assert torch.equal(got["codes"], expected.audio_codes)
        frames = got["frames"].tolist()
        rows = [expected.audio_codes[:, row, :count] for row, count in enumerate(frames)]
        decoded = model.batch_decode(rows)
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
