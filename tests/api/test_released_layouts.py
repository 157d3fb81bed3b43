"""What is written in a released layout has the keys that code for that layout reads."""

import json
from pathlib import Path

import pytest

from moss_audio_tokenizer import MossAudioTokenizerConfig, MossAudioTokenizerModel
from moss_audio_tokenizer.config import preset, released_from_codec_config
from moss_audio_tokenizer.config.released import default_layout
from moss_audio_tokenizer.errors import ConfigError

GOLDEN = Path(__file__).parents[1] / "golden" / "mono-rlfq" / "config.json"
# What the config.json of the v1 family knows; its code refuses any other key of a stage.
RELEASED = json.loads(GOLDEN.read_text())
STAGE_KEYS = {frozenset(stage) for stage in RELEASED["encoder_kwargs"]}


@pytest.mark.parametrize("name", ["tiny", "bundled", "v1", "nano-24k", "scaling-319m"])
def test_v1_has_the_keys_of_released_v1_files(name):
    values = released_from_codec_config(preset(name), "v1")
    for side in ("encoder_kwargs", "decoder_kwargs"):
        assert {frozenset(stage) for stage in values[side]} == STAGE_KEYS
    assert set(values) - {"code_dim", "quantizer_type"} <= set(RELEASED)
    assert MossAudioTokenizerConfig(**values).codec == preset(name)


@pytest.mark.parametrize(("name", "layout"), [("v1", "v1"), ("v2", "v2"), ("nano", "v2")])
def test_default_layout(name, layout):
    assert default_layout(preset(name)) == layout
    assert MossAudioTokenizerConfig.preset(name).codec == preset(name)


def test_v1_cannot_have_several_windows(make_model, tmp_path):
    model = make_model()
    with pytest.raises(ConfigError, match=r"windows of 0\.03, 0\.05 s, .*--layout v2"):
        model.save_pretrained(tmp_path / "model", layout="v1")
    assert list((tmp_path / "model").iterdir()) == []
    model.save_pretrained(tmp_path / "model")
    again = MossAudioTokenizerModel.from_pretrained(tmp_path / "model")
    assert again.config.codec == model.config.codec


def test_saved_as_v1(make_model, tmp_path):
    make_model(windows=(0.05, 0.05)).save_pretrained(tmp_path, layout="v1")
    text = (tmp_path / "config.json").read_text()
    assert "context_duration" not in text.replace("causal_transformer_context_duration", "")
    assert json.loads(text)["causal_transformer_context_duration"] == 0.05
    # Other programs tell the v2 family by this key.
    assert "number_channels" not in text
