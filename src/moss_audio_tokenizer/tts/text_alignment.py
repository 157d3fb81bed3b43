"""Explicit text alignment of CAT-TTS: the text token of each frame, and how long it still lasts.

Owns how an alignment conditions both Transformers, and the loss of predicted durations; the
cursor that moves through a text during generation is `speech.token_frames`. An addition of this
project for small data sets, off in the paper's recipe: an hour of speech does not teach a model
to find its way through a text. A token's duration is predicted when the token begins, so that
unclear speech of the model's own cannot stop the cursor.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

_STD = 0.02
# Number of different durations: up to 2.6 s at 12.5 Hz.
MAX_DURATION = 32


@dataclass(frozen=True)
class TokenAlignment:
    """The text token of every frame of a batch.

    Attributes:
        tokens: text token of each frame.
        begins: whether the frame is the first of its token.
        remaining: number of frames of the same token that follow, at most ``MAX_DURATION - 1``.
        conditioned: whether the model is conditioned on the alignment in this frame; false for
            frames of a prompt and for padding.
    """

    tokens: Int[Tensor, "batch frames"]
    begins: Bool[Tensor, "batch frames"]
    remaining: Int[Tensor, "batch frames"]
    conditioned: Bool[Tensor, "batch frames"]

    @classmethod
    def from_rows(
        cls, rows: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]], first: Sequence[int]
    ) -> "TokenAlignment":
        """The alignment of a batch, right-padded to the longest row.

        Args:
            rows: for each frame the index of its token in the text, in ascending order.
            tokens: text tokens of each row, followed by the end token.
            first: first conditioned frame of each row; the number of frames for none.
        """
        shape = len(rows), max(map(len, rows))
        current, remaining = (torch.zeros(shape, dtype=torch.long) for _ in range(2))
        begins, conditioned = (torch.zeros(shape, dtype=torch.bool) for _ in range(2))
        for row, (indices, ids, start) in enumerate(zip(rows, tokens, first, strict=True)):
            own = torch.tensor(list(indices), dtype=torch.long)
            current[row, : len(own)] = torch.tensor(list(ids))[own]
            begins[row, 1 : len(own)] = own.diff() > 0
            # Empty where the row is unconditioned: it then starts behind the last frame.
            begins[row, start : start + 1] = True
            last = torch.searchsorted(own, own, right=True) - 1
            remaining[row, : len(own)] = (last - torch.arange(len(own))).clamp_max(MAX_DURATION - 1)
            conditioned[row, start : len(own)] = True
        return cls(current, begins, remaining, conditioned)

    def to(self, device: torch.device) -> "TokenAlignment":
        """The same alignment on a device."""
        return TokenAlignment(*(item.to(device) for item in astuple(self)))


class DurationPredictor(nn.Module):
    """Embeds an alignment, and predicts how many frames a token lasts.

    Names of the parameters are keys of saved models.

    Args:
        num_tokens: number of text tokens, the end token included.
        width: channels of the temporal Transformer.
    """

    def __init__(self, num_tokens: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(num_tokens, width)
        self.left = nn.Embedding(MAX_DURATION, width)
        self.beginning = nn.Parameter(torch.randn(width) * _STD)
        self.context = nn.Linear(width, width)
        self.durations = nn.Linear(width, MAX_DURATION)
        for table in (self.tokens, self.left):
            nn.init.normal_(table.weight, std=_STD)

    def forward(
        self,
        tokens: Int[Tensor, "*rows"],
        begins: Bool[Tensor, "*rows"],
        remaining: Int[Tensor, "*rows"],
    ) -> Float[Tensor, "*rows width"]:
        """The alignment embedding, added to the temporal input and to the first depth input."""
        embedded: Tensor = (
            self.tokens(tokens) + self.left(remaining) + begins[..., None] * self.beginning
        )
        return embedded

    def embed(self, alignment: TokenAlignment) -> Float[Tensor, "batch frames width"]:
        """The embeddings of a batch; zero in frames that are not conditioned."""
        embedded: Tensor = self(alignment.tokens, alignment.begins, alignment.remaining)
        return embedded * alignment.conditioned[..., None]

    def scores(
        self, states: Float[Tensor, "rows width"], tokens: Int[Tensor, "rows"]
    ) -> Float[Tensor, "rows durations"]:
        """Logits of the number of frames behind the first frame of a token.

        Args:
            states: output of the temporal Transformer before the token begins.
            tokens: the token that begins.
        """
        hidden = F.silu(self.context(states) + self.tokens(tokens))
        scores: Tensor = self.durations(hidden).float()
        return scores

    def loss_sum(
        self, states: Float[Tensor, "batch frames width"], alignment: TokenAlignment
    ) -> Float[Tensor, ""]:
        """Cross-entropy of durations, summed over conditioned frames in which a token begins.

        Args:
            states: output of the temporal Transformer before each frame.
            alignment: of the frames.
        """
        first = alignment.begins & alignment.conditioned
        scores = self.scores(states[first], alignment.tokens[first])
        return F.cross_entropy(scores, alignment.remaining[first], reduction="sum")
