"""An encoder's or decoder's stages in order, ready to run over pieces or over rings."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from ..model.devices import without_autocast
from ..model.stack import StageStack
from ..model.transformer import Transformer
from .chunk_cache import LayerCache, StackState, StageState
from .compiled import CompiledStage, load_kernels
from .pieces import PieceMemory
from .ring_cache import RingKVCache, RingMemory, RingStage, RingStepper, StepBatch
from .stage import InferenceStage
from .triton_attention import FusedRings, load_triton_kernels


class InferenceStack:
    """`StageStack` for inference.

    Args:
        stack: the trained stages.
        rates: steps a second of each stage.
        frame_rate: frames of codes a second.
        dtype: of weights, keys and values.
    """

    def __init__(
        self, stack: StageStack, rates: Sequence[float], frame_rate: float, dtype: torch.dtype
    ) -> None:
        self.dtype = dtype
        self.device = next(stack.parameters()).device
        self._stack = stack
        self._steps_per_frame = [round(rate / frame_rate) for rate in rates]

    @property
    def most_steps_per_frame(self) -> int:
        """Steps for each frame of the stage that takes the most."""
        return max(stage.steps_per_frame for stage in self.transformers())

    @cached_property
    def stages(self) -> list[InferenceStage | nn.Module]:
        """The stages for pieces, made ready when first needed."""
        return [
            InferenceStage(stage, steps, self.dtype) if isinstance(stage, Transformer) else stage
            for stage, steps in zip(self._stack.stages, self._steps_per_frame, strict=True)
        ]

    @cached_property
    def steppers(self) -> list[RingStepper | nn.Module]:
        """The stages for streams, made ready when first needed: compiled where possible."""
        kernels = load_kernels() if self.device.type == "cpu" else None
        if kernels is not None:
            return [
                CompiledStage(stage, steps, kernels, self.dtype)
                if isinstance(stage, Transformer)
                else stage
                for stage, steps in zip(self._stack.stages, self._steps_per_frame, strict=True)
            ]
        # On a CPU float16 is a way to store weights only.
        half = self.device.type == "cpu" and self.dtype == torch.float16
        like = torch.empty(0, dtype=torch.float32 if half else self.dtype, device=self.device)
        fused = load_triton_kernels(self.device)
        memory_of = RingMemory if fused is None else FusedRings(fused)
        return [
            RingStage(stage, like, memory_of) if isinstance(stage, InferenceStage) else stage
            for stage in self.stages
        ]

    def transformers(self) -> list[InferenceStage]:
        """The Transformer stages, in order."""
        return [stage for stage in self.stages if isinstance(stage, InferenceStage)]

    def init_pieces(self) -> StackState:
        """The state before the first piece."""
        return StackState(
            [
                StageState([LayerCache(stage.context_steps - 1) for _ in stage.layers])
                for stage in self.transformers()
            ]
        )

    def run_piece(self, x: Tensor, state: StackState | None = None) -> Tensor:
        """A whole sequence, or the next piece of the one that ``state`` has seen."""
        states = iter(state.stages if state is not None else ())
        with without_autocast(x):
            for stage in self.stages:
                if isinstance(stage, InferenceStage):
                    memory = PieceMemory(stage, x.shape[1], x, next(states, None))
                    x = stage.run(x, memory)
                else:
                    x = stage(x)
        return x

    def init_state(self, num_slots: int, max_chunk_frames: int) -> RingKVCache:
        """Streams in ``num_slots`` slots, none of which has seen anything."""
        entries = [
            stage.init_entries(num_slots, max_chunk_frames)
            for stage in self.steppers
            if not isinstance(stage, nn.Module)
        ]
        return RingKVCache(torch.zeros(num_slots, dtype=torch.long, device=self.device), entries)

    def step(self, x: Tensor, state: RingKVCache, rows: StepBatch) -> Tensor:
        """The next frames of some streams; positions advance when all has gone well.

        Args:
            x: a row for each stream, padded to the longest.
            state: advanced in place.
            rows: which streams.
        """
        entries = iter(state.entries)
        with without_autocast(x):
            for stage in self.steppers:
                x = stage(x) if isinstance(stage, nn.Module) else stage.step(x, next(entries), rows)
        state.positions[rows.slots] = rows.starts + rows.num_frames
        return x
