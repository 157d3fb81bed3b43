"""The text encoder of CAT-TTS for small data sets: phonemes, their durations, and conditions.

An addition of this project, off in the paper's recipe: hours of speech do not teach a decoder-only
model to find its way through a text. A bidirectional Transformer reads the phonemes and predicts
how long each lasts, in ticks (`speech.phonemes`). Each frame is conditioned on the phonemes of its
ticks, so that no word can be left out or repeated. NumPy's side of it is `speech.text_conditions`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..errors import ConfigError
from ..llm.bidirectional import HEAD_DIM, BidirectionalEncoder
from ..speech.phonemes import NUM_TOKENS, TICKS, Schedule

# Number of different durations: up to 1.7 s.
MAX_DURATION = 64
_KERNEL = 5
_TOKEN_STD, _STD = 0.1, 0.02


@dataclass(frozen=True)
class SpokenRow:
    """What is said in a row of a batch, and when.

    Attributes:
        tokens: phoneme tokens (`speech.phonemes.Lexicon.tokens`).
        durations: duration of each in ticks; together all ticks from ``first_frame`` on.
        first_frame: first frame that says the text; the frames before it are the prompt.
        conditioned: whether the frames are conditioned on the text.
    """

    tokens: Sequence[int]
    durations: Sequence[int]
    first_frame: int = 0
    conditioned: bool = True


class TextEncoder(nn.Module):
    """Reads phonemes.

    Names of the parameters are keys of saved models.

    Args:
        width: channels, those of the temporal Transformer.
        num_layers: number of blocks.

    Raises:
        ConfigError: the width is no multiple of the size of a head.
    """

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        if width % HEAD_DIM:
            raise ConfigError(
                f"a text encoder of width {width}; expected a multiple of {HEAD_DIM}: set "
                "model.width to one"
            )
        self.tokens = nn.Embedding(NUM_TOKENS, width)
        self.voice = nn.Linear(width, width)
        self.encoder = BidirectionalEncoder(width, num_layers, _KERNEL)
        self.durations = nn.Linear(width, MAX_DURATION)
        self.conditions = nn.Linear(width, TICKS * width)
        self.remaining = nn.Parameter(torch.randn(TICKS, Schedule.MOST_LEFT + 1, width) * _STD)
        nn.init.normal_(self.tokens.weight, std=_TOKEN_STD)

    def forward(
        self,
        tokens: Int[Tensor, "batch tokens"],
        num_tokens: Int[Tensor, "batch"],
        voice: Float[Tensor, "batch width"],
    ) -> Float[Tensor, "batch tokens width"]:
        """States of the tokens.

        Args:
            tokens: phoneme tokens, right-padded.
            num_tokens: number of tokens of each row without padding.
            voice: of each row (`voice_of`).
        """
        x = self.tokens(tokens) + self.voice(voice)[:, None]
        return self.encoder(x, num_tokens)[-1]

    def frame_conditions(
        self,
        states: Float[Tensor, "batch tokens width"],
        schedules: Sequence[tuple[int, Schedule]],
        num_frames: int,
    ) -> Float[Tensor, "batch frames width"]:
        """What is added to the input that predicts each frame; zero outside the schedules.

        Args:
            states: of the tokens.
            schedules: first frame and schedule of each row.
            num_frames: number of frames of the longest row.
        """
        placed = [_placed(first, schedule, num_frames) for first, schedule in schedules]
        tokens, left, inside = (
            torch.stack(items).to(states.device) for items in zip(*placed, strict=True)
        )
        width = states.shape[-1]
        by_tick = self.conditions(states).unflatten(-1, (TICKS, width))
        total = torch.zeros(*tokens.shape[:2], width, device=states.device)
        for tick in range(TICKS):
            index = tokens[..., tick, None].expand(-1, -1, width)
            said = torch.gather(by_tick[:, :, tick], 1, index)
            total = total + said + F.embedding(left[..., tick], self.remaining[tick])
        return total * inside[..., None]

    def duration_loss_sum(
        self, states: Float[Tensor, "batch tokens width"], rows: Sequence[SpokenRow]
    ) -> Float[Tensor, ""]:
        """Cross-entropy of the durations, summed over the tokens."""
        wanted = padded([row.durations for row in rows], -1).to(states.device)
        scores = self.durations(states).float()
        wanted = wanted.clamp_max(MAX_DURATION - 1)
        return F.cross_entropy(
            scores.flatten(0, 1), wanted.flatten(), ignore_index=-1, reduction="sum"
        )


def _placed(first: int, schedule: Schedule, num_frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """A schedule behind its prompt: tokens, ticks left, and which frames it covers."""
    tokens, left = (torch.zeros(num_frames, TICKS, dtype=torch.long) for _ in range(2))
    inside = torch.zeros(num_frames, dtype=torch.bool)
    own = slice(first, first + len(schedule.tokens))
    tokens[own], left[own] = torch.from_numpy(schedule.tokens), torch.from_numpy(schedule.left)
    inside[own] = True
    return tokens, left, inside


def padded(rows: Sequence[Sequence[int]], value: int) -> Int[Tensor, "batch longest"]:
    """Rows of numbers, right-padded."""
    return pad_sequence([torch.tensor(list(row)) for row in rows], True, value)


def voice_of(
    frames: Float[Tensor, "batch frames width"], num_frames: Int[Tensor, "batch"]
) -> Float[Tensor, "batch width"]:
    """The voice of prompts: the mean of their embedded frames, normalized; zero without a prompt.

    Args:
        frames: embedded frames, those of the prompt first.
        num_frames: number of frames of each prompt.
    """
    inside: Bool[Tensor, "batch frames"]
    inside = torch.arange(frames.shape[1], device=frames.device) < num_frames[:, None]
    count = num_frames.clamp_min(1)[:, None].to(frames.dtype)
    mean = (frames * inside[..., None].to(frames.dtype)).sum(1) / count
    present = (num_frames > 0)[:, None].to(frames.dtype)
    return F.layer_norm(mean, mean.shape[-1:]) * present
