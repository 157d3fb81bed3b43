import pytest
import torch
from transformers import Qwen2Config

from moss_audio_tokenizer.errors import ConfigError
from moss_audio_tokenizer.llm import load_language_model, random_language_model


def test_a_saved_model_loads_and_a_random_one_of_its_shape(tmp_path):
    random_language_model(16, 2, 2, 257, seed=4).save_pretrained(tmp_path)
    saved = load_language_model(str(tmp_path))
    again = load_language_model(str(tmp_path), pretrained=False, seed=5)
    assert isinstance(saved.config, Qwen2Config)
    assert saved.config.hidden_size == again.config.hidden_size == 16
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(saved.state_dict()[name], again.state_dict()[name])


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"no language model at .*or 'random'"):
        load_language_model(str(tmp_path / "none"))
