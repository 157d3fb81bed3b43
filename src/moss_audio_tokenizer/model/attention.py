"""Causal attention over a window, in time and memory linear in the length.

Query p sees the keys k with 0 <= p - k < context, on every backend. Long sequences are cut
into blocks of queries, each against the range of keys that it can see, so that no mask
grows with the sequence. Owns the backends; knows nothing of layers or streams.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import ConfigError, MissingDependencyError

# Queries a block: few, so that little beyond the window is computed; measured on CPUs.
BLOCK_QUERIES = 64
# In 16 bits on a CPU training crops up to this length attend by plain products, 2 to 4 times as
# fast, gradients included; in float32, or past it, PyTorch's own attention is faster.
SHORT_QUERIES = 128


class WindowBlock(NamedTuple):
    """A block of queries, the range of keys that any of them sees, and the mask within it."""

    queries: slice
    keys: slice
    mask: Bool[Tensor, "queries keys"] | None
    is_causal: bool


class Window(NamedTuple):
    """How ``num_queries`` new steps see ``num_past`` earlier ones and each other."""

    num_queries: int
    num_past: int
    context: int
    blocks: tuple[WindowBlock, ...]


def plan_window(num_queries: int, num_past: int, context: int, device: torch.device) -> Window:
    """Cut the band of visible (query, key) pairs into blocks; shared by a stage's layers."""
    if num_past == 0 and num_queries <= context:
        whole = slice(0, num_queries)
        blocks = [WindowBlock(whole, whole, None, is_causal=True)]
    else:
        starts = range(0, num_queries, BLOCK_QUERIES)
        blocks = [_block(start, num_queries, num_past, context, device) for start in starts]
    return Window(num_queries, num_past, context, tuple(blocks))


def _block(
    start: int, num_queries: int, num_past: int, context: int, device: torch.device
) -> WindowBlock:
    stop = min(start + BLOCK_QUERIES, num_queries)
    first_key = max(0, num_past + start - context + 1)
    last_key = num_past + stop
    queries, keys = slice(start, stop), slice(first_key, last_key)
    if stop - start == 1:  # it sees all of these keys
        return WindowBlock(queries, keys, None, is_causal=False)
    query = torch.arange(num_past + start, last_key, device=device)[:, None]
    distance = query - torch.arange(first_key, last_key, device=device)
    return WindowBlock(queries, keys, (distance >= 0) & (distance < context), is_causal=False)


def windowed_attention(
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch heads keys head_dim"],
    value: Float[Tensor, "batch heads keys head_dim"],
    window: Window,
    backend: str = "sdpa",
) -> Float[Tensor, "batch heads queries head_dim"]:
    """Attend within the window; the last ``queries`` keys belong to the queries themselves.

    Raises:
        ConfigError: there is no such backend.
        MissingDependencyError: the backend is not installed or does not run on this device.
    """
    return BACKENDS[check_backend(backend)](query, key, value, window)


def _sdpa(query: Tensor, key: Tensor, value: Tensor, window: Window) -> Tensor:
    short = query.shape[2] <= SHORT_QUERIES and value.dtype in (torch.bfloat16, torch.float16)
    if short and query.requires_grad and query.device.type == "cpu":
        return _products(query, key, value, window)
    parts = [
        F.scaled_dot_product_attention(
            query[:, :, block.queries],
            key[:, :, block.keys],
            value[:, :, block.keys],
            attn_mask=block.mask,
            is_causal=block.is_causal,
        )
        for block in window.blocks
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _products(query: Tensor, key: Tensor, value: Tensor, window: Window) -> Tensor:
    """With all scores at once, the softmax in float32."""
    query, key = query.to(value.dtype), key.to(value.dtype)
    scores = (query @ key.transpose(-1, -2)).float() * query.shape[-1] ** -0.5
    ahead = torch.arange(window.num_queries) + window.num_past
    distance = ahead[:, None] - torch.arange(key.shape[2])
    hidden = (distance < 0) | (distance >= window.context)
    return scores.masked_fill(hidden, float("-inf")).softmax(-1).to(value.dtype) @ value


def _flash_attention_2(query: Tensor, key: Tensor, value: Tensor, window: Window) -> Tensor:
    # window_size counts the keys *before* the query: context - 1 of them, not context.
    attend = _flash_attention_function()
    query, key, value = (item.transpose(1, 2) for item in (query, key, value))
    attended = attend(query, key, value, causal=True, window_size=(window.context - 1, 0))
    return attended.transpose(1, 2)


@cache
def _flash_attention_function() -> Callable[..., Tensor]:
    try:
        from flash_attn import flash_attn_func
    except ImportError as error:
        raise MissingDependencyError(
            "flash_attention_2 needs a CUDA GPU and the flash-attn package; "
            "install it or set the attention implementation to 'sdpa'"
        ) from error
    return flash_attn_func


def _flex_attention(query: Tensor, key: Tensor, value: Tensor, window: Window) -> Tensor:
    # Uncompiled, flex attention would build the whole score matrix.
    mask = _flex_block_mask(window[:3], query.device)
    return _compiled_flex_attention()(query, key, value, block_mask=mask)


@cache
def _compiled_flex_attention() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def _flex_block_mask(shape: tuple[int, int, int], device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    num_queries, num_past, context = shape
    return create_block_mask(
        lambda _batch, _head, query, key: (
            (key <= query + num_past) & (key > query + num_past - context)
        ),
        None,
        None,
        num_queries,
        num_past + num_queries,
        device,
    )


BACKENDS: dict[str, Callable[[Tensor, Tensor, Tensor, Window], Tensor]] = {
    "sdpa": _sdpa,
    "flash_attention_2": _flash_attention_2,
    "flex_attention": _flex_attention,
}


def usable_backend(name: str, device: torch.device, dtype: torch.dtype) -> tuple[str, str]:
    """The backend to compute with where ``name`` is preferred, and why it is another if it is.

    Only flash_attention_2 has needs of its own; where they are not met, SDPA computes the same
    function.
    """
    if name != "flash_attention_2":
        return name, ""
    if device.type != "cuda":
        return "sdpa", f"it needs a CUDA GPU, and the model is on {device.type!r}"
    if dtype not in (torch.float16, torch.bfloat16):
        return "sdpa", "it computes in fp16 or bf16 alone: set_compute_dtype chooses one"
    try:
        _flash_attention_function()
    except MissingDependencyError:
        return "sdpa", "the package flash-attn is not installed"
    return name, ""


def check_backend(name: str) -> str:
    """Return ``name`` if there is such a backend, else raise `ConfigError`."""
    if not isinstance(name, str) or name not in BACKENDS:
        raise ConfigError(f"no attention implementation {name!r}; there are {', '.join(BACKENDS)}")
    return name
