"""Codes drawn from what CAT-TTS predicts, through which a gradient passes back to the predictions.

For a loss by what a CAT-ASR recognizes in them. An addition of this project for small data sets,
off in the paper's recipe.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..llm import CodeEmbedding
from .depth import DepthTransformer


def drawn_codes(
    depth: DepthTransformer,
    embedding: CodeEmbedding,
    start: Float[Tensor, "frames 2 width"],
    count: int,
    seed: int,
) -> Float[Tensor, "count frames codebook_size"]:
    """The first codes of frames, drawn one after another by their probabilities, as one-hot rows.

    The straight-through estimator (Bengio et al. 2013): the values are those of the drawn codes,
    the gradient is that of their probabilities.

    Args:
        depth: the depth Transformer.
        embedding: embeddings of the codes.
        start: what precedes the codes of each frame: the temporal state, and the continuation
            vector with the frame's condition.
        count: number of codebooks to draw from.
        seed: seed of the draws.
    """
    codes = _draw(depth, embedding, start, count, seed)
    known = embedding.of_layers(codes[:-1]).transpose(0, 1).detach().to(start.dtype)
    states = depth(torch.cat((start, known), 1))
    rows = []
    for layer, own in enumerate(codes):
        likely = depth.scores(states[:, layer + 1], layer + 1).softmax(-1)
        rows.append(F.one_hot(own, likely.shape[-1]) + likely - likely.detach())
    return torch.stack(rows)


@torch.no_grad()
def _draw(
    depth: DepthTransformer, embedding: CodeEmbedding, start: Tensor, count: int, seed: int
) -> Int[Tensor, "count frames"]:
    random, steps, codes = torch.Generator(start.device).manual_seed(seed), start, []
    for layer in range(count):
        likely = depth.scores(depth(steps)[:, -1], layer + 1).softmax(-1)
        codes.append(torch.multinomial(likely, 1, generator=random)[:, 0])
        drawn = embedding.of_layer(codes[-1], layer).to(steps.dtype)
        steps = torch.cat((steps, drawn[:, None]), 1)
    return torch.stack(codes)
