"""Dropout in the temporal Transformer of CAT-TTS, for small data sets; off in the paper's recipe.

A module of its own, since models of transformers have no such option.
"""

from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError


class HiddenDropout(nn.Dropout):
    """Dropout of hidden states, in training alone.

    Like that of the text encoder it draws from PyTorch's own generator, which training seeds
    before each pass: a resumed run draws what an uninterrupted one does.
    """

    def attach(self, language_model: Any) -> None:
        """Apply it behind the attention and the feed-forward layer of each block.

        Raises:
            ConfigError: the model keeps them under unknown names.
        """
        for block in getattr(language_model, "layers", [None]):
            for name in ("self_attn", "mlp"):
                part = getattr(block, name, None)
                if part is None:
                    raise ConfigError(
                        f"hidden_dropout is {self.p:g}, but a {type(language_model).__name__} "
                        "keeps its layers under unknown names; set it to 0, or take a language "
                        "model such as Qwen2"
                    )
                part.register_forward_hook(self._of_output)

    def _of_output(self, _part: nn.Module, _inputs: Any, output: Any) -> Any:
        """A hook of PyTorch; attention also returns its weights."""
        if isinstance(output, Tensor):
            return self(output)
        states, *others = output
        return (self(states), *others)
