"""Models whose codes vary, and the ways in which a step may be computed."""

import pytest
import torch

from moss_audio_tokenizer.runtime import torch_steps


@pytest.fixture
def make_codec(make_codec):
    """A quantizer whose codes vary: of constant codes, equality would prove nothing."""

    def make(channels: int = 1, **quantizer):
        codec = make_codec(channels, **quantizer)
        random = torch.Generator().manual_seed(2)
        for parameter in codec.quantizer.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=random))
        hidden = codec.encoder(0.3 * torch.randn(1, channels, 800, generator=random))[0]
        project = codec.quantizer.input_proj
        project.gain.fill_(5 / hidden.std())
        project.bias.copy_(-project.weight @ hidden.mean(0))
        return codec

    return make


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
