"""Codebooks as moving averages."""

from unittest.mock import Mock

import pytest
import torch

from moss_audio_tokenizer.config import QuantizerConfig
from moss_audio_tokenizer.model.quantizer import QuantizerOutput, ResidualQuantizer
from moss_audio_tokenizer.training.codec.codebooks import EmaCodebooks
from moss_audio_tokenizer.training.distributed import Processes

LAYERS, ROWS, DECAY = 2, 4, 0.9
ALONE = Mock(Processes, sum=lambda value: value, gather=lambda item: [item])


@pytest.fixture
def quantizer() -> ResidualQuantizer:
    config = QuantizerConfig(6, 6, 6, num_quantizers=LAYERS, codebook_size=ROWS, codebook_dim=3)
    made = ResidualQuantizer(config)
    with torch.no_grad():
        made.codebooks.copy_(
            torch.randn(LAYERS, ROWS, 3, generator=torch.Generator().manual_seed(0))
        )
    return made


def output(codes: torch.Tensor, views: torch.Tensor) -> QuantizerOutput:
    nothing = torch.zeros(())
    return QuantizerOutput(torch.zeros(*codes.shape[1:], 6), codes, views, nothing, nothing)


def drawn(seed: int, batch: int = 5, frames: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(ROWS, (LAYERS, batch, frames), generator=random)
    return codes, torch.randn(LAYERS, batch, frames, 3, generator=random)


def test_rows_are_means_of_what_chose_them_weighted_by_age(quantizer):
    codebooks = EmaCodebooks(quantizer, DECAY)
    everything = torch.full((5,), LAYERS)
    even = 5 * 7 / ROWS
    counts = torch.full((LAYERS, ROWS), even)
    sums = quantizer.codebooks.detach() * even
    for step in range(20):
        codes, views = drawn(step)
        codebooks.note(output(codes, views), everything, None)
        codebooks.update(ALONE, step)
        for layer in range(LAYERS):
            for row in range(ROWS):
                chose = codes[layer] == row
                counts[layer, row] = DECAY * counts[layer, row] + (1 - DECAY) * chose.sum()
                total = views[layer][chose].sum(0)
                sums[layer, row] = DECAY * sums[layer, row] + (1 - DECAY) * total
    torch.testing.assert_close(codebooks.shares, counts / even)
    torch.testing.assert_close(quantizer.codebooks.detach(), sums / counts[..., None])


def test_layers_out_of_use_and_padding_do_not_count(quantizer):
    before = quantizer.codebooks.detach().clone()
    codebooks = EmaCodebooks(quantizer, DECAY)
    codes, views = drawn(0, batch=1)
    valid = (torch.arange(7) < 3).float()[None]
    codebooks.note(output(codes, views), torch.tensor([1]), valid)
    codebooks.update(ALONE, 0)
    torch.testing.assert_close(quantizer.codebooks[1].detach(), before[1])
    chosen = set(codes[0, 0, :3].tolist())
    for row in range(ROWS):
        moved = not torch.equal(quantizer.codebooks[0, row].detach(), before[0, row])
        assert moved == (row in chosen)


def test_passes_and_processes_change_nothing(quantizer):
    whole = EmaCodebooks(quantizer, DECAY)
    twin = ResidualQuantizer(quantizer.config)
    twin.load_state_dict(quantizer.state_dict())
    halves = EmaCodebooks(twin, DECAY)
    codes, views = drawn(3, batch=4)
    active = torch.tensor([1, 2, 2, 1])
    whole.note(output(codes, views), active, None)
    for part in (slice(0, 2), slice(2, 4)):
        halves.note(output(codes[:, part], views[:, part]), active[part], None)
    whole.update(ALONE, 0)
    halves.update(ALONE, 0)
    torch.testing.assert_close(twin.codebooks, quantizer.codebooks)


def test_a_row_that_nothing_chooses_moves_to_where_something_is(quantizer):
    codebooks = EmaCodebooks(quantizer, DECAY)
    codes, views = drawn(0)
    codes[:] = codes.clamp_max(ROWS - 2)
    for step in range(60):
        codebooks.note(output(codes, views), torch.full((5,), LAYERS), None)
        codebooks.update(ALONE, step)
        if float(codebooks.shares[0, -1]) == pytest.approx(0.3):
            break
    assert 20 < step < 24  # 0.9 ** 22 is a tenth
    points = views[0].flatten(0, 1)
    assert (points == quantizer.codebooks[0, -1].detach()).all(1).any()


def test_no_row_moves_to_padding_and_no_two_to_one_point(quantizer):
    codebooks = EmaCodebooks(quantizer, DECAY)
    codebooks.shares[:, 1:] = 0.01
    codes, views = drawn(0, batch=1)
    valid = (torch.arange(7) < 4).float()[None]
    codebooks.note(output(torch.zeros_like(codes), views), torch.tensor([LAYERS]), valid)
    codebooks.update(ALONE, 0)
    for layer in range(LAYERS):
        moved = quantizer.codebooks[layer, 1:].detach()
        found = (moved[:, None] == views[layer, 0, :4]).all(-1)
        assert found.any(1).all()
        assert int(found.any(0).sum()) == len(moved)


def test_each_layer_revives_its_own_dead_rows(quantizer):
    before = quantizer.codebooks.detach().clone()
    codebooks = EmaCodebooks(quantizer, DECAY)
    codebooks.shares[0, 1] = codebooks.shares[1, 2] = codebooks.shares[1, 3] = 0.01
    codes, views = drawn(0)
    codebooks.note(output(torch.zeros_like(codes), views), torch.full((5,), LAYERS), None)
    codebooks.update(ALONE, 0)
    after = quantizer.codebooks.detach()
    moved = (after != before).any(-1).tolist()
    assert moved == [[True, True, False, False], [True, False, True, True]]
    for layer, row in ((0, 1), (1, 2), (1, 3)):
        assert (views[layer].flatten(0, 1) == after[layer, row]).all(1).any()


def test_dead_rows_beyond_the_points_wait(quantizer):
    before = quantizer.codebooks.detach().clone()
    codebooks = EmaCodebooks(quantizer, DECAY)
    codebooks.shares[:, 1:] = 0.01
    codes, views = drawn(0, batch=1)
    valid = (torch.arange(7) < 2).float()[None]
    codebooks.note(output(torch.zeros_like(codes), views), torch.tensor([LAYERS]), valid)
    codebooks.update(ALONE, 0)
    torch.testing.assert_close(codebooks.shares[0, 1:], torch.tensor([0.3, 0.3, 0.009]))
    assert torch.equal(quantizer.codebooks[:, 3].detach(), before[:, 3])


def test_they_rest_where_they_are_to_stay(quantizer):
    before = quantizer.codebooks.detach().clone()
    codebooks = EmaCodebooks(quantizer, DECAY)
    codebooks.take_over(follows=False)
    codebooks.note(output(*drawn(0)), torch.full((5,), LAYERS), None)
    codebooks.update(ALONE, 0)
    torch.testing.assert_close(quantizer.codebooks.detach(), before)


def test_restarting_forgets_what_was_seen(quantizer):
    codebooks = EmaCodebooks(quantizer, DECAY)
    codebooks.note(output(*drawn(0)), torch.full((5,), LAYERS), None)
    before = quantizer.codebooks.detach().clone()
    codebooks.restart()
    codebooks.update(ALONE, 0)
    torch.testing.assert_close(quantizer.codebooks.detach(), before)
    assert bool((codebooks.shares == 1).all())
