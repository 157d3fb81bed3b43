"""The loss of codes in the training of CAT-TTS: soft targets, and weights of codebooks.

Both are additions of this project for small data sets, off in the paper's recipe. Knows the codec's
vectors of codes, and nothing of the model that predicts the codes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import log

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ConfigError
from ..model.quantizer import without_autocast

# Of the search of a scale, around one over the spread of the logits: far beyond what can be needed.
_SEARCH_RANGE = 1e6
_SEARCH_STEPS = 40


@dataclass(frozen=True, eq=False)
class SoftTargets:
    """Targets that are spread over codes which sound alike.

    The target of codebook l is (1 - share) one-hot + share softmax(-scale_l d^2 / 2). d is the
    distance, in the codec's latent space, between the vector of a code and the residual that the
    codec quantized: the sum of the vectors of a frame's codes from codebook l on.

    Attributes:
        vectors: vectors of the codes of all stored codebooks (`ResidualQuantizer.code_vectors`),
            also of those that the model does not predict.
        share: share of the target that is spread, 0 to 1.
        scales: sharpness of each codebook that the model predicts (`calibrated`).
    """

    vectors: Float[Tensor, "stored codebook_size latent"]
    share: float
    scales: tuple[float, ...]

    @classmethod
    def calibrated(
        cls,
        vectors: Float[Tensor, "stored codebook_size latent"],
        share: float,
        entropy: float,
        codes: Int[Tensor, "stored frames"],
        num_quantizers: int,
    ) -> "SoftTargets":
        """Soft targets whose spread part has a given entropy in every codebook.

        Args:
            vectors: vectors of all stored codes.
            share: share of the target that is spread, 0 to 1.
            entropy: mean entropy of the spread part in nats.
            codes: codes of the frames over which the mean is taken.
            num_quantizers: number of codebooks that the model predicts.

        Raises:
            ConfigError: the codebooks have too few codes for this entropy.
        """
        most = log(vectors.shape[1])
        if not 0 < entropy < most:
            raise ConfigError(
                f"soft_targets.entropy is {entropy:g}; expected above 0 and below {most:.2f} nats, "
                f"the entropy of {vectors.shape[1]} equally likely codes"
            )
        flat = cls(vectors, share, (1.0,) * num_quantizers)
        counts = [codes.shape[1]] * num_quantizers
        scales = [_scale(logits, entropy) for logits in flat._logits(codes, counts)]
        return replace(flat, scales=tuple(scales))

    def spreads(
        self, codes: Int[Tensor, "stored rows"], counts: Sequence[int]
    ) -> Iterator[Float[Tensor, "count codebook_size"]]:
        """The spread part of the targets, codebook by codebook.

        Args:
            codes: all stored codes of frames.
            counts: number of frames of each codebook, the first ones; not more than of the one
                before.
        """
        for logits in self._logits(codes, counts):
            yield logits.softmax(-1)

    @torch.no_grad()
    def _logits(self, codes: Tensor, counts: Sequence[int]) -> Iterator[Tensor]:
        """-scale d^2 / 2, but for what is the same for all codes of a codebook."""
        residual = _sum_of(self.vectors, codes)
        for layer, (vectors, count) in enumerate(zip(self.vectors, counts, strict=False)):
            residual = residual[:count]
            # In 32 bits: distances are small differences of large products.
            with without_autocast(residual):
                nearness = residual @ vectors.T - vectors.square().sum(-1) / 2
            yield nearness * self.scales[layer]
            residual = residual - vectors[codes[layer, :count]]


def _sum_of(vectors: Tensor, codes: Tensor) -> Float[Tensor, "rows latent"]:
    """The sum over all codebooks."""
    total = torch.zeros(codes.shape[1], vectors.shape[-1], device=vectors.device)
    for own, chosen in zip(vectors, codes, strict=True):
        total = total + own[chosen]
    return total


def _scale(logits: Float[Tensor, "frames codebook_size"], entropy: float) -> float:
    """The factor by which the logits get a mean entropy."""
    middle = 1 / max(float(logits.std(-1).mean()), 1e-30)
    low, high = middle / _SEARCH_RANGE, middle * _SEARCH_RANGE
    for _ in range(_SEARCH_STEPS):
        middle = (low * high) ** 0.5
        likely = (logits * middle).log_softmax(-1)
        found = float(-(likely.exp() * likely).sum(-1).mean())
        low, high = (middle, high) if found > entropy else (low, middle)
    return middle


@dataclass(frozen=True, eq=False)
class CodeLoss:
    """How codes count in the loss of CAT-TTS; by default as in the paper, all alike.

    Attributes:
        half_weight_at: codebook, counted from 0, whose codes count half as much as those of the
            first: codebook l has the weight 1 / (1 + l / half_weight_at). 0 for equal weights.
        soft_targets: targets that are spread over similar codes; None for the codes alone.
    """

    half_weight_at: float = 0.0
    soft_targets: SoftTargets | None = None

    def weight(self, layer: int) -> float:
        """What a code of a codebook counts."""
        return 1 / (1 + layer / self.half_weight_at) if self.half_weight_at else 1.0

    def weight_of_first(self, kept: Int[Tensor, "rows"]) -> Float[Tensor, "rows"]:
        """What the codes of the first ``kept`` codebooks of a frame, 1 or more, count together."""
        weights = [self.weight(layer) for layer in range(int(kept.max()))]
        return torch.tensor(weights, dtype=torch.float64).cumsum(0)[kept - 1]

    def spreads(
        self, codes: Int[Tensor, "stored rows"], counts: Sequence[int]
    ) -> Iterator[Float[Tensor, "count codebook_size"] | None]:
        """The spread parts of soft targets (`SoftTargets.spreads`); None for each without any."""
        if self.soft_targets is None:
            return iter([None] * len(counts))
        return self.soft_targets.spreads(codes, counts)

    def of_codebook(
        self,
        scores: Float[Tensor, "rows codebook_size"],
        codes: Int[Tensor, "rows"],
        spread: Float[Tensor, "rows codebook_size"] | None,
    ) -> Float[Tensor, ""]:
        """Cross-entropy of one codebook's codes, summed over rows, without its weight."""
        loss = F.cross_entropy(scores, codes, reduction="sum")
        if spread is None or self.soft_targets is None:
            return loss
        share = self.soft_targets.share
        return (1 - share) * loss + share * F.cross_entropy(scores, spread, reduction="sum")
