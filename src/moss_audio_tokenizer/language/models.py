"""Where decoder-only models come from: a folder, the hub, or made here and small."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, Qwen2Config

from ..errors import ConfigError


def load_language_model(source: str, pretrained: bool = True, seed: int = 0) -> Any:
    """A decoder-only model of transformers, in float32.

    Args:
        source: folder or hub id.
        pretrained: False takes its shape alone, with random weights.
        seed: of those.

    Raises:
        ConfigError: there is none at ``source``.
    """
    try:
        if pretrained:
            return AutoModelForCausalLM.from_pretrained(
                source, dtype=torch.float32, use_safetensors=True
            )
        return made_language_model(AutoConfig.from_pretrained(source), seed)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"no language model at {source!r} ({reason}); name a folder or a hub id of a "
            "decoder-only model with safetensors, or 'random'"
        ) from error


def made_language_model(config: PreTrainedConfig, seed: int = 0) -> Any:
    """A causal language model with random weights, in float32."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def language_model_config(
    width: int, num_layers: int, num_heads: int, num_tokens: int
) -> PreTrainedConfig:
    """A small one, built like Qwen2; texts end with the last token."""
    return Qwen2Config(
        vocab_size=num_tokens,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=num_tokens - 1,
        pad_token_id=num_tokens - 1,
    )


def random_language_model(
    width: int, num_layers: int, num_heads: int, num_tokens: int, seed: int = 0
) -> Any:
    """A small one with random weights, see `language_model_config`."""
    return made_language_model(
        language_model_config(width, num_layers, num_heads, num_tokens), seed
    )
