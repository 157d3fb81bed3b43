"""The optimiser and its learning rate. Source: training.md section 5."""

import torch
from torch import nn

from .config import OptimizerConfig


def learning_rate_at(step: int, max_steps: int, config: OptimizerConfig) -> float:
    """Linear warm-up, a plateau, then linear decay to zero over the last part."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    decay_steps = max(1.0, config.decay_fraction * max_steps)
    decay = min(1.0, (max_steps - step) / decay_steps)
    return config.learning_rate * warmup * max(0.0, decay)


def make_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW on all parameters; parameters without a gradient stay as they are."""
    return torch.optim.AdamW(
        module.parameters(),
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        foreach=True,
    )
