"""The optimiser and its learning rate. Source: training.md section 5."""

import math

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from ..errors import ConfigError
from ..model.transformer import Block
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
        ConfigError: Muon is asked for weights in shares.
    """
    parameters = list(module.parameters())
    shared = any(isinstance(parameter, DTensor) for parameter in parameters)
    matrices: list[nn.Parameter] = []
    if config.kind == "muon":
        if shared:
            raise ConfigError("optimizer.kind is 'muon' with shard; set optimizer.kind=adamw")
        blocks = (block for block in module.modules() if isinstance(block, Block))
        matrices = [p for block in blocks for p in block.parameters() if p.ndim == 2]
    chosen = set(matrices)
    adamw = torch.optim.AdamW(
        [parameter for parameter in parameters if parameter not in chosen],
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        foreach=shared,
        fused=not shared,
    )
    if not matrices:
        return Optimizers(adamw)
    # Its steps have the size of AdamW's, so that one learning rate does for both.
    muon = torch.optim.Muon(
        matrices,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return Optimizers(adamw, muon)
