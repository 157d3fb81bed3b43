from dataclasses import FrozenInstanceError, replace

import pytest

from moss_audio_tokenizer.config import (
    CodecConfig,
    PatchStage,
    QuantizerConfig,
    TransformerStage,
    preset,
)
from moss_audio_tokenizer.errors import ConfigError


def stage(inputs: int = 4, outputs: int = 8, **changes: object) -> TransformerStage:
    values = {"d_model": 8, "num_heads": 2, "num_layers": 1, "dim_feedforward": 16}
    return TransformerStage(inputs, outputs, **(values | {"context_seconds": 1.0} | changes))


def small(**changes: object) -> CodecConfig:
    values = {
        "sampling_rate": 8000,
        "downsample_rate": 4,
        "encoder": (PatchStage(4), stage(4, 8)),
        "decoder": (stage(8, 4), PatchStage(4)),
        "quantizer": QuantizerConfig(8, 8, 8),
    }
    return CodecConfig(**(values | changes))


def test_a_small_configuration_builds():
    assert small().frame_rate == 2000.0
    assert small().encoder_rates == (2000.0, 2000.0)


def test_configurations_are_frozen():
    with pytest.raises(FrozenInstanceError):
        small().sampling_rate = 1


@pytest.mark.parametrize("num_heads", [3, 8])
def test_heads_of_odd_or_broken_size_are_refused(num_heads):
    with pytest.raises(ConfigError, match="heads of even size"):
        stage(num_heads=num_heads)


@pytest.mark.parametrize("value", [0, -1, True, "8", 8.5, None])
def test_sizes_are_whole_numbers_above_zero(value):
    with pytest.raises(ConfigError, match=r"TransformerStage\.d_model"):
        stage(d_model=value)
    with pytest.raises(ConfigError, match=r"PatchStage\.patch_size"):
        PatchStage(value)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), "1"])
def test_windows_are_finite_times_above_zero(value):
    with pytest.raises(ConfigError, match="context_seconds"):
        stage(context_seconds=value)


def test_dimensions_that_do_not_meet_are_refused_by_place():
    with pytest.raises(ConfigError, match=r"encoder\[1\]\.input_dimension is 5"):
        small(encoder=(PatchStage(4), stage(5, 8)))
    with pytest.raises(ConfigError, match=r"quantizer\.input_dim is 8"):
        small(encoder=(PatchStage(4), stage(4, 6)))
    with pytest.raises(ConfigError, match="the waveform is 1"):
        small(decoder=(stage(8, 8), PatchStage(4)))


def test_a_decoder_that_cannot_be_unfolded_is_refused():
    with pytest.raises(ConfigError, match=r"decoder\[1\]"):
        small(decoder=(stage(8, 6), PatchStage(4)))


def test_patches_must_multiply_to_the_frame():
    with pytest.raises(ConfigError, match=r"multiply to 4.*= 8"):
        small(downsample_rate=8)
    with pytest.raises(ConfigError, match="multiply to 4"):
        small(number_channels=2)


def test_more_than_two_channels_are_refused():
    with pytest.raises(ConfigError, match="number_channels is 4; expected 1 or 2"):
        small(number_channels=4, downsample_rate=1)


def test_stages_agree_on_projections_between_equal_dimensions():
    mixed = stage(8, 4, always_project=True)
    with pytest.raises(ConfigError, match="always_project"):
        small(decoder=(mixed, PatchStage(4)))


@pytest.mark.parametrize("size", [0, 1, 65_537, 64.0])
def test_codebooks_of_impossible_size_are_refused(size):
    with pytest.raises(ConfigError, match="codebook_size"):
        QuantizerConfig(8, 8, 8, codebook_size=size)


def test_unknown_quantizers_are_refused():
    with pytest.raises(ConfigError, match="expected one of rlfq, rvq"):
        QuantizerConfig(8, 8, 8, quantizer_type="fsq")


def test_a_window_is_never_empty():
    config = preset("bundled")
    brief = replace(config.encoder[1], context_seconds=1e-6)
    assert config.context_steps(brief, 100.0) == 1
