"""Initialization of the quantizer from data: principal directions and k-means, layer by layer.

Each layer looks at the directions in which the residual of the layers before it varies most, and
its codebook is fitted there, so that every layer reduces the error from the first step on. The
quantizer compares directions only (cosine), so one of the code's dimensions is set to a constant
far larger than the others' spread: seen from the origin the data then lie on a nearly flat patch,
and the nearest direction is the nearest point.

`Fitting` also decides when this happens in a run, and when the low-band pass-through is opened.
With several processes each one fits the same to the same samples.
"""

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...errors import TrainingError
from ...model.codec import Codec
from ...model.quantizer import LayeredLinear, ResidualQuantizer
from ..data.audio_data import AudioData
from ..distributed import Processes, set_state, whole_state
from .codec_config import TrainingConfig
from .codec_state import Training
from .low_band import start_low_band

_FLATNESS = 4.0
_ITERATIONS = 12
# Weight norm ignores this length, but the longer a direction, the slower a step turns it.
_DIRECTION_LENGTH = 10.0


@torch.no_grad()
def start_from_data(
    quantizer: ResidualQuantizer,
    hidden: Float[Tensor, "samples width"],
    generator: torch.Generator,
) -> list[float]:
    """Initialize every layer in turn from samples of the encoder's output.

    Args:
        quantizer: changed in place; needs the projections of each layer.
        hidden: samples, at least as many as a codebook has entries.
        generator: draws the first centers.

    Returns:
        The share of the hidden states' energy left after each layer.
    """
    if quantizer.in_projs is None:
        raise TrainingError("a quantizer without projections cannot start from data")
    residual = quantizer.input_proj(hidden.float())
    total = residual.square().mean()
    # One unit for all layers: with a unit of its own, a deep layer would magnify every step that
    # the encoder and the layers before it take, and training would diverge.
    unit = 1 / (residual - residual.mean(0)).norm(dim=1).square().mean().sqrt().clamp_min(1e-6)
    left = []
    for layer in range(quantizer.config.num_quantizers):
        residual = _start_layer(quantizer, layer, residual, unit, generator)
        left.append(float(residual.square().mean() / total))
    return left


def _start_layer(
    quantizer: ResidualQuantizer,
    layer: int,
    residual: Tensor,
    unit: Tensor,
    generator: torch.Generator,
) -> Tensor:
    code_dim = quantizer.config.codebook_dim
    mean = residual.mean(0)
    directions = _principal_directions(residual - mean, code_dim - 1)
    points = (residual - mean) @ directions * unit
    centers = _kmeans(points, quantizer.config.codebook_size, generator)
    flat = _FLATNESS * points.square().sum(1).mean().sqrt().clamp_min(1e-6)
    quantizer.codebooks[layer, :, :-1] = centers
    quantizer.codebooks[layer, :, -1] = flat
    # The constant's row and column keep a direction, with next to no length.
    inwards = torch.cat((directions.T * unit, directions.T[-1:] * 1e-3))
    bias = torch.cat((-(directions.T @ mean) * unit, flat[None]))
    _set_linear(quantizer.in_projs, layer, inwards, bias)
    outwards = torch.cat((directions / unit, directions[:, -1:] * 1e-3), dim=1)
    _set_linear(quantizer.out_projs, layer, outwards, mean - outwards[:, -1] * flat)
    chosen = centers[torch.cdist(points, centers).argmin(1)]
    return residual - mean - chosen @ directions.T / unit


def _principal_directions(centerd: Tensor, count: int) -> Tensor:
    _, vectors = torch.linalg.eigh(centerd.T @ centerd / len(centerd))
    return vectors[:, -count:].flip(1)


