"""Adversarial losses against slow sums in float64, and where their gradients go."""

import numpy as np
import pytest
import torch

from moss_audio_tokenizer.training.codec.adversarial import (
    discriminator_loss,
    feature_loss,
    generator_loss,
)
from moss_audio_tokenizer.training.codec.codec_config import ADVERSARIAL_KINDS as KINDS


def maps_of(seed: int) -> list[list[torch.Tensor]]:
    random = torch.Generator().manual_seed(seed)
    shapes = [[(2, 3, 5), (2, 1, 4)], [(2, 2, 7), (2, 6, 3), (2, 1, 9)]]
    return [[torch.randn(shape, generator=random) for shape in of_one] for of_one in shapes]


def slow(kind: str, real, fake) -> tuple[float, float, float]:
    """Element by element, in float64."""
    judged = generated = features = 0.0
    for reals, fakes in zip(real, fake, strict=True):
        r, f = (maps[-1].double().numpy() for maps in (reals, fakes))
        if kind == "lsgan":
            judged += np.mean((1 - r) ** 2) + np.mean(f**2)
            generated += np.mean((1 - f) ** 2)
        else:
            judged += np.mean(np.maximum(0, 1 - r)) + np.mean(np.maximum(0, 1 + f))
            generated += np.mean(-f)
        for left, right in zip(reals[:-1], fakes[:-1], strict=True):
            features += np.mean(np.abs(left.double().numpy() - right.double().numpy()))
    return judged, generated, features


@pytest.mark.parametrize("kind", KINDS)
def test_sums_over_discriminators_of_means_over_maps(kind):
    real, fake = maps_of(0), maps_of(1)
    expected = slow(kind, real, fake)
    got = (
        discriminator_loss(real, fake, kind),
        generator_loss(fake, kind),
        feature_loss(real, fake),
    )
    np.testing.assert_allclose([float(value) for value in got], expected, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_discriminator_loses_nothing(kind):
    low = 0.0 if kind == "lsgan" else -1.0
    real, fake = [[torch.ones(2, 1, 5)]], [[torch.full((2, 1, 5), low)]]
    assert float(discriminator_loss(real, fake, kind)) == 0


def test_features_of_recordings_are_targets():
    real, fake = maps_of(0), maps_of(1)
    for maps in (real, fake):
        for of_one in maps:
            for item in of_one:
                item.requires_grad_()
    feature_loss(real, fake).backward()
    assert all(item.grad is None for of_one in real for item in of_one)
    assert all(item.grad is not None for of_one in fake for item in of_one[:-1])
    assert all(of_one[-1].grad is None for of_one in fake)
