"""A cache is handed to models by the name that they know."""

import pytest
import torch
from torch import nn
from transformers import DynamicCache

from moss_audio_tokenizer.llm import cache_argument, random_language_model


class Older(nn.Module):
    def forward(self, past_key_values=None, use_cache=False): ...


class Newer(nn.Module):
    def forward(self, cache=None, use_cache=False): ...


@pytest.mark.parametrize(("kind", "name"), [(Older, "past_key_values"), (Newer, "cache")])
def test_the_name_is_the_models(kind, name):
    cache = DynamicCache()
    assert cache_argument(kind(), cache) == {name: cache, "use_cache": True}


def test_a_model_fills_it_and_goes_on_from_it():
    model = random_language_model(16, 1, 2, 8, seed=0)
    ids = torch.tensor([[1, 2, 3, 4]])
    cache = DynamicCache()
    with torch.no_grad():
        model(ids[:, :3], **cache_argument(model, cache))
        stepped = model(ids[:, 3:], **cache_argument(model, cache)).logits[:, -1]
        whole = model(ids).logits[:, -1]
    assert cache.get_seq_length() == 4
    torch.testing.assert_close(stepped, whole)
