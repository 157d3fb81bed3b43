"""The window is exactly `context` wide, on every path, and costs linear memory."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from moss_audio_tokenizer.errors import ConfigError, MissingDependencyError
from moss_audio_tokenizer.model import attention
from moss_audio_tokenizer.model.attention import plan_window, windowed_attention

CPU = torch.device("cpu")


def dense_attention(query, key, value, num_past, context):
    """The definition, with a full mask."""
    positions = num_past + torch.arange(query.shape[2])[:, None]
    distance = positions - torch.arange(key.shape[2])
    mask = (distance >= 0) & (distance < context)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


@given(
    num_queries=st.integers(1, 40),
    num_past=st.integers(0, 20),
    context=st.integers(1, 30),
    block=st.integers(1, 16),
)
def test_equals_the_definition(num_queries, num_past, context, block):
    random = torch.Generator().manual_seed(0)
    query = torch.randn(2, 2, num_queries, 4, generator=random)
    key, value = torch.randn(2, 2, 2, num_past + num_queries, 4, generator=random)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "BLOCK_QUERIES", block)
        window = plan_window(num_queries, num_past, context, CPU)
    got = windowed_attention(query, key, value, window)
    torch.testing.assert_close(got, dense_attention(query, key, value, num_past, context))


@pytest.mark.parametrize(
    ("num_queries", "num_past", "context"), [(16, 0, 16), (16, 0, 5), (9, 7, 6), (1, 3, 2)]
)
def test_training_in_16_bits_has_the_same_window(num_queries, num_past, context, monkeypatch):
    monkeypatch.setattr(F, "scaled_dot_product_attention", None)
    random = torch.Generator().manual_seed(0)
    query = torch.randn(2, 2, num_queries, 4, generator=random)
    key, value = torch.randn(2, 2, 2, num_past + num_queries, 4, generator=random)
    query, key, value = (item.bfloat16().requires_grad_() for item in (query, key, value))
    got = windowed_attention(query, key, value, plan_window(num_queries, num_past, context, CPU))
    monkeypatch.undo()
    wide = [item.float() for item in (query, key, value)]
    expected = dense_attention(*wide, num_past, context)
    torch.testing.assert_close(got.float(), expected, rtol=0.03, atol=0.03)
    gradients, right = (
        torch.autograd.grad(result.float().square().sum(), (query, key, value))
        for result in (got, expected)
    )
    for left, other in zip(gradients, right, strict=True):
        torch.testing.assert_close(left.float(), other.float(), rtol=0.1, atol=0.1)


def test_no_mask_grows_with_the_sequence():
    window = plan_window(100_000, 0, 50, CPU)
    largest = max(block.mask.numel() for block in window.blocks if block.mask is not None)
    assert largest <= attention.BLOCK_QUERIES * (attention.BLOCK_QUERIES + 50)


def test_flex_attention_has_the_same_window(monkeypatch):
    # Uncompiled it runs anywhere; what counts here is the mask.
    flex = pytest.importorskip("torch.nn.attention.flex_attention")
    random = torch.Generator().manual_seed(0)
    query = torch.randn(1, 2, 20, 16, generator=random)
    key, value = torch.randn(2, 1, 2, 25, 16, generator=random)
    window = plan_window(20, 5, 7, CPU)
    monkeypatch.setattr(attention, "_compiled_flex_attention", lambda: flex.flex_attention)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = windowed_attention(query, key, value, window, "flex_attention")
    torch.testing.assert_close(got, dense_attention(query, key, value, 5, 7))


def test_flash_attention_is_asked_for_the_same_window(monkeypatch):
    asked = {}

    def fake(query, key, value, causal, window_size):
        asked.update(causal=causal, window_size=window_size, shape=query.shape)
        return query

    monkeypatch.setattr(attention, "_flash_attention_function", lambda: fake)
    query = torch.zeros(1, 2, 5, 4)
    windowed_attention(query, query, query, plan_window(5, 0, 3, CPU), "flash_attention_2")
    assert asked == {"causal": True, "window_size": (2, 0), "shape": (1, 5, 2, 4)}


def test_missing_flash_attention_is_named():
    query = torch.zeros(1, 1, 1, 4)
    with pytest.raises(MissingDependencyError, match="flash-attn"):
        windowed_attention(query, query, query, plan_window(1, 0, 3, CPU), "flash_attention_2")


def test_unknown_backend_is_refused():
    with pytest.raises(ConfigError, match="sdpa"):
        attention.check_backend("eager")
