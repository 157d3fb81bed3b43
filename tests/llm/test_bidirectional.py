"""The encoder without causality."""

import torch

from moss_audio_tokenizer.llm.bidirectional import BidirectionalEncoder


def test_every_step_sees_all_others_but_no_padding() -> None:
    """Both directions count, the padding does not, and the batch does not either."""
    torch.manual_seed(0)
    encoder = BidirectionalEncoder(64, num_layers=2, kernel=3).eval()
    x = torch.randn(2, 9, 64)
    counts = torch.tensor([9, 6])
    states = encoder(x, counts)[-1]
    alone = encoder(x[1:, :6], counts[1:])[-1]
    torch.testing.assert_close(states[1:, :6], alone)
    changed = x.clone()
    changed[1, 7] = torch.randn(64)
    torch.testing.assert_close(encoder(changed, counts)[-1][1, :6], states[1, :6])
    for step in (0, 8):
        moved = x.clone()
        moved[0, step] = torch.randn(64)
        assert not torch.allclose(encoder(moved, counts)[-1][0, 4], states[0, 4])


def test_states_of_every_block_are_returned() -> None:
    """One entry a block; the last is normalized."""
    encoder = BidirectionalEncoder(64, num_layers=3).eval()
    states = encoder(torch.randn(1, 5, 64), torch.tensor([5]))
    assert len(states) == 3
    torch.testing.assert_close(states[-1].mean(-1), torch.zeros(1, 5), atol=1e-5, rtol=0)
