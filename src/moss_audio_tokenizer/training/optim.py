"""Optimizers, their learning rate, and the parts of an optimizer step that all trainers share.

Owns AdamW, Muon and their combination, the schedule, gradient clipping, means over processes, the
check that losses are finite, and the moving average of weights. Knows nothing of losses or data.
Muon is that of Jordan et al. 2024 (kellerjordan.github.io/posts/muon), whose constants these are;
its step size follows arXiv 2502.16982. PyTorch's own Muon takes one matrix after another, which on
a GPU is a quarter of all kernels that a small codec's training step launches; this one takes all
matrices of a shape at once.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..errors import ConfigError, TrainingError
from ..model.transformer import Block
from .distributed import Processes, spread_like, whole
from .run_config import OptimizerConfig


class Optimizers:
    """Optimizers of different parameters, used as one.

    Attributes:
        param_groups: the parameter groups of all of them.
        state: the state of all of them, by parameter.
    """

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self._parts = parts
        self.param_groups: list[dict[str, Any]] = [g for part in parts for g in part.param_groups]
        self.state: defaultdict[Any, Any] = defaultdict(dict)
        for part in parts:
            part.state = self.state

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none)

    def step(self) -> None:
        """One step of each."""
        for part in self._parts:
            part.step()


# One optimizer, or several used as one.
Optimizing: TypeAlias = torch.optim.Optimizer | Optimizers


def begin_step(optimizer: Optimizing, rate: float) -> None:
    """Clear the gradients of the last step, and set the learning rate of this one."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)


def clip_gradients(parameters: Iterable[nn.Parameter]) -> float:
    """Clip the gradients to norm 1; returns their norm before, of sharded ones too."""
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    return float(whole(torch.nn.utils.clip_grad_norm_(trained, 1.0)))


def means(values: dict[str, Tensor], processes: Processes) -> dict[str, float]:
    """Means over the processes. Collective: every rank must call this, with the same names."""
    names = sorted(values)
    stacked = torch.stack([values[name].detach().float() for name in names])
    return dict(zip(names, processes.mean(stacked).tolist(), strict=True))


def mean_tokens(counts: Sequence[float], processes: Processes) -> float:
    """Targets of a pass, on average over all passes and processes; never 0, to divide by.

    Args:
        counts: the number of targets of each pass of this process.
        processes: the processes of the run.
    """
    mean = torch.tensor(sum(counts) / len(counts), device=processes.device)
    return max(1.0 / len(counts), float(processes.mean(mean)))


def require_finite(
    scalars: dict[str, float], names: Sequence[str], step: int, processes: Processes
) -> None:
    """Refuse numbers that would spoil the weights. Collective: every rank must call this.

    Args:
        scalars: the scalars of a step, the same in all processes.
        names: the names of the rows in this process's batch.
        step: the number of the step, from 1 on.
        processes: the processes of the run.

    Raises:
        TrainingError: some are not finite; the message names step and rows.
    """
    if all(math.isfinite(value) for value in scalars.values()):
        return
    shown = ", ".join(f"{name} {value:g}" for name, value in scalars.items())
    files = ", ".join(name for rows in processes.gather(list(names)) for name in rows)
    raise TrainingError(
        f"step {step} is not finite ({shown}) on rows of {files}; lower "
        "optimizer.learning_rate, or look at these files, and continue with --resume"
    )


# Of the quintic that drives all singular values towards 1.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_SMALLEST_NORM = 1e-7
# Makes a step as large as AdamW's usually is, so that one learning rate does for both.
_STEP_RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Decoupled weight decay, Nesterov momentum, and updates with singular values near 1.

    Args:
        matrices: of any shapes; those without a gradient stay as they are.
        lr: learning rate, in the size of AdamW's.
        weight_decay: share of a matrix, times ``lr``, that a step takes off it.
        momentum: of the running mean of gradients.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of all matrices that have a gradient."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            of_shape = defaultdict[torch.Size, list[Tensor]](list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    of_shape[matrix.shape].append(matrix)
            for matrices in of_shape.values():
                self._step_together(matrices, group)

    def _step_together(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        """A step of matrices of one shape."""
        rate, momentum = group["lr"], group["momentum"]
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        means = [self._running_mean(matrix) for matrix in matrices]
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        updates = orthogonal(torch.stack(torch._foreach_lerp(gradients, means, momentum)))
        size = rate * _STEP_RMS * max(matrices[0].shape) ** 0.5
        torch._foreach_mul_(matrices, 1 - rate * group["weight_decay"])
        torch._foreach_add_(matrices, list(updates.to(matrices[0].dtype)), alpha=-size)

    def _running_mean(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        return state["momentum_buffer"]


def orthogonal(
    matrices: Float[Tensor, "count rows columns"],
) -> Float[Tensor, "count rows columns"]:
    """U V^T of each matrix U S V^T, nearly, in bfloat16: singular values end around 1."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.bfloat16()
    x = x.transpose(1, 2) if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(_SMALLEST_NORM)
    a, b, c = _QUINTIC
    for _ in range(_ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


def learning_rate_at(step: int, max_steps: int, config: OptimizerConfig) -> float:
    """Linear warm-up, a plateau, then decay to zero over the last part, in the recipe's shape."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    decay_steps = config.decay_fraction * max_steps
    if config.schedule == "cosine":
        decay_steps = min(decay_steps, max_steps - config.warmup_steps)
    left = min(1.0, max(0.0, (max_steps - step) / max(1.0, decay_steps)))
    decay = left if config.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2
    return config.learning_rate * warmup * decay


def make_optimizer(module: nn.Module, config: OptimizerConfig, kind: str = "adamw") -> Optimizers:
    """AdamW on all parameters, or Muon on what it is for: matrices within Transformer blocks.

    Parameters without a gradient stay as they are.

    Args:
        module: the module whose parameters are optimized.
        config: learning rate, weight decay and the rest.
        kind: "adamw", or "muon".

    Raises:
        ConfigError: Muon is asked for a module without blocks of a codec.
    """
    matrices = _matrices(module) if kind == "muon" else []
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


class WeightAverage:
    """Exponential moving average: mean += (1 - decay) * (weights - mean), after every step.

    Args:
        module: the module whose weights are averaged; the average starts with their values.
        decay: the decay in each step; close to 1 means a long memory.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self._decay = decay
        self._means = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights to the average."""
        weights = [parameter.detach() for parameter in self._module.parameters()]
        torch._foreach_lerp_(list(self._means.values()), weights, 1 - self._decay)

    @torch.no_grad()
    def restart(self, prefix: str = "") -> None:
        """Start over with the current weights of all names with a prefix, after they were set."""
        for name, parameter in self._module.named_parameters():
            if name.startswith(prefix):
                self._means[name].copy_(parameter)

    def whole_state(self) -> dict[str, Tensor]:
        """The averages by name on the CPU. Collective: every rank must call this."""
        return {name: whole(mean).cpu() for name, mean in self._means.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from a saved state."""
        for name, parameter in self._module.named_parameters():
            self._means[name] = spread_like(state[name], parameter.detach())
