"""Shapes are checked wherever tests pass tensors around; small models that many tests share."""

import os

import pytest
from hypothesis import settings

# Test processes that run side by side have one thread each: more would wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    for _library in ("OMP", "MKL", "OPENBLAS"):
        os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
from jaxtyping import install_import_hook

# The same examples every time, and no clock: these machines may be busy.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

# The inner modules only: the public faces have refusals of their own, which tests provoke.
_CHECKED = {
    "model": "attention codec decoder encoder patchify quantizer rope stack transformer",
    "runtime": (
        "chunk_cache folded_quantizer inference_codec offline packed_linear ring_cache stage "
        "triton_attention"
    ),
    "training": (
        "losses quantizer_start reconstruction data.batch data.coded_batch data.coded_clips "
        "data.coded_planning data.planning data.rows data.survey data.variations"
    ),
}
install_import_hook(
    [f"moss_audio_tokenizer.{home}.{name}" for home in _CHECKED for name in _CHECKED[home].split()],
    "beartype.beartype",
)

from moss_audio_tokenizer.config import (  # noqa: E402
    CodecConfig,
    PatchStage,
    QuantizerConfig,
    TransformerStage,
)


def small_config(channels: int = 1, windows=(0.03, 0.05), **quantizer) -> CodecConfig:
    """Two stages of different windows: 8 samples a frame and channel, 100 frames a second."""
    outer, inner = windows
    sizes = {"num_quantizers": 4, "codebook_size": 16, "codebook_dim": 4} | quantizer
    first = TransformerStage(4, 8, 16, 2, 2, 32, outer, layer_scale=0.5)
    second = TransformerStage(16 * channels, 12, 12, 2, 1, 24, inner, layer_scale=0.5)
    encoder = (PatchStage(4), first, PatchStage(2 * channels), second)
    decoder = (
        TransformerStage(12, 16 * channels, 12, 2, 1, 24, inner, layer_scale=0.5),
        PatchStage(2 * channels),
        TransformerStage(8, 4, 16, 2, 2, 32, outer, layer_scale=0.5),
        PatchStage(4),
    )
    return CodecConfig(
        800, 8, encoder, decoder, QuantizerConfig(12, 10, 12, **sizes), number_channels=channels
    )


@pytest.fixture
def make_config():
    return small_config


@pytest.fixture
def make_codec():
    """A codec with weights large enough that every path matters."""
    import torch

    from moss_audio_tokenizer.model.codec import Codec

    def make(channels: int = 1, **quantizer) -> Codec:
        random = torch.Generator().manual_seed(1)
        codec = Codec(small_config(channels, **quantizer)).eval()
        codec.initialize(random)
        for name, parameter in codec.quantizer.named_parameters():
            if name.endswith(("gain", "bias")):
                parameter.data.add_(0.3 * torch.rand(parameter.shape, generator=random))
        return codec.requires_grad_(requires_grad=False)

    return make


@pytest.fixture
def make_model(make_codec):
    """The Hugging Face face around `make_codec`."""
    from moss_audio_tokenizer import MossAudioTokenizerConfig, MossAudioTokenizerModel

    def make(channels: int = 1, **quantizer) -> MossAudioTokenizerModel:
        config = MossAudioTokenizerConfig.from_codec_config(small_config(channels, **quantizer))
        model = MossAudioTokenizerModel(config)
        model.codec = make_codec(channels, **quantizer)
        return model

    return make


@pytest.fixture
def make_exported(make_model, tmp_path):
    """A small model with varied codes, saved, and its export: (model, folder of graphs)."""
    import torch

    from moss_audio_tokenizer.export.folder import export_onnx

    def make(channels: int = 1, export=(), **quantizer):
        model = make_model(channels, **quantizer)
        random = torch.Generator().manual_seed(2)
        for parameter in model.codec.quantizer.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=random))
        hidden = model.codec.encoder(0.3 * torch.randn(1, channels, 800, generator=random))[0]
        project = model.codec.quantizer.input_proj
        project.gain.fill_(5 / hidden.std())
        project.bias.copy_(-project.weight @ hidden.mean(0))
        model.save_pretrained(tmp_path / "checkpoint")
        export_onnx(tmp_path / "checkpoint", tmp_path / "exported", **dict(export))
        return model, tmp_path / "exported"

    return make
