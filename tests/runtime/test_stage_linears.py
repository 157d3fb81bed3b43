"""Packed linear layers against the plain product."""

import pytest
import torch
import torch.nn.functional as F

from moss_audio_tokenizer.runtime.stage import (
    PackedLinear,
    PlainLinear,
    fast_linear,
)

SIZES = [(1, 1), (16, 8), (7, 5), (130, 300)]
needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="PyTorch has no oneDNN here"
)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", [PlainLinear, pytest.param(PackedLinear, marks=needs_onednn)])
def test_the_same_function(sizes, kind):
    weight, x = random(*sizes), random(2, 9, sizes[1], seed=1)
    residual = random(2, 9, sizes[0], seed=2)
    linear = kind(weight, torch.float32)
    expected = F.linear(x.double(), weight.double())
    for got, exact in [
        (linear(x), expected),
        (linear.gelu(x), F.gelu(expected)),
        (linear.add_to(residual, x), residual.double() + expected),
    ]:
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), exact, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [PlainLinear, pytest.param(PackedLinear, marks=needs_onednn)])
def test_in_bfloat16_the_residual_stays_exact(kind):
    weight, x, residual = random(16, 8), random(3, 8, seed=1), 1e3 * random(3, 16, seed=2)
    linear = kind(weight, torch.bfloat16)
    assert linear(x).dtype == linear.gelu(x).dtype == torch.bfloat16
    total = linear.add_to(residual, x)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, residual + F.linear(x, weight), atol=0.1, rtol=0)
    torch.testing.assert_close(total - residual, linear(x).float(), atol=1e-3, rtol=0)


@needs_onednn
@pytest.mark.parametrize("sizes", [*SIZES, (768, 256)])
def test_a_row_does_not_depend_on_the_others(sizes):
    linear = PackedLinear(random(*sizes), torch.float32)
    x, residual = random(70, sizes[1], seed=1), random(70, sizes[0], seed=2)
    calls = (linear, linear.gelu, lambda part: linear.add_to(residual[: len(part)], part))
    for call in calls:
        whole = call(x)
        for count in (1, 2, 3, 7, 16, 17, 64):
            assert torch.equal(call(x[:count]), whole[:count])
    assert torch.equal(linear(x.unflatten(0, (7, 10))).flatten(0, 1), linear(x))


def test_the_fastest_is_chosen(monkeypatch):
    weight = random(8, 4)
    if torch.backends.mkldnn.is_available():
        assert type(fast_linear(weight, torch.float32)) is PackedLinear
        assert type(fast_linear(weight, torch.bfloat16)) is PackedLinear
        assert type(fast_linear(weight, torch.float16)) is PackedLinear
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert type(fast_linear(weight, torch.float32)) is PlainLinear


@pytest.mark.parametrize("onednn", [False, pytest.param(True, marks=needs_onednn)])
@pytest.mark.parametrize("sizes", SIZES)
def test_weights_in_float16_are_rounded_and_nothing_else(monkeypatch, onednn, sizes):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    weight, x = random(*sizes), random(3, sizes[1], seed=1)
    got = fast_linear(weight, torch.float16)(x)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, F.linear(x, weight.half().float()), atol=1e-4, rtol=1e-5)


def test_weights_are_left_as_they_are():
    weight = random(8, 4).requires_grad_()
    before = weight.detach().clone()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert not fast_linear(weight, dtype)(random(3, 4)).requires_grad
    assert torch.equal(weight, before)
