"""Flash attention is a preference: where it cannot run, SDPA does, and says so once."""

import json
import warnings

import pytest
import torch

from moss_audio_tokenizer import MossAudioTokenizerModel
from moss_audio_tokenizer.model import attention
from moss_audio_tokenizer.model.attention import usable_backend

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def folder(make_model, tmp_path):
    """A model whose config.json prefers what this machine does not have."""
    make_model().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    preferred = {"attention_implementation": "flash_attention_2", "compute_dtype": "bf16"}
    path.write_text(json.dumps(values | preferred))
    return tmp_path


def use(model):
    audio = torch.linspace(-0.5, 0.5, 160)
    codes = model.encode(audio).audio_codes
    batch = model.batch_encode([audio, audio]).audio_codes
    return codes, batch, model.decode(codes).audio


def test_falls_back_with_one_warning(folder):
    model = MossAudioTokenizerModel.from_pretrained(folder)
    with pytest.warns(UserWarning, match="needs a CUDA GPU") as caught:
        found = use(model)
    assert len(caught) == 1
    assert model.config.attention_implementation == "flash_attention_2"
    model.set_attention_implementation("sdpa")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = use(model)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_what_flash_attention_needs(monkeypatch):
    assert usable_backend("flash_attention_2", CPU, torch.bfloat16)[0] == "sdpa"
    name, reason = usable_backend("flash_attention_2", GPU, torch.float32)
    assert (name, "set_compute_dtype" in reason) == ("sdpa", True)
    monkeypatch.setattr(attention, "_flash_attention_function", lambda: None)
    assert usable_backend("flash_attention_2", GPU, torch.float16) == ("flash_attention_2", "")
    assert usable_backend("flex_attention", CPU, torch.float32) == ("flex_attention", "")
