import json

import pytest

from moss_audio_tokenizer.config import (
    PRESETS,
    PatchStage,
    TransformerStage,
    codec_config_from_released,
    preset,
    released_from_codec_config,
)
from moss_audio_tokenizer.errors import ConfigError


def released(name: str = "tiny", **changes: object) -> dict:
    return released_from_codec_config(preset(name)) | changes


def with_stage(**changes: object) -> dict:
    values = released()
    values["encoder_kwargs"][1] |= changes
    return values


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_json(name):
    text = json.dumps(released(name))
    assert codec_config_from_released(json.loads(text)) == preset(name)


@pytest.mark.parametrize(
    ("alias", "key"),
    [("sample_rate", "sampling_rate"), ("channels_numbers", "number_channels")],
)
def test_aliases_stand_for_their_keys(alias, key):
    values = released("nano")
    values[alias] = values.pop(key)
    assert codec_config_from_released(values) == preset("nano")


def test_an_alias_that_contradicts_its_key_is_refused():
    with pytest.raises(ConfigError, match=r"sample_rate is 48000, but sampling_rate"):
        codec_config_from_released(released(sample_rate=48_000))
    assert codec_config_from_released(released(sample_rate=24_000)) == preset("tiny")


def test_keys_that_say_nothing_are_as_good_as_absent():
    values = released(sample_rate=None, number_channels=None, attention_backend=None)
    assert codec_config_from_released(values) == preset("tiny")


def test_a_mirrored_decoder_is_read_backwards():
    values = released("nano")
    values["reversed_decoder_kwargs"] = values["encoder_kwargs"]
    del values["decoder_kwargs"]
    assert codec_config_from_released(values) == preset("nano")


def test_stages_without_a_window_have_that_of_the_file():
    values = released(causal_transformer_context_duration=3)
    del values["encoder_kwargs"][1]["context_duration"]
    config = codec_config_from_released(values)
    assert config.encoder[1].context_seconds == 3.0
    assert config.encoder[3].context_seconds == 1.28


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rlfq", "rlfq"),
        ("random_prefix_rlfq", "rlfq"),
        ("rvq", "rvq"),
        ("spec_rvq", "rvq"),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_names_of_quantizers(name, expected, inside):
    values = released()
    del values["quantizer_type"], values["quantizer_kwargs"]["quantizer_type"]
    (values["quantizer_kwargs"] if inside else values)["quantizer_type"] = name
    assert codec_config_from_released(values).quantizer.quantizer_type == expected


def test_training_options_of_the_quantizer_are_ignored():
    values = released()
    values["quantizer_kwargs"] |= {"quantizer_dropout": 1.0, "commitment": 0.25}
    assert codec_config_from_released(values) == preset("tiny")


def test_equal_dimensions_project_in_stereo_unless_the_caller_knows_better():
    values = released("v2")
    del values["always_project"]
    assert codec_config_from_released(values) == preset("v2")
    plain = codec_config_from_released(values, always_project=False)
    assert not plain.encoder[1].always_project


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gating", "silu"),
        ("norm", "rms_norm"),
        ("positional_embedding", "sinusoidal"),
        ("causal", False),
        ("layer_scale", None),
    ],
)
def test_what_no_released_checkpoint_uses_is_refused(key, value):
    with pytest.raises(ConfigError, match=rf"Transformer\.{key} is {value!r}"):
        codec_config_from_released(with_stage(**{key: value}))


def test_unknown_keys_of_a_stage_are_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown keys \['kv_repeat'\].*num_heads"):
        codec_config_from_released(with_stage(kv_repeat=2))
    values = released()
    values["encoder_kwargs"][0]["stride"] = 2
    with pytest.raises(ConfigError, match=r"unknown keys \['stride'\].*patch_size"):
        codec_config_from_released(values)


def test_an_unknown_module_is_refused():
    with pytest.raises(ConfigError, match="module_type is 'Conv1d'"):
        codec_config_from_released(with_stage(module_type="Conv1d"))


def test_stereo_side_by_side_is_refused():
    with pytest.raises(ConfigError, match="enable_channel_interleave"):
        codec_config_from_released(released("v2", enable_channel_interleave=False))


@pytest.mark.parametrize(
    "key", ["sampling_rate", "downsample_rate", "encoder_kwargs", "quantizer_kwargs"]
)
def test_missing_keys_are_named(key):
    values = released()
    del values[key]
    with pytest.raises(ConfigError, match=f"no '{key}'"):
        codec_config_from_released(values)


def test_a_file_without_a_decoder_is_refused():
    values = released()
    del values["decoder_kwargs"]
    with pytest.raises(ConfigError, match="no 'reversed_decoder_kwargs'"):
        codec_config_from_released(values)


@pytest.mark.parametrize("value", ["32", 32.5, True, [32], float("nan")])
def test_sizes_of_the_wrong_type_are_refused_not_rounded(value):
    with pytest.raises(ConfigError, match="d_model"):
        codec_config_from_released(with_stage(d_model=value))
    with pytest.raises(ConfigError, match="sampling_rate"):
        codec_config_from_released(released(sampling_rate=value))


@pytest.mark.parametrize("value", [0, "1.28", -1.0, float("inf")])
def test_impossible_windows_are_refused(value):
    with pytest.raises(ConfigError, match="context"):
        codec_config_from_released(with_stage(context_duration=value))


@pytest.mark.parametrize("value", [5, "stages", {"a": 1}, [3], [["module_type"]]])
def test_stages_that_are_no_list_of_objects_are_refused(value):
    with pytest.raises(ConfigError, match="encoder_kwargs"):
        codec_config_from_released(released(encoder_kwargs=value))


@pytest.mark.parametrize("value", [[], "rlfq", 3])
def test_a_quantizer_that_is_no_object_is_refused(value):
    with pytest.raises(ConfigError, match="quantizer_kwargs"):
        codec_config_from_released(released(quantizer_kwargs=value))


@pytest.mark.parametrize("value", ["fsq", ["rlfq"], 1])
def test_unknown_quantizer_names_are_refused(value):
    values = released()
    values["quantizer_kwargs"]["quantizer_type"] = value
    with pytest.raises(ConfigError, match="quantizer_type is"):
        codec_config_from_released(values)


@pytest.mark.parametrize("channels", [0, 3, -1, "2", 1.5])
def test_impossible_channel_counts_are_refused(channels):
    with pytest.raises(ConfigError, match="number_channels"):
        codec_config_from_released(released(number_channels=channels))


def test_codecs_without_any_transformer_can_be_written():
    values = released()
    values["encoder_kwargs"] = [{"module_type": "PatchedPretransform", "patch_size": 1920}]
    values["quantizer_kwargs"]["input_dim"] = 1920
    config = codec_config_from_released(values)
    assert config.encoder == (PatchStage(1920),)
    assert codec_config_from_released(released_from_codec_config(config)) == config
    assert any(isinstance(stage, TransformerStage) for stage in config.decoder)
