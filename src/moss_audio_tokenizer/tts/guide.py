"""Speech that is told its place in the text: which token is being said in each frame.

Owns how a place is shown to both Transformers, the loss by which frames learn when the next
token's turn comes, and the way through a text while it is spoken. Ours, not the paper's: small
data cannot teach a model to find its way from codes alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

_STD = 0.02
STAYS, MOVES_ON = 0, 1


@dataclass(frozen=True)
class Places:
    """What is being said in the frames of a batch.

    Attributes:
        said: the token of each frame.
        begins: frames in which their token is new.
        told: frames of which this is known; neither those of a prompt nor padding.
    """

    said: Int[Tensor, "batch frames"]
    begins: Bool[Tensor, "batch frames"]
    told: Bool[Tensor, "batch frames"]

    @classmethod
    def of_rows(
        cls, rows: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]], first: Sequence[int]
    ) -> "Places":
        """Rows right-padded to the longest.

        Args:
            rows: for each frame the number of the token that is being said, never falling.
            tokens: of each row, with that of the end behind them.
            first: frame of each row from which on the place is told.
        """
        shape = len(rows), max(map(len, rows))
        said = torch.zeros(shape, dtype=torch.long)
        begins, told = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
        for row, (numbers, ids, start) in enumerate(zip(rows, tokens, first, strict=True)):
            own = torch.tensor(list(numbers), dtype=torch.long)
            said[row, : len(own)] = torch.tensor(list(ids))[own]
            begins[row, 1 : len(own)] = own.diff() > 0
            begins[row, start] = True
            told[row, start : len(own)] = True
        return cls(said, begins, told)

    def to(self, device: torch.device) -> "Places":
        """The same on a device."""
        return Places(self.said.to(device), self.begins.to(device), self.told.to(device))


class PlaceGuide(nn.Module):
    """Shows a place, and scores whether speech moves on to the next token.

    Args:
        num_tokens: of texts, that of the end included.
        width: channels of the temporal Transformer.
    """

    def __init__(self, num_tokens: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(num_tokens, width)
        self.beginning = nn.Parameter(torch.randn(width) * _STD)
        self.moves = nn.Linear(width, 2)
        nn.init.normal_(self.tokens.weight, std=_STD)

    def forward(
        self, said: Int[Tensor, "*rows"], begins: Bool[Tensor, "*rows"]
    ) -> Float[Tensor, "*rows width"]:
        """What is added to a frame's input in time, and to its first one in depth."""
        shown: Tensor = self.tokens(said) + begins[..., None] * self.beginning
        return shown

    def of_places(self, places: Places) -> Float[Tensor, "batch frames width"]:
        """The same for a batch; zero where nobody tells."""
        return self(places.said, places.begins) * places.told[..., None]

    def loss_sum(
        self, states: Float[Tensor, "batch frames width"], places: Places
    ) -> Float[Tensor, ""]:
        """Cross-entropy of moving on, summed over the told frames behind the first.

        Args:
            states: of the temporal Transformer before each frame.
            places: of the frames.
        """
        decided = places.told.clone()
        decided[:, 1:] &= places.told[:, :-1]
        decided[:, 0] = False
        wanted = torch.where(places.begins, MOVES_ON, STAYS)[decided]
        return F.cross_entropy(self.moves(states[decided]).float(), wanted, reduction="sum")


class Walk:
    """Where each row of a batch is in its text: token by token, leaving none out.

    Args:
        guide: of the model.
        tokens: of each row, with that of the end behind them.
        first: number of the token that each row says first.
    """

    def __init__(
        self, guide: PlaceGuide, tokens: Sequence[Sequence[int]], first: Sequence[int]
    ) -> None:
        device = guide.beginning.device
        self._guide = guide
        self._last = torch.tensor([len(row) - 1 for row in tokens], device=device)
        self._ids = nn.utils.rnn.pad_sequence(
            [torch.tensor(list(row), device=device) for row in tokens], batch_first=True
        )
        self._place = torch.tensor(list(first), device=device)
        self._begun = False

    def scores(self, hidden: Float[Tensor, "rows width"]) -> Float[Tensor, "rows 2"]:
        """Of staying and of moving on, before the next frame."""
        scores: Tensor = self._guide.moves(hidden).float()
        return scores

    def step(self, moves: Int[Tensor, "rows"]) -> Float[Tensor, "rows width"]:
        """Into the next frame; what it shows. The first one takes no move."""
        moving = (moves == MOVES_ON) & (self._place < self._last) & self._begun
        self._place = self._place + moving
        begins = moving if self._begun else torch.ones_like(moving)
        self._begun = True
        shown: Tensor = self._guide(self.said, begins)
        return shown

    @property
    def said(self) -> Int[Tensor, "rows"]:
        """The token that each row is saying."""
        return self._ids.gather(1, self._place[:, None])[:, 0]

    @property
    def may_end(self) -> Bool[Tensor, "rows"]:
        """Rows that have come to their last token."""
        return self._place >= self._last - 1
