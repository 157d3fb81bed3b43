import copy

import pytest
import torch

from moss_audio_tokenizer.training.optim import Muon, orthogonal

SHAPES = [(8, 4), (4, 8), (8, 4), (6, 6), (8, 4)]


def matrices(seed: int = 0) -> list[torch.nn.Parameter]:
    random = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=random)) for shape in SHAPES]


def train(parameters, optimizer, steps=3):
    random = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=random)
        optimizer.step()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch has a Muon since 2.9")
def test_its_steps_are_those_of_pytorch():
    ours = matrices()
    theirs = copy.deepcopy(ours)
    train(ours, Muon(ours, lr=0.01, weight_decay=0.1))
    reference = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    train(theirs, reference)
    for one, other, start in zip(ours, theirs, matrices(), strict=True):
        # The products are in bfloat16, and a batch of them adds up in another order.
        assert (one - other).norm() < 0.02 * (other - start).norm()


@pytest.mark.parametrize("shape", [(3, 16, 5), (3, 5, 16), (2, 7, 7)])
def test_singular_values_come_near_to_one(shape):
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    values = torch.linalg.svdvals(orthogonal(noise).float())
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_no_gradient_no_change_and_a_zero_one_is_finite():
    parameters = matrices()
    before = copy.deepcopy(parameters)
    parameters[1].grad = torch.zeros_like(parameters[1])
    Muon(parameters, lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(parameters[1].detach(), before[1].detach() * 0.95)
    for place in (0, 2, 3, 4):
        assert torch.equal(parameters[place], before[place])


def test_a_closure_is_refused():
    with pytest.raises(ValueError, match="no closure"):
        Muon(matrices(), lr=0.1).step(lambda: None)
