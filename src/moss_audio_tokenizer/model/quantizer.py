"""The residual quantizer: hidden states to codes, codes to hidden states, and its training.

Always in float32. Knows nothing of encoder, decoder or audio. Codebooks are searched in a
low-dimensional projection, as the factorized codes of DAC (Kumar et al., 2023) are.

The residual itself is never formed. Layer c quantizes the view e_c = W_c r_c + b_c, and r_c is
r_1 less the outputs O_j q_j + d_j of the layers before, so

    e_c = (W_c r_1 + b_c) - sum over j < c of (W_c O_j q_j + W_c d_j):

one product of r_1 with all W at once, then small steps in the space of the codes. It is the
same function, with the same gradients, at a fraction of the work.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..config import QuantizerConfig


@dataclass
class QuantizerOutput:
    """The quantizer's results for training.

    Attributes:
        hidden: the decoder's input, from the active layers of each row.
        codes: the codes of all layers, active or not.
        views: the projected residual that each layer quantized.
        commitment_loss: pulls views towards their codebook entries; mean over rows, summed over
            layers.
        codebook_loss: pulls codebook entries towards the views; likewise.
    """

    hidden: Float[Tensor, "batch frames width"]
    codes: Int[Tensor, "num_quantizers batch frames"]
    views: Float[Tensor, "num_quantizers batch frames code_dim"]
    commitment_loss: Float[Tensor, ""]
    codebook_loss: Float[Tensor, ""]


class WeightNormLinear(nn.Module):
    """A linear layer whose rows have a learned length (``gain``) and direction."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.empty(outputs, inputs))
        self.gain = nn.Parameter(torch.empty(outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    @property
    def weight(self) -> Float[Tensor, "outputs inputs"]:
        """Gain * direction / |direction|, row by row."""
        return normalized_rows(self.direction, self.gain)

    def forward(self, x: Tensor) -> Tensor:
        """X W^T + bias."""
        return F.linear(x, self.weight, self.bias)


class LayeredLinear(nn.Module):
    """One `WeightNormLinear` for each quantizer layer, stacked into single tensors."""

    def __init__(self, num_layers: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.empty(num_layers, outputs, inputs))
        self.gain = nn.Parameter(torch.empty(num_layers, outputs))
        self.bias = nn.Parameter(torch.empty(num_layers, outputs))

    @property
    def weight(self) -> Float[Tensor, "layers outputs inputs"]:
        """Gain * direction / |direction|, row by row."""
        return normalized_rows(self.direction, self.gain)


def normalized_rows(direction: Tensor, gain: Tensor) -> Tensor:
    """Rows of ``direction`` scaled to the lengths in ``gain``."""
    return direction * (gain / direction.norm(dim=-1))[..., None]


class ResidualQuantizer(nn.Module):
    """``num_quantizers`` codebooks, each coding what the ones before it left."""

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        layers, width, code_dim = config.num_quantizers, config.rvq_dim, config.codebook_dim
        self.input_proj = _projection(config.input_dim, width)
        self.output_proj = _projection(width, config.output_dim)
        self.codebooks = nn.Parameter(torch.empty(layers, config.codebook_size, code_dim))
        if code_dim == width:
            self.in_projs: LayeredLinear | None = None
            self.out_projs: LayeredLinear | None = None
        else:
            self.in_projs = LayeredLinear(layers, width, code_dim)
            self.out_projs = LayeredLinear(layers, code_dim, width)

    def encode(
        self, hidden: Float[Tensor, "batch frames width"], num_quantizers: int | None = None
    ) -> Int[Tensor, "num_quantizers batch frames"]:
        """The codes of the first ``num_quantizers`` layers (default: all)."""
        layers = self.config.num_quantizers if num_quantizers is None else num_quantizers
        with without_autocast(hidden):
            views = self._views(hidden.float(), layers)
            return torch.stack([codes for codes, _, _ in self._walk(views, layers, exact=True)])

    def decode(
        self, codes: Int[Tensor, "num_quantizers batch frames"]
    ) -> Float[Tensor, "batch frames width"]:
        """The decoder's input: the codebook entries of all layers, projected and summed."""
        with without_autocast(self.codebooks):
            rows = [F.embedding(codes[q], self.codebooks[q]) for q in range(len(codes))]
            return self.output_proj(self._project_rows(rows))

    def code_vectors(self) -> Float[Tensor, "num_quantizers codebook_size width"]:
        """The contribution of each codebook entry to the decoder's input, without the biases."""
        spread: Tensor = self.codebooks
        if self.out_projs is not None:
            spread = spread @ self.out_projs.weight.transpose(1, 2)
        if isinstance(self.output_proj, WeightNormLinear):
            spread = F.linear(spread, self.output_proj.weight)
        return spread

    def forward(
        self,
        hidden: Float[Tensor, "batch frames width"],
        active: Int[Tensor, "batch"] | None = None,
        valid: Float[Tensor, "batch frames"] | None = None,
    ) -> QuantizerOutput:
        """Quantize with straight-through gradients, and compute both quantizer losses.

        Args:
            hidden: the encoder's output.
            active: layers in use for each row (quantizer dropout); all by default.
            valid: 1 for frames that count, 0 for padding; all count by default.
        """
        layers = self.config.num_quantizers
        with without_autocast(hidden):
            hidden = hidden.float()
            active = hidden.new_full(hidden.shape[:1], layers) if active is None else active
            valid = torch.ones_like(hidden[..., 0]) if valid is None else valid
            walk = list(self._walk(self._views(hidden, layers), layers, exact=False))
            masks = [(active > layer).to(hidden.dtype) for layer in range(layers)]
            rows = [
                straight_through(view, row) * mask[:, None, None]
                for (_, view, row), mask in zip(walk, masks, strict=True)
            ]
            quantized = self.output_proj(self._project_rows(rows, torch.stack(masks)))
            pairs = [(view, row) for _, view, row in walk]
            return QuantizerOutput(
                hidden=quantized,
                codes=torch.stack([codes for codes, _, _ in walk]),
                views=torch.stack([view.detach() for _, view, _ in walk]),
                commitment_loss=_layer_loss([(v, r.detach()) for v, r in pairs], masks, valid),
                codebook_loss=_layer_loss([(v.detach(), r) for v, r in pairs], masks, valid),
            )

    def _views(self, hidden: Tensor, layers: int) -> Tensor:
        """W_c r_1 + b_c of every layer c at once: (batch, frames, layers, code_dim)."""
        residual = self.input_proj(hidden)
        if self.in_projs is None:
            return residual[..., None, :].expand(*residual.shape[:-1], layers, -1)
        weight, bias = self.in_projs.weight[:layers], self.in_projs.bias[:layers]
        return F.linear(residual, weight.flatten(0, 1), bias.flatten()).unflatten(-1, (layers, -1))

    def _walk(
        self, views: Tensor, layers: int, exact: bool
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Layer by layer: (codes, view, chosen entries), subtracting each choice from later views.

        ``exact`` subtracts the entry itself; otherwise its straight-through form, for gradients.
        """
        coupling, offset = self._coupling(layers)
        search = self.search_tables(layers)
        for layer in range(layers):
            view = views[..., 0, :]
            codes = self._nearest(view, search, layer)
            row = F.embedding(codes, self.codebooks[layer])
            yield codes, view, row
            if layer + 1 < layers:
                step = row if exact else straight_through(view, row)
                change = F.linear(step, coupling[layer + 1 :, layer].flatten(0, 1))
                change = change + offset[layer + 1 :, layer].flatten()
                views = views[..., 1:, :] - change.unflatten(-1, (layers - layer - 1, -1))

    def _coupling(self, layers: int) -> tuple[Tensor, Tensor]:
        """W_c O_j as (c, j, code_dim, code_dim) for F.linear, and W_c d_j as (c, j, code_dim)."""
        if self.in_projs is None or self.out_projs is None:
            # Made where it is used: a CUDA graph cannot record a copy from the host.
            size, like = self.config.codebook_dim, self.codebooks
            identity = torch.eye(size, dtype=like.dtype, device=like.device)
            coupling = identity.expand(layers, layers, *identity.shape)
            return coupling, coupling.new_zeros(coupling.shape[:-1])
        inwards, outwards = self.in_projs.weight[:layers], self.out_projs.weight[:layers]
        coupling = torch.einsum("cew,jwd->cjed", inwards, outwards)
        offset = torch.einsum("cew,jw->cje", inwards, self.out_projs.bias[:layers])
        return coupling, offset

    def search_tables(self, layers: int) -> tuple[Tensor, Tensor]:
        """The tables of `_nearest`: codebook entries, and half their squared lengths."""
        rows = self.codebooks[:layers].detach()
        if self.config.quantizer_type == "rlfq":
            rows = F.normalize(rows, dim=-1, eps=1e-12)
        return rows, rows.square().sum(-1) / 2

    def _nearest(self, view: Tensor, search: tuple[Tensor, Tensor], layer: int) -> Tensor:
        """Argmin |e - row|^2 = argmax (e . row - |row|^2 / 2)."""
        rows, half_squares = search
        view = view.detach()
        if self.config.quantizer_type == "rlfq":
            view = F.normalize(view, dim=-1, eps=1e-12)
        return (F.linear(view, rows[layer]) - half_squares[layer]).argmax(-1)

    def _project_rows(self, rows: list[Tensor], masks: Tensor | None = None) -> Tensor:
        """Sum over layers of O_c entry + d_c; with masks (layers, batch), of active layers only."""
        if self.out_projs is None:
            return torch.stack(rows).sum(0)
        layers = len(rows)
        weight = self.out_projs.weight[:layers].movedim(0, 1).flatten(1)
        bias = self.out_projs.bias[:layers]
        total = F.linear(torch.cat(rows, dim=-1), weight)
        return total + (bias.sum(0) if masks is None else (masks.T @ bias)[:, None])


def straight_through(view: Tensor, row: Tensor) -> Tensor:
    """The value of the codebook entry, with the gradient of the view."""
    return view + (row - view).detach()


def _layer_loss(pairs: list[tuple[Tensor, Tensor]], masks: list[Tensor], valid: Tensor) -> Tensor:
    """Squared distance, mean over valid frames and channels of a row, over rows; layer sum."""
    weight = valid / valid.sum(1, keepdim=True).clamp_min(1.0)
    losses = [
        ((left - right).square().mean(-1) * weight).sum(1) * mask
        for (left, right), mask in zip(pairs, masks, strict=True)
    ]
    return torch.stack(losses).sum(0).mean()


def _projection(inputs: int, outputs: int) -> nn.Module:
    return nn.Identity() if inputs == outputs else WeightNormLinear(inputs, outputs)


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """What is computed within keeps the precision of its tensors, on the device of ``tensor``."""
    # The meta device, on which shapes are tried out, knows no autocast.
    return nullcontext() if tensor.is_meta else torch.autocast(tensor.device.type, enabled=False)
