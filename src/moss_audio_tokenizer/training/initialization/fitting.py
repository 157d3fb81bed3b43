"""When the quantizer, and before it the low band's lane, are fitted to data instead of trained.

Owns the moments and the samples; the arithmetic is `quantizer_start.py`'s. With several
processes each one fits the same to the same samples.
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from ...model.codec import Codec
from ...model.quantizer import ResidualQuantizer
from ..codec.codec_config import TrainingConfig
from ..codec.codec_state import Training
from ..data import TrainingData
from ..distributed import Processes, set_state, whole_state
from .kmeans import start_from_data
from .low_band import start_low_band

# Batches that fit come from here on, far behind any step of training.
_CALIBRATION_STEP = 1 << 40
_LANE_ROWS = 256


class Fitting:
    """Fits what a recipe's warm start asks for.

    Args:
        config: the recipe.
        data: whose batches are the samples.
        report: called with a line of what was fitted.
    """

    def __init__(
        self, config: TrainingConfig, data: TrainingData, report: Callable[[str], None]
    ) -> None:
        self._config = config
        self._data = data
        self._report = report

    def before_step(self, step: int, run: Training, processes: Processes) -> None:
        """Fit whatever is due before ``step``."""
        if step == 0 and self._config.warm_start.low_band:
            self._open_lane(run, processes)
        if self._quantizer_due(step):
            self._fit_quantizer(run, processes)

    def _open_lane(self, run: Training, processes: Processes) -> None:
        codec = Codec(run.task.codec.config)
        codec.load_state_dict(whole_state(run.task.codec))
        batches = itertools.count(_CALIBRATION_STEP)
        audio: list[Tensor] = []
        while sum(map(len, audio)) < _LANE_ROWS:
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
        # The optimiser's moments and the mean belong to the weights that were there before.
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
