"""A frame of codes as one vector: the sum of an embedding of each codebook in use.

Owns the tables, full or of low rank, and their initialization from the codec's own vectors.
Source: the paper's equation 8.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import ConfigError

_STD = 0.02


class CodeEmbedding(nn.Module):
    """An embedding table for each codebook, and the sums of their vectors.

    Args:
        num_quantizers: number of codebooks.
        codebook_size: number of entries of each.
        width: channels of the vectors.
        rank: 0 learns every vector by itself; otherwise a table is the product of
            (codebook_size, rank) and (rank, width), as the codec's own vectors are. Rare codes
            are then learned from less data.

    Raises:
        ConfigError: the rank is larger than that of a full table.
    """

    def __init__(self, num_quantizers: int, codebook_size: int, width: int, rank: int = 0) -> None:
        super().__init__()
        if rank > min(codebook_size, width):
            raise ConfigError(
                f"code_rank is {rank}; expected at most {min(codebook_size, width)} for tables of "
                f"{codebook_size} vectors of width {width}, or 0 for full tables"
            )
        self.num_quantizers, self.codebook_size = num_quantizers, codebook_size
        self.rows = nn.Parameter(torch.empty(num_quantizers, codebook_size, rank or width))
        self.maps = nn.Parameter(torch.empty(num_quantizers, rank, width)) if rank else None
        self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """Set vectors to normal values of standard deviation 0.02."""
        if self.maps is None:
            self.rows.normal_(std=_STD)
        else:
            self.rows.normal_()
            self.maps.normal_(std=_STD / self.maps.shape[1] ** 0.5)

    @property
    def width(self) -> int:
        """Channels of the vectors."""
        return (self.rows if self.maps is None else self.maps).shape[-1]

    @property
    def tables(self) -> Float[Tensor, "num_quantizers codebook_size width"]:
        """The vector of every code of every codebook."""
        return self.rows if self.maps is None else self.rows @ self.maps

    def forward(
        self,
        codes: Int[Tensor, "num_quantizers batch frames"],
        kept: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch frames width"]:
        """The sum over the codebooks in use.

        Args:
            codes: codes of the first codebooks; those beyond ``kept`` are ignored.
            kept: number of codebooks in use of each row; None for all.
        """
        layers, batch, frames = codes.shape
        firsts = torch.arange(layers, device=codes.device) * self.codebook_size
        bags = (codes + firsts[:, None, None]).permute(1, 2, 0)
        used = torch.full((batch,), layers, device=codes.device) if kept is None else kept
        weights = (torch.arange(layers, device=codes.device) < used[:, None])[:, None]
        if self.maps is not None:
            # One product of all low-rank vectors: full tables would be 100 times the work.
            thin = F.embedding(bags, self.rows.flatten(0, 1)) * weights[..., None]
            return thin.flatten(2) @ self.maps[:layers].flatten(0, 1)
        spread = weights.expand(-1, frames, -1).reshape(-1, layers).to(self.rows.dtype)
        sums = F.embedding_bag(
            bags.reshape(-1, layers),
            self.rows.flatten(0, 1),
            mode="sum",
            per_sample_weights=spread,
        )
        return sums.view(batch, frames, self.width)

    def of_layer(self, codes: Int[Tensor, "*rows"], layer: int) -> Float[Tensor, "*rows width"]:
        """The vectors of one codebook's codes."""
        vectors = F.embedding(codes, self.rows[layer])
        return vectors if self.maps is None else vectors @ self.maps[layer]

    def of_layers(self, codes: Int[Tensor, "layers rows"]) -> Float[Tensor, "layers rows width"]:
        """The vectors of the first codebooks' codes, in one call."""
        firsts = torch.arange(len(codes), device=codes.device) * self.codebook_size
        vectors = F.embedding(codes + firsts[:, None], self.rows.flatten(0, 1))
        return vectors if self.maps is None else vectors @ self.maps[: len(codes)]

    @torch.no_grad()
    def start_from(
        self, vectors: Float[Tensor, "num_quantizers codebook_size latent"], seed: int = 0
    ) -> None:
        """Initialize with a rotation of the codec's own vectors, scaled like random tables.

        Codes that sound alike then begin alike, which a small data set could not teach.

        Args:
            vectors: what each code adds to the decoder's input
                (`ResidualQuantizer.code_vectors`).
            seed: seed of the rotation.
        """
        vectors = vectors[: self.num_quantizers]
        vectors = vectors - vectors.mean(1, keepdim=True)
        turned = vectors @ _rotation(vectors.shape[-1], self.width, seed)
        turned = turned * (_STD * len(vectors) ** 0.5 / turned.square().mean((1, 2)).sum().sqrt())
        if self.maps is None:
            self.rows.copy_(turned)
            return
        rank = self.maps.shape[1]
        left, singular, right = torch.linalg.svd(turned, full_matrices=False)
        rows = left[..., :rank] * singular[:, None, :rank]
        # Unit variance, as random tables have: an optimizer's steps are absolute.
        size = rows.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-8)
        self.rows.copy_(rows / size)
        self.maps.copy_(right[:, :rank] * size)


@torch.no_grad()
def code_coordinates(
    vectors: Float[Tensor, "num_quantizers codebook_size latent"], dim: int
) -> Float[Tensor, "num_quantizers codebook_size dim"]:
    """Vectors of codes in ``dim`` numbers: distances within a codebook are kept.

    Args:
        vectors: what each code adds to the decoder's input (`ResidualQuantizer.code_vectors`).
        dim: number of dimensions that the vectors of a codebook span, or more.
    """
    centered = vectors.float() - vectors.float().mean(1, keepdim=True)
    left, singular, _ = torch.linalg.svd(centered, full_matrices=False)
    return left[..., :dim] * singular[:, None, :dim]


def _rotation(inputs: int, outputs: int, seed: int) -> Float[Tensor, "inputs outputs"]:
    """The first rows and columns of a random rotation."""
    random = torch.Generator().manual_seed(seed)
    square = torch.randn(max(inputs, outputs), max(inputs, outputs), generator=random)
    return torch.linalg.qr(square)[0][:inputs, :outputs]
