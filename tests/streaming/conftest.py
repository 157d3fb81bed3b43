"""Models whose codes vary, and the ways in which a step may be computed."""

import pytest

from moss_audio_tokenizer.runtime import torch_steps


@pytest.fixture
def make_codec(make_codec, vary_codes):
    return lambda channels=1, **quantizer: vary_codes(make_codec(channels, **quantizer), channels)


@pytest.fixture(params=["onnxruntime", "eager", "recorded"])
def path(request, monkeypatch):
    """Steps by onnxruntime, by PyTorch, and in the fixed shapes that a GPU replays."""
    if request.param != "onnxruntime":
        request.getfixturevalue("plain_steps")
    if request.param == "recorded":
        monkeypatch.setattr(torch_steps, "graph_recorder", lambda _device: called_again)
    return request.param


def called_again(step):
    """Record nothing: replaying calls the step again."""
    step()
    return step
