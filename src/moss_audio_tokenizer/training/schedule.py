"""The optimiser and its learning rate. Source: training.md section 5."""

import math

import torch
from torch import nn

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


def make_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW on all parameters; parameters without a gradient stay as they are."""
    return torch.optim.AdamW(
        module.parameters(),
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        foreach=True,
    )
