"""Attention in blocks on a CPU against its definition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moss_audio_tokenizer.runtime import chunk_cache
from moss_audio_tokenizer.runtime.chunk_cache import BandedWindow


def dense_attention(query, key, value, context):
    """All scores, those outside the window masked."""
    num_past = key.shape[2] - query.shape[2]
    steps = num_past + torch.arange(query.shape[2])[:, None]
    distance = steps - torch.arange(key.shape[2])
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    scores = scores.masked_fill((distance < 0) | (distance >= context), -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)


def make_heads(num_queries, num_past, batch=1):
    random = torch.Generator().manual_seed(num_queries)
    query = torch.randn(batch, 2, num_queries, 4, generator=random)
    key, value = torch.randn(2, batch, 2, num_past + num_queries, 4, generator=random)
    return query, key, value


@given(
    num_queries=st.integers(1, 40),
    num_past=st.integers(0, 30),
    context=st.integers(1, 30),
    block=st.integers(1, 16),
    batch=st.integers(1, 2),
)
def test_equals_the_definition(num_queries, num_past, context, block, batch):
    query, key, value = make_heads(num_queries, num_past, batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_cache, "_BLOCK", block)
        got = BandedWindow(num_queries, num_past, context).attend(query, key, value)
    torch.testing.assert_close(got, dense_attention(query, key, value, context))


def test_heads_may_lie_side_by_side_in_memory():
    heads = torch.randn(1, 30, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    query, key, value = heads.transpose(1, 3).unbind(2)
    got = BandedWindow(30, 0, 7).attend(query, key, value)
    torch.testing.assert_close(got, dense_attention(query, key, value, 7))


def test_half_precision_rounds_the_values_and_weights_alone():
    query, key, value = (item.bfloat16() for item in make_heads(20, 5))
    got = BandedWindow(20, 5, 9).attend(query, key, value)
    assert got.dtype == torch.bfloat16
    exact = dense_attention(query.float(), key.float(), value.float(), 9)
    torch.testing.assert_close(got.float(), exact, atol=0.02, rtol=0.01)


def test_no_mask_grows_with_the_sequence():
    blocks = BandedWindow(100_000, 0, 50).blocks
    assert max(item.numel() for block in blocks for item in block[2:]) <= chunk_cache._BLOCK**2
    edges = {id(item) for block in blocks for item in block[2:]}
    assert len(edges) <= 8
