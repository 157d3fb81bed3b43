"""Speech that is told its place in the text: which token is said in each frame, and how long yet.

Owns how a place is shown to both Transformers, the loss by which they learn how long tokens last,
and the way through a text while it is spoken. Ours, not the paper's: small data cannot teach a
model to find its way from codes alone. How long a token lasts is decided when it begins: a model
that listens whether it has been said waits for ever where its own speech was not clear.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

_STD = 0.02
# Frames of a token that are told apart: 2.6 s at 12.5 Hz.
LONGEST = 32


@dataclass(frozen=True)
class Places:
    """What is being said in the frames of a batch.

    Attributes:
        said: the token of each frame.
        begins: frames in which their token is new.
        left: frames of the same token behind each, up to ``LONGEST - 1``.
        told: frames of which this is known; neither those of a prompt nor padding.
    """

    said: Int[Tensor, "batch frames"]
    begins: Bool[Tensor, "batch frames"]
    left: Int[Tensor, "batch frames"]
    told: Bool[Tensor, "batch frames"]

    @classmethod
    def of_rows(
        cls, rows: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]], first: Sequence[int]
    ) -> "Places":
        """Rows right-padded to the longest.

        Args:
            rows: for each frame the number of the token that is being said, never falling.
            tokens: of each row, with that of the end behind them.
            first: frame of each row from which on the place is told; their number for none.
        """
        shape = len(rows), max(map(len, rows))
        said, left = (torch.zeros(shape, dtype=torch.long) for _ in range(2))
        begins, told = (torch.zeros(shape, dtype=torch.bool) for _ in range(2))
        for row, (numbers, ids, start) in enumerate(zip(rows, tokens, first, strict=True)):
            own = torch.tensor(list(numbers), dtype=torch.long)
            said[row, : len(own)] = torch.tensor(list(ids))[own]
            begins[row, 1 : len(own)] = own.diff() > 0
            # A row that is told nothing starts behind its end.
            begins[row, start : start + 1] = True
            last = torch.searchsorted(own, own, right=True) - 1
            left[row, : len(own)] = (last - torch.arange(len(own))).clamp_max(LONGEST - 1)
            told[row, start : len(own)] = True
        return cls(said, begins, left, told)

    def to(self, device: torch.device) -> "Places":
        """The same on a device."""
        return Places(*(item.to(device) for item in astuple(self)))


class PlaceGuide(nn.Module):
    """Shows a place, and scores how long a token will last.

    Args:
        num_tokens: of texts, that of the end included.
        width: channels of the temporal Transformer.
    """

    def __init__(self, num_tokens: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(num_tokens, width)
        self.left = nn.Embedding(LONGEST, width)
        self.beginning = nn.Parameter(torch.randn(width) * _STD)
        self.context = nn.Linear(width, width)
        self.durations = nn.Linear(width, LONGEST)
        for table in (self.tokens, self.left):
            nn.init.normal_(table.weight, std=_STD)

    def forward(
        self,
        said: Int[Tensor, "*rows"],
        begins: Bool[Tensor, "*rows"],
        left: Int[Tensor, "*rows"],
    ) -> Float[Tensor, "*rows width"]:
        """What is added to a frame's input in time, and to its first one in depth."""
        shown: Tensor = self.tokens(said) + self.left(left) + begins[..., None] * self.beginning
        return shown

    def of_places(self, places: Places) -> Float[Tensor, "batch frames width"]:
        """The same for a batch; zero where nobody tells."""
        return self(places.said, places.begins, places.left) * places.told[..., None]

    def scores(
        self, states: Float[Tensor, "rows width"], said: Int[Tensor, "rows"]
    ) -> Float[Tensor, "rows durations"]:
        """Of so many frames behind the first of a token.

        Args:
            states: of the temporal Transformer before the token begins.
            said: the token.
        """
        hidden = F.silu(self.context(states) + self.tokens(said))
        scores: Tensor = self.durations(hidden).float()
        return scores

    def loss_sum(
        self, states: Float[Tensor, "batch frames width"], places: Places
    ) -> Float[Tensor, ""]:
        """Cross-entropy of how long tokens last, summed over those that begin and are told.

        Args:
            states: of the temporal Transformer before each frame.
            places: of the frames.
        """
        first = places.begins & places.told
        scores = self.scores(states[first], places.said[first])
        return F.cross_entropy(scores, places.left[first], reduction="sum")


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
        # Before the first token, with nothing left of what was before it.
        self._place = torch.tensor(list(first), device=device) - 1
        self._left = torch.zeros_like(self._place)

    def scores(self, hidden: Float[Tensor, "rows width"]) -> Float[Tensor, "rows durations"]:
        """Of how long the token lasts that would begin in the next frame."""
        return self._guide.scores(hidden, self._token((self._place + 1).minimum(self._last)))

    def step(self, durations: Int[Tensor, "rows"]) -> Float[Tensor, "rows width"]:
        """Into the next frame; what it shows.

        Args:
            durations: frames behind the first, of the tokens that begin now.
        """
        begins = (self._left == 0) & (self._place < self._last)
        self._place = self._place + begins
        self._left = torch.where(begins, durations, (self._left - 1).clamp_min(0))
        shown: Tensor = self._guide(self.said, begins, self._left)
        return shown

    def _token(self, place: Int[Tensor, "rows"]) -> Int[Tensor, "rows"]:
        return self._ids.gather(1, place[:, None])[:, 0]

    @property
    def said(self) -> Int[Tensor, "rows"]:
        """The token that each row is saying."""
        return self._token(self._place)

    @property
    def may_end(self) -> Bool[Tensor, "rows"]:
        """Rows that have come to the end of their last token."""
        return (self._place == self._last) | ((self._place == self._last - 1) & (self._left == 0))
