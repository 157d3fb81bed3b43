import pytest
import torch

from moss_audio_tokenizer.config import PRESETS, TransformerStage, preset
from moss_audio_tokenizer.errors import ConfigError
from moss_audio_tokenizer.model.codec import Codec

TOTALS = {
    "v1": 1_774_566_400,
    "v2": 2_123_701_248,
    "nano": 21_969_664,
    "bundled": 10_424_192,
}
ENCODER_AND_DECODER = {
    "scaling-319m": 319_557_632,
    "scaling-505m": 505_485_312,
    "scaling-710m": 710_418_432,
    "scaling-1169m": 1_169_043_456,
}


def count_parameters(*modules: torch.nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def on_meta(name: str) -> Codec:
    with torch.device("meta"):
        return Codec(preset(name))


@pytest.mark.parametrize(("name", "expected"), TOTALS.items())
def test_parameters_in_all(name, expected):
    assert count_parameters(on_meta(name)) == expected


@pytest.mark.parametrize(("name", "expected"), ENCODER_AND_DECODER.items())
def test_parameters_of_the_scaling_family(name, expected):
    codec = on_meta(name)
    assert count_parameters(codec.require_encoder(), codec.require_decoder()) == expected


def test_tiny_has_the_bundled_layout_at_a_fraction_of_its_size():
    tiny, bundled = preset("tiny"), preset("bundled")
    assert 250_000 < count_parameters(on_meta("tiny")) < 400_000
    assert (tiny.quantizer.num_quantizers, tiny.quantizer.codebook_size) == (4, 64)
    for ours, theirs in zip(
        tiny.encoder + tiny.decoder, bundled.encoder + bundled.decoder, strict=True
    ):
        if isinstance(theirs, TransformerStage):
            assert ours.d_model == 32
            assert ours.num_layers == theirs.num_layers
            assert ours.output_dimension == theirs.output_dimension
        else:
            assert ours == theirs


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_frames_of_eighty_milliseconds(name):
    config = preset(name)
    assert config.frame_rate == 12.5
    assert config.decoder_rates[-1] == config.stream_rate


def test_stage_rates_of_v1():
    rates = preset("v1").encoder_rates
    assert rates[1::2] == (100.0, 50.0, 25.0, 12.5)


def test_windows_of_v2_are_those_of_the_released_file():
    config = preset("v2")
    stages = [stage for stage in config.decoder if isinstance(stage, TransformerStage)]
    assert [stage.context_seconds for stage in stages] == [10.0, 10.0, 8.0, 4.0, 2.0, 1.0]
    assert config.context_steps(config.encoder[1], config.encoder_rates[1]) == 400


def test_presets_are_equal_and_hashable_by_value():
    assert preset("nano") == preset("nano")
    assert len({preset("nano"), preset("nano"), preset("v1")}) == 2


def test_an_unknown_preset_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"no preset 'v3'.*v1.*tiny"):
        preset("v3")
