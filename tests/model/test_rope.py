"""Rotary positions: interleaved pairs, and scores that depend on the distance alone."""

import pytest
import torch

from moss_audio_tokenizer.model.transformer import rotate, rotation_at

CPU = torch.device("cpu")


def test_pairs_are_interleaved():
    rotation = rotation_at(3, 1, 4, 10_000.0, CPU)
    turned = rotate(torch.tensor([[1.0, 0.0, 1.0, 0.0]]), rotation)
    angles = torch.tensor([3.0, 3.0 / 100])
    expected = torch.stack((angles.cos(), angles.sin()), -1).flatten()
    torch.testing.assert_close(turned[0], expected)


@pytest.mark.parametrize("offset", [0, 1000, 360_000, 10**6, 10**8])
def test_scores_depend_on_the_distance_alone(offset):
    random = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 6, 64, generator=random, dtype=torch.float32)
    near = rotation_at(0, 6, 64, 10_000.0, CPU)
    far = rotation_at(offset, 6, 64, 10_000.0, CPU)
    expected = rotate(query, near) @ rotate(key, near).T
    got = rotate(query, far) @ rotate(key, far).T
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)


def test_dtype_is_kept_and_the_rotation_is_in_float32():
    heads = torch.randn(5, 8)
    rotation = rotation_at(100, 5, 8, 10_000.0, CPU)
    half = rotate(heads.bfloat16(), rotation)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half, rotate(heads.bfloat16().float(), rotation).bfloat16())
