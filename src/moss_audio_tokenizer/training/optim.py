"""The optimiser and its learning rate. Source: training.md section 5."""

import math

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from ..errors import ConfigError
from ..model.transformer import Block
from .muon import Muon
from .optimisation import Optimizers
from .run_config import OptimizerConfig


def learning_rate_at(step: int, max_steps: int, config: OptimizerConfig) -> float:
    """Linear warm-up, a plateau, then decay to zero over the last part, in the recipe's shape."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    decay_steps = config.decay_fraction * max_steps
    if config.schedule == "cosine":
        decay_steps = min(decay_steps, max_steps - config.warmup_steps)
    left = min(1.0, max(0.0, (max_steps - step) / max(1.0, decay_steps)))
    decay = left if config.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2
    return config.learning_rate * warmup * decay


def make_optimizer(module: nn.Module, config: OptimizerConfig) -> Optimizers:
    """AdamW on all parameters, or Muon on what it is for: matrices within Transformer blocks.

    Parameters without a gradient stay as they are.

    Raises:
        ConfigError: Muon is asked for a module without blocks of a codec.
    """
    matrices = _matrices(module) if config.kind == "muon" else []
    chosen = set(matrices)
    adamw = _adamw([item for item in module.parameters() if item not in chosen], config)
    if not matrices:
        return Optimizers(adamw)
    return Optimizers(adamw, Muon(matrices, config.learning_rate, config.weight_decay))


def _matrices(module: nn.Module) -> list[nn.Parameter]:
    blocks = (block for block in module.modules() if isinstance(block, Block))
    found = [item for block in blocks for item in block.parameters() if item.ndim == 2]
    if not found:
        raise ConfigError(
            "optimizer.kind is 'muon', which is for a codec's blocks; expected 'adamw' here"
        )
    return found


def _adamw(parameters: list[nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    # Fused where that is much faster; elsewhere it would keep its count of steps on the device.
    fused = all(item.device.type == "cpu" and not isinstance(item, DTensor) for item in parameters)
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        foreach=not fused,
        fused=fused,
    )
