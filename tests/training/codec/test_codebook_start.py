from itertools import pairwise

import pytest
import torch

from moss_audio_tokenizer.config import QuantizerConfig
from moss_audio_tokenizer.errors import TrainingError
from moss_audio_tokenizer.model.quantizer import ResidualQuantizer
from moss_audio_tokenizer.training.codec.codebooks import start_from_data

WIDTH, ROWS, LAYERS = 12, 32, 4


def make_quantizer(**changes) -> ResidualQuantizer:
    sizes = {"num_quantizers": LAYERS, "codebook_size": ROWS, "codebook_dim": 5} | changes
    quantizer = ResidualQuantizer(QuantizerConfig(WIDTH, WIDTH, WIDTH, **sizes))
    random = torch.Generator().manual_seed(0)
    for parameter in quantizer.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=random)
    return quantizer.requires_grad_(requires_grad=False)


def make_hidden(rows: int = 2000) -> torch.Tensor:
    """Gaussian frames with an offset, wider in some directions than in others."""
    random = torch.Generator().manual_seed(1)
    scales = torch.linspace(3.0, 0.3, WIDTH)
    return torch.randn(rows, WIDTH, generator=random) * scales + 2.0


def start(quantizer: ResidualQuantizer, hidden: torch.Tensor, seed: int = 2) -> list[float]:
    return start_from_data(quantizer, hidden, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["rlfq", "rvq"])
def test_every_layer_leaves_less_energy(kind):
    left = start(make_quantizer(quantizer_type=kind), make_hidden())
    assert len(left) == LAYERS
    assert left[0] < 0.5
    assert all(after < before for before, after in pairwise(left))


@pytest.mark.parametrize("kind", ["rlfq", "rvq"])
def test_what_is_left_is_what_the_quantizer_then_leaves(kind):
    quantizer, hidden = make_quantizer(quantizer_type=kind), make_hidden()
    left = start(quantizer, hidden)
    codes = quantizer.encode(hidden[None])
    for depth in (1, LAYERS):
        error = hidden - quantizer.decode(codes[:depth])[0]
        share = float(error.square().mean() / hidden.square().mean())
        assert share == pytest.approx(left[depth - 1], rel=0.02)


def test_the_codes_of_every_layer_are_well_used():
    quantizer, hidden = make_quantizer(), make_hidden()
    start(quantizer, hidden)
    for codes in quantizer.encode(hidden[None]):
        counts = torch.bincount(codes.flatten(), minlength=ROWS).double()
        shares = counts[counts > 0] / counts.sum()
        assert torch.exp(-(shares * shares.log()).sum()) > 0.7 * ROWS


def test_the_start_follows_from_the_generator_alone():
    first, second, third = make_quantizer(), make_quantizer(), make_quantizer()
    for quantizer, seed in ((first, 2), (second, 2), (third, 3)):
        start(quantizer, make_hidden(), seed)
    assert torch.equal(first.codebooks, second.codebooks)
    assert not torch.equal(first.codebooks, third.codebooks)


def test_constant_frames_are_borne():
    quantizer = make_quantizer()
    start(quantizer, torch.ones(100, WIDTH))
    assert all(torch.isfinite(parameter).all() for parameter in quantizer.parameters())


def test_a_quantizer_without_projections_is_refused():
    with pytest.raises(TrainingError, match="without projections"):
        start(make_quantizer(codebook_dim=WIDTH), make_hidden())
