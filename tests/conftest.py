"""Shapes are checked wherever tests pass tensors around; small models that many tests share."""

import os

import pytest
from hypothesis import settings

# Test processes that run side by side have one thread each: more would wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    for _library in ("OMP", "MKL", "OPENBLAS"):
        os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
from pathlib import Path

from jaxtyping import install_import_hook

import moss_audio_tokenizer

# The same examples every time, and no clock: these machines may be busy.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

# Packages whose modules all have their shapes and types checked, but for those that are named: they
# refuse what users pass, which tests provoke, or are compiled by Triton. Of `training` only modules
# of tensors and plans are checked.
_CHECKED_PACKAGES = ("model", "runtime")
_UNCHECKED = ("model.inputs", "runtime.triton_kernels")
_CHECKED_IN_TRAINING = (
    "training.codec.losses",
    "training.data.audio_data",
    "training.data.coded_data",
    "training.data.coded_clips",
    "training.data.coded_planning",
    "training.data.planning",
    "training.data.audio_rows",
    "training.data.survey",
    "training.codec.codebooks",
)


def _modules(package: str) -> set[str]:
    """Names of a package's modules below ``moss_audio_tokenizer``."""
    root = Path(moss_audio_tokenizer.__file__).parent
    files = (root / package).rglob("*.py")
    return {
        ".".join(file.relative_to(root).with_suffix("").parts)
        for file in files
        if file.stem != "__init__"
    }


def _checked_modules() -> list[str]:
    """Names of the modules to check; a name in a list above that does not exist is an error."""
    found = set().union(*map(_modules, _CHECKED_PACKAGES))
    unknown = (set(_UNCHECKED) - found) | (set(_CHECKED_IN_TRAINING) - _modules("training"))
    if unknown:
        raise pytest.UsageError(f"tests/conftest.py names unknown modules: {sorted(unknown)}")
    return sorted((found - set(_UNCHECKED)) | set(_CHECKED_IN_TRAINING))


install_import_hook(
    [f"moss_audio_tokenizer.{name}" for name in _checked_modules()], "beartype.beartype"
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
def plain_steps(monkeypatch):
    """Sessions step by PyTorch, as where onnx is missing."""
    from moss_audio_tokenizer.runtime import inference_codec

    monkeypatch.setattr(inference_codec, "step_graph", lambda *_: None)


@pytest.fixture
def vary_codes():
    """Gives a codec a quantizer whose codes vary: of constant codes, equality proves nothing."""
    import torch

    def vary(codec, channels: int = 1):
        random = torch.Generator().manual_seed(2)
        for parameter in codec.quantizer.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=random))
        hidden = codec.encoder(0.3 * torch.randn(1, channels, 800, generator=random))[0]
        project = codec.quantizer.input_proj
        project.gain.fill_(5 / hidden.std())
        project.bias.copy_(-project.weight @ hidden.mean(0))
        return codec

    return vary


@pytest.fixture
def make_exported(make_model, vary_codes, tmp_path):
    """A small model with varied codes, saved, and its export: (model, folder of graphs)."""
    from moss_audio_tokenizer.export.onnx_export import export_onnx

    def make(channels: int = 1, export=(), **quantizer):
        model = make_model(channels, **quantizer)
        vary_codes(model.codec, channels)
        model.save_pretrained(tmp_path / "checkpoint")
        export_onnx(tmp_path / "checkpoint", tmp_path / "exported", **dict(export))
        return model, tmp_path / "exported"

    return make