def _kmeans(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Lloyd's iterations from random points; an empty center moves to a random point."""
    centers = points[torch.randperm(len(points), generator=generator)[:count]].clone()
    for _ in range(_ITERATIONS):
        owner = torch.cdist(points, centers).argmin(1)
        sizes = torch.bincount(owner, minlength=count)
        sums = torch.zeros_like(centers).index_add_(0, owner, points)
        centers = sums / sizes.clamp_min(1)[:, None]
        empty = (sizes == 0).nonzero().squeeze(1)
        fresh = torch.randint(len(points), (len(empty),), generator=generator)
        centers[empty] = points[fresh]
    return centers


def _set_linear(linear: LayeredLinear | None, layer: int, weight: Tensor, bias: Tensor) -> None:
    if linear is None:
        return
    linear.direction[layer] = F.normalize(weight, dim=-1) * _DIRECTION_LENGTH
    linear.gain[layer] = weight.norm(dim=-1)
    linear.bias[layer] = bias


# Batches that fit come from here on, far behind any step of training.
_CALIBRATION_STEP = 1 << 40
_LOW_BAND_ROWS = 256


class Fitting:
    """Fits what the warm start of a recipe asks for.

    Args:
        config: the recipe.
        data: the training data, whose batches are the samples.
        report: a function that is called with a line about what was fitted.
    """

    def __init__(
        self, config: TrainingConfig, data: AudioData, report: Callable[[str], None]
    ) -> None:
        self._config = config
        self._data = data
        self._report = report

    def before_step(self, step: int, run: Training, processes: Processes) -> None:
        """Fit everything that is due before ``step``."""
        if step == 0 and self._config.warm_start.low_band:
            self._open_low_band(run, processes)
        if self._quantizer_due(step):
            self._fit_quantizer(run, processes)

    def _open_low_band(self, run: Training, processes: Processes) -> None:
        codec = Codec(run.task.codec.config)
        codec.load_state_dict(whole_state(run.task.codec))
        batches = itertools.count(_CALIBRATION_STEP)
        audio: list[Tensor] = []
        while sum(map(len, audio)) < _LOW_BAND_ROWS:
            batch = self._data.batch(next(batches))
            audio += [torch.from_numpy(rows) for rows in processes.gather(batch.audio)]
        length = min(rows.shape[-1] for rows in audio)
        audio = [rows[..., :length] for rows in audio]
        counts = start_low_band(codec, torch.cat(audio), self._config.warm_start.low_band)
        set_state(run.task.codec, whole_state(codec))
        if run.mean is not None:
            run.mean.restart()
        shown = ", ".join(map(str, counts))
        self._report(f"low band given {shown} channels in the stages of the encoder")

    def _quantizer_due(self, step: int) -> bool:
        start, decoder_only = self._config.warm_start, self._config.decoder_only_from
        past = step - start.steps
        if not start.samples or past < 0 or 0 < decoder_only < step:
            return False
        again = start.refit_every > 0 and past % start.refit_every == 0
        return past == 0 or again or step == decoder_only

    def _fit_quantizer(self, run: Training, processes: Processes) -> None:
        codec = run.shipped_codec(processes, mean=False)
        hidden = self._hidden_frames(codec, processes)
        random = torch.Generator().manual_seed(self._config.seed)
        quantizer = ResidualQuantizer(codec.quantizer.config)
        quantizer.load_state_dict(codec.quantizer.state_dict())
        left = start_from_data(quantizer, hidden, random)
        set_state(run.task.codec.quantizer, whole_state(quantizer))
        # The optimizer's moments and the mean belong to the weights that were there before.
        for parameter in run.task.codec.quantizer.parameters():
            run.optimizer.state.pop(parameter, None)
        if run.task.codebooks is not None:
            run.task.codebooks.restart()
        if run.mean is not None:
            run.mean.restart("quantizer.")
        shown = ", ".join(f"{2**n}: {left[2**n - 1]:.3f}" for n in range(len(left).bit_length()))
        self._report(f"quantizer fitted to {len(hidden)} frames; energy left after layer {shown}")

    @torch.no_grad()
    def _hidden_frames(self, codec: Codec, processes: Processes) -> Tensor:
        """At least as many frames of the encoder's output as wanted, in float32, on the CPU."""
        wanted = self._config.warm_start.samples
        was_training = codec.training
        codec.eval()
        frames: list[Tensor] = []
        for step in itertools.count(_CALIBRATION_STEP):
            batch = self._data.batch(step)
            hidden = codec.require_encoder()(torch.from_numpy(batch.audio).to(processes.device))
            hop = codec.config.downsample_rate
            mine = [row[: -(-n // hop)].cpu() for row, n in zip(hidden, batch.lengths, strict=True)]
            frames += [row for rows in processes.gather(mine) for row in rows]
            if sum(map(len, frames)) >= wanted:
                break
        codec.train(was_training)
        return torch.cat(frames)
