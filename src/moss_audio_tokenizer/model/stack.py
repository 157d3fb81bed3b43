"""A run of patch and Transformer stages: what encoder and decoder have in common."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..config import CodecConfig, PatchStage, Stage
from .transformer import Transformer


class StageStack(nn.Module):
    """Stages in order; indices count patch stages too, as released checkpoints do.

    Args:
        config: the codec's, which knows how many steps a stage's window has.
        stages: what to build.
        rates: steps a second at which each stage works.
        make_patch: builds a patch stage of a given size.
    """

    def __init__(
        self,
        config: CodecConfig,
        stages: Sequence[Stage],
        rates: Sequence[float],
        make_patch: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            make_patch(stage.patch_size)
            if isinstance(stage, PatchStage)
            else Transformer(stage, config.context_steps(stage, rate))
            for stage, rate in zip(stages, rates, strict=True)
        )

    def transformers(self) -> list[Transformer]:
        """The Transformer stages, in order."""
        return [stage for stage in self.stages if isinstance(stage, Transformer)]

    def run(self, x: Tensor) -> Tensor:
        """Pass ``x`` through every stage."""
        for stage in self.stages:
            x = stage(x)
        return x
