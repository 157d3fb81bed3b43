import pytest
import torch

from moss_audio_tokenizer.tts import SequenceDropout

ROWS = 20_000


def shares(dropout: SequenceDropout) -> torch.Tensor:
    kept = dropout.draw(ROWS, 4, torch.Generator().manual_seed(0))
    return torch.bincount(kept, minlength=5)[1:] / ROWS


@pytest.mark.parametrize(
    ("dropout", "expected"),
    [
        (SequenceDropout(0.0), [0, 0, 0, 1]),
        (SequenceDropout(1.0), [1 / 4, 1 / 4, 1 / 4, 1 / 4]),
        (SequenceDropout(1.0, include_full=False), [1 / 3, 1 / 3, 1 / 3, 0]),
        (SequenceDropout(0.5, include_full=False), [1 / 6, 1 / 6, 1 / 6, 1 / 2]),
    ],
)
def test_shares_are_those_of_the_paper(dropout, expected):
    torch.testing.assert_close(shares(dropout), torch.tensor(expected).float(), atol=0.02, rtol=0)


def test_one_layer_alone_stays():
    random = torch.Generator().manual_seed(0)
    assert SequenceDropout(1.0, include_full=False).draw(5, 1, random).tolist() == [1] * 5
