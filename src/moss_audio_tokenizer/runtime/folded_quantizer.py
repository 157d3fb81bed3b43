"""The residual quantizer for inference: everything affine in the codes, folded into tables.

Encoding takes a linear map of the hidden states and, codebook by codebook, subtracts an entry of
a table; decoding gathers codebook entries and multiplies once. Folded in float64, used in
float32, whatever the precision of the codec.
"""

from copy import deepcopy

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..model.quantizer import (
    LayeredLinear,
    ResidualQuantizer,
    WeightNormLinear,
)


class FoldedQuantizer:
    """`ResidualQuantizer.encode` and `.decode` of a quantizer with projections."""

    def __init__(
        self, quantizer: ResidualQuantizer, in_projs: LayeredLinear, out_projs: LayeredLinear
    ) -> None:
        config = quantizer.config
        self.num_quantizers, self.code_dim = config.num_quantizers, config.codebook_dim
        self._offsets = torch.arange(config.num_quantizers)[:, None, None] * config.codebook_size
        self._offsets = self._offsets.to(quantizer.codebooks.device)
        self._rows = quantizer.codebooks.detach().float().flatten(0, 1).clone()
        inwards, in_bias = _in_float64(in_projs)
        outwards, out_bias = _in_float64(out_projs)
        self._fold_decoder(quantizer, outwards, out_bias)
        self._fold_encoder(quantizer, inwards, in_bias)
        rows = quantizer.codebooks.detach().double()
        # What each codebook entry subtracts from the views of the codebooks after it.
        self._changes = [
            ((rows[q] @ outwards[q].T + out_bias[q]) @ inwards[q + 1 :].flatten(0, 1).T).float()
            for q in range(config.num_quantizers - 1)
        ]

    def _fold_decoder(
        self, quantizer: ResidualQuantizer, outwards: Tensor, out_bias: Tensor
    ) -> None:
        biases = out_bias.cumsum(0)
        weight, bias = _affine(quantizer.output_proj, outwards.shape[1], outwards.device)
        self._decode_weight = (weight @ outwards).movedim(0, 1).flatten(1).float()
        self._decode_biases = (biases @ weight.T + bias).float()

    def _fold_encoder(self, quantizer: ResidualQuantizer, inwards: Tensor, in_bias: Tensor) -> None:
        weight, bias = _affine(quantizer.input_proj, inwards.shape[2], inwards.device)
        self._view_weight = (inwards @ weight).flatten(0, 1).float()
        self._view_bias = (inwards @ bias + in_bias).flatten().float()
        tables = quantizer.search_tables(self.num_quantizers)
        self._search, self._half_squares = (table.detach().clone() for table in tables)
        self._by_direction = quantizer.config.quantizer_type == "rlfq"

    def encode(
        self, hidden: Float[Tensor, "batch frames width"], num_quantizers: int
    ) -> Int[Tensor, "num_quantizers batch frames"]:
        """Codes of the first ``num_quantizers`` codebooks."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self._encode(hidden, num_quantizers)

    def _encode(self, hidden: Tensor, num_quantizers: int) -> Tensor:
        used = num_quantizers * self.code_dim
        views = F.linear(hidden.float(), self._view_weight[:used], self._view_bias[:used])
        codes = []
        for layer in range(num_quantizers):
            codes.append(self._nearest(views[..., : self.code_dim], layer))
            if layer + 1 < num_quantizers:
                views = views[..., self.code_dim :]
                change = F.embedding(codes[-1], self._changes[layer])
                views = views.sub_(change[..., : views.shape[-1]])
        return torch.stack(codes)

    def _nearest(self, view: Tensor, layer: int) -> Tensor:
        """The nearest entry; for cosine distance the view's own length changes no choice."""
        scores = F.linear(view, self._search[layer])
        return (scores if self._by_direction else scores.sub_(self._half_squares[layer])).argmax(-1)

    def decode(
        self, codes: Int[Tensor, "num_quantizers batch frames"]
    ) -> Float[Tensor, "batch frames width"]:
        """The decoder's input."""
        layers = len(codes)
        rows = F.embedding((codes + self._offsets[:layers]).movedim(0, -1), self._rows)
        weight = self._decode_weight[:, : layers * self.code_dim]
        with torch.autocast(rows.device.type, enabled=False):
            return F.linear(rows.flatten(-2), weight, self._decode_biases[layers - 1])


def fold_quantizer(quantizer: ResidualQuantizer) -> FoldedQuantizer | ResidualQuantizer:
    """The quantizer in its fastest form; without projections there is nothing to fold."""
    quantizer = deepcopy(quantizer).float()  # a model may have been cast to another type
    if quantizer.in_projs is None or quantizer.out_projs is None:
        return quantizer
    return FoldedQuantizer(quantizer, quantizer.in_projs, quantizer.out_projs)


def _in_float64(layers: LayeredLinear) -> tuple[Tensor, Tensor]:
    return layers.weight.detach().double(), layers.bias.detach().double()


def _affine(module: torch.nn.Module, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Weight and bias, in float64, of a projection that may be the identity."""
    if isinstance(module, WeightNormLinear):
        return module.weight.detach().double(), module.bias.detach().double()
    identity = torch.eye(width, dtype=torch.float64, device=device)
    return identity, identity.new_zeros(width)
