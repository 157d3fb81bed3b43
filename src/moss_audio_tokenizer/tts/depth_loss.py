"""Losses of the depth Transformer of CAT-TTS: of the codes of frames, and of the end of speech.

Owns how all codes of many frames are computed at once. Knows nothing of time or text.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..llm import CodeEmbedding
from ..speech.tts_generation import CONTINUE, END
from .code_loss import CodeLoss
from .depth import DepthTransformer

_GROUPS = 4


@dataclass(frozen=True, eq=False)
class PredictedFrames:
    """Frames whose codes count in the loss, and what the depth Transformer knows of each.

    Attributes:
        hidden: states of the temporal Transformer.
        first: the inputs behind these: the continuation vector, with the frame's condition.
        codes: codes to be predicted, and those of further codebooks for soft targets.
        kept: number of codebooks that count.
    """

    hidden: Float[Tensor, "rows width"]
    first: Float[Tensor, "rows width"]
    codes: Int[Tensor, "stored rows"]
    kept: Int[Tensor, "rows"]

    def by_kept(self) -> "PredictedFrames":
        """The same frames, those that keep most codebooks first."""
        kept, order = self.kept.sort(descending=True, stable=True)
        # On the CPU: otherwise every codebook would wait for the GPU.
        return PredictedFrames(
            self.hidden[order], self.first[order], self.codes[:, order], kept.cpu()
        )


def loss_of_ends(
    depth: DepthTransformer,
    states: Float[Tensor, "batch steps width"],
    counts: Int[Tensor, "batch"],
) -> tuple[Float[Tensor, ""], int]:
    """Cross-entropy of all decisions to continue or to end, and their number.

    The decision is to continue before every frame, and to end after the last.

    Args:
        depth: the depth Transformer.
        states: of the temporal Transformer.
        counts: number of frames of each row.
    """
    positions = torch.arange(states.shape[1], device=states.device)
    decisions = positions <= counts[:, None]
    hidden = depth(states[decisions][:, None])[:, 0]
    wanted = torch.where(positions < counts[:, None], CONTINUE, END)[decisions]
    loss = F.cross_entropy(depth.scores(hidden, 0), wanted, reduction="sum")
    return loss, len(wanted)


def loss_of_codes(
    depth: DepthTransformer, embedding: CodeEmbedding, frames: PredictedFrames, how: CodeLoss
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The loss of the kept codes, and how many the model ranks first, both with weights.

    Args:
        depth: the depth Transformer.
        embedding: embeddings of the codes that it has predicted so far.
        frames: the frames, in any order.
        how: how codes count.
    """
    loss, correct = frames.hidden.sum() * 0.0, frames.hidden.new_zeros(())
    frames = frames.by_kept()
    states, kept = _states(depth, embedding, frames), frames.kept
    counts = [int((kept > layer).sum()) for layer in range(int(kept.max()) if len(kept) else 0)]
    for layer, spread in enumerate(how.spreads(frames.codes, counts)):
        rows, weight = counts[layer], how.weight(layer)
        outputs = torch.cat([part[:, layer + 1] for part in states if part.shape[1] > layer + 1])
        scores, codes = depth.scores(outputs[:rows], layer + 1), frames.codes[layer, :rows]
        loss = loss + weight * how.of_codebook(scores, codes, spread)
        correct = correct + weight * (scores.detach().argmax(-1) == codes).sum()
    return loss, correct


def _states(
    depth: DepthTransformer, embedding: CodeEmbedding, frames: PredictedFrames
) -> list[Float[Tensor, "rows steps inner"]]:
    """The depth Transformer's states of groups of frames, as many steps as a group keeps codes.

    Frames that keep about as many codes are a group: fewer codes are computed in vain.
    """
    states = []
    for group in torch.arange(len(frames.kept)).tensor_split(_GROUPS):
        if not len(group):
            continue
        rows = slice(int(group[0]), int(group[-1]) + 1)
        most = int(frames.kept[rows.start])
        known = embedding.of_layers(frames.codes[: max(0, most - 1), rows]).transpose(0, 1)
        start = torch.stack((frames.hidden[rows], frames.first[rows]), 1)
        states.append(depth(torch.cat((start, known), 1)))
    return states
