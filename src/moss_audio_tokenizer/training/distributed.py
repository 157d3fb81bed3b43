"""The processes of a run: one, or several that hold copies (DDP) or shards (FSDP2) of the weights.

Owns devices, ranks, collectives, full tensors out of sharded ones, and SIGTERM as a request to
stop; Accelerate finds out which processes take part. Knows nothing of codecs.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ..errors import ConfigError, MossAudioError, TrainingError

_GLOO_SECONDS = 0.2

Result = TypeVar("Result")


class Processes:
    """This process among those of the run.

    Args:
        device: "auto", "cpu" or "cuda".
        shard: whether weights are sharded; needs more than one process.

    Attributes:
        rank: the rank of this process; the first is 0.
        world: the number of processes.
        device: the device of this process.
        sharded: whether weights are sharded.

    Raises:
        ConfigError: the device is not there, or one process is to share with itself.
    """

    def __init__(self, device: str = "auto", shard: bool = False) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device is 'cuda', but PyTorch sees no GPU; set device=cpu")
        # Left to itself, accelerate takes each of several processes without a GPU for the only one.
        on_cpu = device == "cpu" or ("WORLD_SIZE" in os.environ and not torch.cuda.is_available())
        # Parts of the model rest at times: the quantizer in the warm start, what is frozen.
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        self._accelerator = Accelerator(cpu=on_cpu, kwargs_handlers=[unused])
        self.rank: int = self._accelerator.process_index
        self.world: int = self._accelerator.num_processes
        self.device: torch.device = self._accelerator.device
        self.sharded = shard
        if shard and self.world == 1:
            raise ConfigError("shard is set, but there is one process; start several with torchrun")

    @property
    def first(self) -> bool:
        """Whether this one writes and reports."""
        return self.rank == 0

    def distribute(self, module: nn.Module, blocks: Iterable[nn.Module]) -> nn.Module:
        """The module to call in place of ``module``; ``blocks`` are sharded one by one."""
        if not self.sharded:
            return self._accelerator.prepare_model(module)
        mesh = init_device_mesh(self.device.type, (self.world,))
        for block in blocks:
            fully_shard(block, mesh=mesh)
        # The root's own weights stay whole from the forward to the backward pass.
        fully_shard(module, mesh=mesh, reshard_after_forward=False)
        return module

    def waiting(self, distributed: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Gradients are exchanged only in the ``last`` of the passes of a step."""
        if self.world == 1:
            return nullcontext()
        if self.sharded:
            distributed.set_requires_gradient_sync(last)  # type: ignore[operator]
            return nullcontext()
        return nullcontext() if last else self._accelerator.no_sync(distributed)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes."""
        return self.sum(value) / self.world

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.world == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    def average_gradients(self, module: nn.Module) -> None:
        """For a module that every process holds whole and calls by itself."""
        if self.world == 1:
            return
        for parameter in module.parameters():
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.world

    def any(self, flag: bool) -> bool:
        """Whether it holds in some process."""
        if self.world == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=self.device)) > 0)

    def gather(self, item: Result) -> list[Result]:
        """The items of all processes, by rank."""
        if self.world == 1:
            return [item]
        items: list[Any] = [None] * self.world
        dist.all_gather_object(items, item)
        return items

    def leave(self) -> None:
        """At the end of a run that went well: wait for the others, and part.

        Processes that end while theirs still talk abort, now and then.
        """
        if self.world > 1:
            dist.barrier()
            dist.destroy_process_group()
            # Gloo's threads still drop tensors of the last collectives, for which they need the
            # interpreter's lock. Whoever frees the model next holds it, and waits for them.
            time.sleep(_GLOO_SECONDS)

    def at_first(self, work: Callable[[], Result]) -> Result:
        """Call ``work`` in the first process alone; all processes get its result or its error."""
        if self.world == 1:
            return work()
        outcome: list[Any] = [None, None]
        if self.first:
            try:
                outcome[0] = work()
            except MossAudioError as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]


def whole(tensor: Tensor) -> Tensor:
    """The full tensor of one that may be sharded. Collective: every rank must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """All named parameters as full tensors on the CPU. Collective: every rank must call this."""
    return {name: whole(p.detach()).cpu() for name, p in module.named_parameters()}


def spread_like(value: Tensor, parameter: Tensor) -> Tensor:
    """``value`` placed as ``parameter`` is: on its device, whole or in shares. A copy."""
    if isinstance(parameter, DTensor):
        moved = value.to(parameter.device)
        return distribute_tensor(moved, parameter.device_mesh, parameter.placements)
    return value.to(parameter.device, copy=True)


def transformer_layers(language_model: Any) -> list[nn.Module]:
    """The blocks of a model of transformers, which are sharded one by one.

    Raises:
        ConfigError: the model keeps them under an unknown name.
    """
    layers = getattr(language_model.base_model, "layers", None)
    if layers is None:
        raise ConfigError(
            f"shard is set, but a {type(language_model).__name__} keeps its layers under an "
            "unknown name; set shard=False, or take a language model such as Qwen2"
        )
    return list(layers)


@torch.no_grad()
def set_state(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Overwrite every named parameter; the counterpart of `whole_state`.

    Raises:
        TrainingError: one is missing, left over, or of another shape.
    """
    parameters = dict(module.named_parameters())
    differing = parameters.keys() ^ state.keys()
    differing |= {
        n for n in parameters.keys() & state.keys() if parameters[n].shape != state[n].shape
    }
    if differing:
        raise TrainingError(
            f"the saved weights belong to another model: {min(differing)!r} differs"
        )
    for name, parameter in parameters.items():
        parameter.copy_(spread_like(state[name], parameter))


@contextmanager
def on_sigterm(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` on SIGTERM within the block; the previous handler comes back after it.

    Python lets only the main thread set handlers: elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: stop())
    try:
        yield
    finally:
        # None: a handler that Python did not set and cannot set again.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)
