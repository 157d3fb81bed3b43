"""How a language model is handed its cache of keys and values."""

import inspect
from typing import Any

from torch import nn
from transformers import DynamicCache


def cache_argument(model: nn.Module, cache: DynamicCache) -> dict[str, Any]:
    """The keyword argument for a model of transformers, which fills the cache in place.

    It is called ``cache`` since transformers 5.24, ``past_key_values`` before.
    """
    known = inspect.signature(type(model).forward).parameters
    return {"cache" if "cache" in known else "past_key_values": cache, "use_cache": True}
