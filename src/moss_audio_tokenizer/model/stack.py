"""A run of patch and Transformer stages: what encoder and decoder have in common."""

from collections.abc import Iterable

from torch import Tensor, nn

from .cache import StackState
from .transformer import Transformer


class StageStack(nn.Module):
    """Stages in order; indices count patch stages too, as released checkpoints do."""

    def __init__(self, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def transformers(self) -> list[Transformer]:
        """The Transformer stages, in order."""
        return [stage for stage in self.stages if isinstance(stage, Transformer)]

    def init_state(self) -> StackState:
        """The state before the first step of a stream."""
        return StackState([stage.init_state() for stage in self.transformers()])

    def run(self, x: Tensor, state: StackState | None) -> Tensor:
        """Pass ``x`` through every stage, advancing ``state`` if there is one."""
        states = iter(state.stages if state is not None else ())
        for stage in self.stages:
            x = stage(x, next(states, None)) if isinstance(stage, Transformer) else stage(x)
        return x
