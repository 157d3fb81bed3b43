"""Codes drawn from predictions, and the gradient that passes through them."""

import pytest
import torch
from tiny_tts import spoken_tts

from moss_audio_tokenizer.tts.drawn_codes import drawn_codes


@pytest.fixture(scope="module")
def model():
    made = spoken_tts()
    with torch.no_grad():
        for head in made.depth.exits[1:]:
            head[-1].weight.normal_(generator=torch.Generator().manual_seed(1))
    return made


def start_of(model, frames: int) -> torch.Tensor:
    shape = frames, 2, model.code_embedding.width
    return torch.randn(shape, generator=torch.Generator().manual_seed(2)).requires_grad_()


def test_codes_are_drawn_by_their_probabilities(model):
    """Of equal frames the first codes are as frequent as likely, and the next depend on them."""
    one = start_of(model, 1).detach()
    drawn = drawn_codes(model.depth, model.code_embedding, one.expand(4000, -1, -1), 2, 0)
    likely = model.depth.scores(model.depth(one)[:, 1], 1).softmax(-1)[0]
    torch.testing.assert_close(drawn[0].mean(0), likely, atol=0.03, rtol=0)
    first = int(likely.argmax())
    known = torch.cat((one, model.code_embedding.of_layer(torch.tensor([[first]]), 0)), 1)
    following = model.depth.scores(model.depth(known)[:, 2], 2).softmax(-1)[0]
    behind = drawn[1][drawn[0, :, first] > 0.5].mean(0)
    torch.testing.assert_close(behind, following, atol=0.08, rtol=0)


def test_values_are_one_hot_and_the_same_for_a_seed(model):
    start = start_of(model, 20)
    drawn, again, other = (
        drawn_codes(model.depth, model.code_embedding, start, 3, seed) for seed in (5, 5, 6)
    )
    torch.testing.assert_close(drawn.sort(-1)[0][..., -1], torch.ones(3, 20))
    torch.testing.assert_close(drawn.sum(-1), torch.ones(3, 20))
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, other)


def test_the_gradient_is_that_of_the_probabilities(model):
    start, prices = start_of(model, 4), torch.arange(8.0)
    drawn = drawn_codes(model.depth, model.code_embedding, start, 1, 0)
    (found,) = torch.autograd.grad((drawn[0] * prices).sum(), start)
    likely = model.depth.scores(model.depth(start)[:, 1], 1).softmax(-1)
    (expected,) = torch.autograd.grad((likely * prices).sum(), start)
    torch.testing.assert_close(found, expected)
    assert float(found.abs().max()) > 0
