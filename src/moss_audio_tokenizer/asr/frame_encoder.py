"""The bidirectional encoder of a CAT-ASR for little data, with CTC heads for letters and phonemes.

Owns the scores of each step and the CTC loss (Graves et al. 2006). A frame of 80 ms may hold more
than one letter, so that each frame has `TICKS` steps. The phonemes are read from an inner state,
which teaches the encoder to listen before it learns to spell.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..llm.bidirectional import BidirectionalEncoder
from ..speech.phonemes import PHONEMES, TICKS

# The phonemes are read this many blocks before the last.
_BLOCKS_AFTER_PHONEMES = 2
LEAST_LAYERS, MOST_ENCODER_LAYERS = _BLOCKS_AFTER_PHONEMES + 1, 128


class FrameScores(NamedTuple):
    """CTC log-probabilities, `TICKS` steps a frame; the blank is the last class.

    Attributes:
        letters: of the text tokens.
        phonemes: of `PHONEMES`.
    """

    letters: Float[Tensor, "batch steps letters"]
    phonemes: Float[Tensor, "batch steps phonemes"]


class FrameEncoder(nn.Module):
    """Scores of letters and phonemes by all frames of a clip.

    Args:
        width: channels, a multiple of 64.
        num_layers: number of blocks, at least `LEAST_LAYERS`.
        dropout: probability of dropout.
        num_tokens: number of text tokens.
    """

    def __init__(self, width: int, num_layers: int, dropout: float, num_tokens: int) -> None:
        super().__init__()
        self.input_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.encoder = BidirectionalEncoder(width, num_layers, dropout=dropout)
        self.letter_head = nn.Linear(width, TICKS * (num_tokens + 1))
        self.phoneme_norm = nn.LayerNorm(width)
        self.phoneme_head = nn.Linear(width, TICKS * (len(PHONEMES) + 1))

    def forward(
        self,
        frames: Float[Tensor, "batch frames width"],
        num_frames: Sequence[int],
        visible: Bool[Tensor, "batch frames"] | None = None,
    ) -> FrameScores:
        """The scores of both heads.

        Args:
            frames: sums of the embeddings of their codes, right-padded.
            num_frames: number of frames of each row without padding. Later steps are undefined.
            visible: frames that are an input; None for all.
        """
        x = self.input_norm(frames)
        if visible is not None:
            x = x * visible[..., None].to(x.dtype)
        counts = torch.tensor(list(num_frames), device=x.device)
        states = self.encoder(self.dropout(x), counts)
        inner = self.phoneme_norm(states[-1 - _BLOCKS_AFTER_PHONEMES])
        return FrameScores(
            _log_probabilities(self.letter_head(states[-1])),
            _log_probabilities(self.phoneme_head(inner)),
        )


def _log_probabilities(
    logits: Float[Tensor, "batch frames classes_of_ticks"],
) -> Float[Tensor, "batch steps classes"]:
    batch, frames, width = logits.shape
    return logits.float().view(batch, TICKS * frames, width // TICKS).log_softmax(-1)


def ctc_losses(
    scores: FrameScores,
    num_frames: Sequence[int],
    letters: Sequence[Sequence[int]],
    phonemes: Sequence[Sequence[int]],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
    """CTC losses of both heads, summed over rows.

    Args:
        scores: scores of both heads.
        num_frames: number of frames of each row without padding.
        letters: text tokens of each row.
        phonemes: phonemes of each row; empty where they are unknown.

    Returns:
        The loss of the letters, and of the phonemes; None without a row whose phonemes are known.
    """
    steps = [TICKS * count for count in num_frames]
    letter_loss = ctc_loss(scores.letters, steps, letters)
    known = [row for row, of_row in enumerate(phonemes) if of_row]
    if not known:
        return letter_loss, None
    of_known = scores.phonemes[torch.tensor(known, device=scores.phonemes.device)]
    own_steps, own_phonemes = [steps[row] for row in known], [phonemes[row] for row in known]
    return letter_loss, ctc_loss(of_known, own_steps, own_phonemes)


def ctc_loss(
    scores: Float[Tensor, "batch steps classes"],
    num_steps: Sequence[int],
    targets: Sequence[Sequence[int]],
) -> Float[Tensor, ""]:
    """CTC loss summed over rows; a row with more targets than steps counts as 0.

    Args:
        scores: log-probabilities; the blank is the last class.
        num_steps: number of steps of each row without padding.
        targets: classes of each row, in order.
    """
    flat = [target for row in targets for target in row]
    return F.ctc_loss(
        scores.transpose(0, 1),
        torch.tensor(flat, device=scores.device, dtype=torch.long),
        torch.tensor(list(num_steps)),
        torch.tensor([len(row) for row in targets]),
        blank=scores.shape[-1] - 1,
        reduction="sum",
        # A text with more tokens than steps has no alignment.
        zero_infinity=True,
    )
