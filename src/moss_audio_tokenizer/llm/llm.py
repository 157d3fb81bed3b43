"""Decoder-only language models of transformers: loaded, made with random weights, and configured.

Owns the configuration that is nested in that of CAT-ASR and CAT-TTS (``text_config``), the
cross-entropy of texts behind prompts, and the KV cache argument, whose name changed between
versions of transformers.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    PreTrainedConfig,
    Qwen2Config,
)

from ..errors import ConfigError, one_line
from ..speech.tokens import TextCodec

# Keys that could make transformers load foreign code or kernels.
_LEFT_OUT = ("attn_implementation", "_attn_implementation", "auto_map", "quantization_config")


def check_whole(config: Any, least: dict[str, int], most: int = 1 << 20) -> None:
    """Check that sizes are whole numbers in a sensible range.

    Raises:
        ConfigError: one is not.
    """
    for name, lowest in least.items():
        value = getattr(config, name)
        if type(value) is not int or not lowest <= value <= most:
            raise ConfigError(f"{name} is {value!r}; expected a whole number, {lowest} to {most}")


def checked_language_model(values: Any, text: TextCodec) -> PreTrainedConfig:
    """The nested configuration of a language model that has all tokens of a text.

    Raises:
        ConfigError: it has fewer tokens, or it is not a language model.
    """
    config = nested_config(values)
    # A damaged file could ask for more blocks than could ever be built.
    check_whole(config, {"num_hidden_layers": 1}, most=1024)
    if text.num_tokens > config.vocab_size:
        raise ConfigError(
            f"the text has {text.num_tokens} tokens, and the language model {config.vocab_size}; "
            "expected as many or more"
        )
    return config


def nested_config(values: Any) -> PreTrainedConfig:
    """The configuration that config.json holds as plain values.

    Raises:
        ConfigError: transformers does not know such a model.
    """
    if isinstance(values, PreTrainedConfig):
        return values
    if values is None:
        raise ConfigError("text_config is missing; give that of a decoder-only model")
    try:
        given = {key: value for key, value in dict(values).items() if key not in _LEFT_OUT}
        return AutoConfig.for_model(given.pop("model_type"), **given)
    # Whatever transformers and its validators raise about values from a file.
    except Exception as error:
        raise ConfigError(
            f"text_config describes no language model ({one_line(error, 200)}); expected the "
            "configuration of a decoder-only model of transformers, with its model_type"
        ) from error


def load_language_model(source: str, pretrained: bool = True, seed: int = 0) -> Any:
    """A decoder-only model of transformers, in float32.

    Args:
        source: folder or hub id of the model.
        pretrained: False takes only its sizes, with random weights.
        seed: seed of random weights.

    Raises:
        ConfigError: there is no usable model at ``source``.
    """
    try:
        if pretrained:
            return AutoModelForCausalLM.from_pretrained(
                source, dtype=torch.float32, use_safetensors=True
            )
        return made_language_model(AutoConfig.from_pretrained(source), seed)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no language model at {source!r} ({one_line(error, 200)}); name a folder or a "
            "hub id of a decoder-only model with safetensors, or 'random'"
        ) from error


def made_language_model(config: PreTrainedConfig, seed: int = 0) -> Any:
    """A causal language model with random weights, in float32."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def language_model_config(
    width: int, num_layers: int, num_heads: int, num_tokens: int
) -> PreTrainedConfig:
    """A small configuration like Qwen2's; the last token ends a text."""
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
    """A small language model with random weights."""
    return made_language_model(
        language_model_config(width, num_layers, num_heads, num_tokens), seed
    )


@dataclass
class TextLoss:
    """Cross-entropy of the texts of a batch.

    Attributes:
        loss_sum: summed over the target tokens.
        num_tokens: number of target tokens, end tokens included.
        num_correct: number of target tokens that the model ranks first.
    """

    loss_sum: Float[Tensor, ""]
    num_tokens: int
    num_correct: Float[Tensor, ""]


def text_states(
    language_model: Any, prompts: Sequence[Float[Tensor, "_ width"]], targets: Sequence[list[int]]
) -> Float[Tensor, "batch steps width"]:
    """The model's states over [prompt][text] of each row, right-padded.

    Args:
        language_model: the decoder-only model.
        prompts: input vectors of each row before its text.
        targets: tokens of each text and the end token, which the model is not given.
    """
    embed, device = language_model.get_input_embeddings(), prompts[0].device
    known = [torch.tensor(ids[:-1], dtype=torch.long, device=device) for ids in targets]
    rows = [
        torch.cat((prompt, embed(ids).to(prompt.dtype)))
        for prompt, ids in zip(prompts, known, strict=True)
    ]
    mask = pad_sequence([torch.ones(len(row), device=device) for row in rows], True)
    return language_model.base_model(
        inputs_embeds=pad_sequence(rows, batch_first=True),
        attention_mask=mask.long(),
        use_cache=False,
    ).last_hidden_state


