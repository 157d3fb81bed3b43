"""Models whose codes vary, and the ways in which a step may be computed."""

import pytest
import torch

from moss_audio_tokenizer.runtime import inference_stack, stream_engine
from moss_audio_tokenizer.runtime.compiled import load_kernels
from moss_audio_tokenizer.runtime.cuda_graphs import GraphedStep


@pytest.fixture
def make_codec(make_codec):
    """A quantizer that hears what changes: of constant codes, equality would prove nothing."""

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


@pytest.fixture(params=["kernels", "rings", "recorded"])
def path(request, monkeypatch):
    """Compiled steps, steps in PyTorch, and those in the fixed shapes that a GPU replays."""
    if request.param == "kernels":
        if load_kernels() is None:
            pytest.skip("Numba is not installed, or has no threads")
        return request.param
    monkeypatch.setattr(inference_stack, "load_kernels", lambda: None)
    if request.param == "recorded":

        def program(compute, state):
            return GraphedStep(compute, state, record=called_again)

        monkeypatch.setattr(stream_engine, "EagerStep", program)
    return request.param


def called_again(step):
    """Records nothing: to replay is to call again."""
    step()
    return step