def text_loss(
    language_model: Any,
    states: Float[Tensor, "batch steps width"],
    prompts: Sequence[Float[Tensor, "_ width"]],
    targets: Sequence[list[int]],
) -> TextLoss:
    """Cross-entropy of the texts by their `text_states`."""
    predicting = [
        row[len(prompt) - 1 : len(prompt) - 1 + len(ids)]
        for row, prompt, ids in zip(states, prompts, targets, strict=True)
    ]
    logits = language_model.get_output_embeddings()(torch.cat(predicting)).float()
    wanted = torch.tensor([token for ids in targets for token in ids], device=logits.device)
    return TextLoss(
        loss_sum=F.cross_entropy(logits, wanted, reduction="sum"),
        num_tokens=len(wanted),
        num_correct=(logits.detach().argmax(-1) == wanted).sum().float(),
    )


def cache_argument(model: nn.Module, cache: DynamicCache) -> dict[str, Any]:
    """The KV cache as a keyword argument; the model fills it in place.

    It is called ``cache`` since transformers 5.24, ``past_key_values`` before.
    """
    known = inspect.signature(type(model).forward).parameters
    return {"cache" if "cache" in known else "past_key_values": cache, "use_cache": True}


class CachedRows:
    """Rows of a decoder-only model with their KV cache.

    Args:
        model: the decoder-only model, without its output layer.
        rows: input vectors of each row; shorter rows are padded on the left.

    Attributes:
        last: states of the newest step.
    """

    last: Float[Tensor, "rows width"]
    _next: Int64[Tensor, "rows 1"]

    def __init__(self, model: nn.Module, rows: Sequence[Float[Tensor, "_ width"]]) -> None:
        self._model, self._cache = model, DynamicCache()
        longest = max(map(len, rows))
        padded = torch.stack([F.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
        missing = torch.tensor([longest - len(row) for row in rows], device=padded.device)
        self._mask = (torch.arange(longest, device=padded.device) >= missing[:, None]).long()
        self._run(padded, (self._mask.cumsum(-1) - 1).clamp_min(0))

    def append(self, step: Float[Tensor, "rows width"]) -> None:
        """Feed one more step to every row."""
        self._mask = torch.cat((self._mask, torch.ones_like(self._mask[:, :1])), 1)
        self._run(step[:, None], self._next)

    def select(self, rows: Int64[np.ndarray, "_"]) -> None:
        """Keep these rows, in this order."""
        if np.array_equal(rows, np.arange(len(self._mask))):
            return
        order = torch.from_numpy(rows).to(self._mask.device)
        self._cache.batch_select_indices(order)
        self._mask, self._next = self._mask[order], self._next[order]

    def _run(self, steps: Tensor, positions: Tensor) -> None:
        self._next = positions[:, -1:] + 1
        self.last = self._model(
            inputs_embeds=steps,
            attention_mask=self._mask,
            position_ids=positions,
            **cache_argument(self._model, self._cache),
        ).last_hidden_state[:, -1]


class TokenDecoder:
    """A language model that continues rows by tokens of text, with its KV cache.

    Args:
        language_model: the decoder-only model, with its output layer.
        num_tokens: number of text tokens, the first classes of the output layer.
        rows: input vectors of each row before its first token.
    """

    @torch.no_grad()
    def __init__(
        self, language_model: Any, num_tokens: int, rows: Sequence[Float[Tensor, "_ width"]]
    ) -> None:
        self._model, self._num_tokens = language_model, num_tokens
        self._rows = CachedRows(language_model.base_model, rows)

    @torch.no_grad()
    def scores(self) -> Float[np.ndarray, "rows num_tokens"]:
        """Log-probabilities of the next token, of text tokens alone."""
        logits = self._model.get_output_embeddings()(self._rows.last)
        return logits[:, : self._num_tokens].float().log_softmax(-1).cpu().numpy()

    @torch.no_grad()
    def advance(self, tokens: Int64[np.ndarray, "rows"], origins: Int64[np.ndarray, "_"]) -> None:
        """Append a token to each row; row i continues row ``origins[i]`` of before."""
        self._rows.select(origins)
        given = torch.from_numpy(tokens).to(self._rows.last.device)
        self._rows.append(self._model.get_input_embeddings()(given))
