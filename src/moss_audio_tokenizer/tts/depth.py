"""The depth Transformer: predicts the codes of one frame, one codebook after another.

Causal blocks as in Qwen3 (normalized queries and keys, gated feed-forward layers), without
positional encoding: every codebook has its own embedding. Knows nothing of time or text.
Source: the paper's section 3.3.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..model.attention import plan_window, windowed_attention
from .tts_config import CatTtsConfig

_STD = 0.02


class GatedLayer(nn.Module):
    """W_out (silu(W_gate x) * W_in x); a plain projection when ``inner`` is 0."""

    def __init__(self, inputs: int, inner: int, outputs: int) -> None:
        super().__init__()
        self.entrance = nn.Linear(inputs, 2 * inner, bias=False) if inner else None
        self.exit = nn.Linear(inner or inputs, outputs, bias=False)

    def forward(self, x: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        """Applied to every row by itself."""
        if self.entrance is not None:
            gate, value = self.entrance(x).chunk(2, -1)
            x = F.silu(gate) * value
        output: Tensor = self.exit(x)
        return output


class Norm(nn.RMSNorm):
    """RMS norm in the precision of its weight."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last axis."""
        return super().forward(x.to(self.weight.dtype))


@dataclass
class DepthCache:
    """KV cache over the codes of one frame, one entry a block."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def extend(self, block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values of a block, and return all of its."""
        if block == len(self.keys):
            self.keys.append(keys)
            self.values.append(values)
        else:
            self.keys[block] = torch.cat((self.keys[block], keys), 2)
            self.values[block] = torch.cat((self.values[block], values), 2)
        return self.keys[block], self.values[block]


class DepthBlock(nn.Module):
    """Causal attention and a gated feed-forward layer, each after an RMS norm."""

    def __init__(self, config: CatTtsConfig) -> None:
        super().__init__()
        width, head = config.depth_width, config.depth_head_dim
        self.num_heads, self.num_pairs = config.depth_heads, config.depth_key_value_heads
        self.head_dim = head
        self.attention_norm = Norm(width)
        self.queries = nn.Linear(width, self.num_heads * head, bias=False)
        self.keys = nn.Linear(width, self.num_pairs * head, bias=False)
        self.values = nn.Linear(width, self.num_pairs * head, bias=False)
        self.query_norm, self.key_norm = Norm(head), Norm(head)
        self.output = nn.Linear(self.num_heads * head, width, bias=False)
        self.feedforward_norm = Norm(width)
        self.feedforward = GatedLayer(width, config.depth_feedforward, width)

    def forward(
        self, x: Float[Tensor, "rows steps width"], cache: DepthCache | None, block: int
    ) -> Float[Tensor, "rows steps width"]:
        """All positions at once without a cache; one new position with it."""
        x = x + self._attend(self.attention_norm(x), cache, block)
        fed: Tensor = self.feedforward(self.feedforward_norm(x))
        return x + fed

    def _attend(self, x: Tensor, cache: DepthCache | None, block: int) -> Tensor:
        queries = self.query_norm(self._heads(self.queries(x), self.num_heads))
        keys = self.key_norm(self._heads(self.keys(x), self.num_pairs))
        values = self._heads(self.values(x), self.num_pairs)
        grouped = self.num_pairs < self.num_heads
        if cache is not None:
            keys, values = cache.extend(block, keys, values)
        if cache is None and not grouped:
            steps = x.shape[1]
            window = plan_window(steps, 0, steps, x.device)
            attended = windowed_attention(queries, keys, values, window)
        else:
            attended = F.scaled_dot_product_attention(
                queries, keys, values, is_causal=cache is None, enable_gqa=grouped
            )
        output: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return output

    def _heads(self, x: Tensor, count: int) -> Float[Tensor, "rows heads steps head_dim"]:
        return x.view(*x.shape[:2], count, self.head_dim).transpose(1, 2)


class DepthTransformer(nn.Module):
    """Predicts the next code of a frame from the temporal context and the codes so far.

    Input 0 is the temporal Transformer's output, input 1 the continuation vector, input k + 1
    the embedding of code k. Output 0 decides whether speech continues, output k scores code k.

    Args:
        config: sizes of the model.
        width: channels of the input, those of the temporal Transformer.
    """

    def __init__(self, config: CatTtsConfig, width: int) -> None:
        super().__init__()
        inner, adapter = config.depth_width, config.adapter_width
        classes = [2, *[config.codebook_size] * config.num_quantizers]
        self.entrance = GatedLayer(width, adapter, inner)
        self.blocks = nn.ModuleList(DepthBlock(config) for _ in range(config.depth_layers))
        self.exits = nn.ModuleList(
            nn.Sequential(
                GatedLayer(inner, adapter, width) if adapter else nn.Identity(),
                Norm(width if adapter else inner),
                nn.Linear(width if adapter else inner, count, bias=False),
            )
            for count in classes
        )

    def initialize(self) -> None:
        """Set every matrix to normal values of standard deviation 0.02."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=_STD)

    def forward(
        self, inputs: Float[Tensor, "rows steps width"], cache: DepthCache | None = None
    ) -> Float[Tensor, "rows steps inner"]:
        """Hidden states of all positions, or of the new ones where a cache is given."""
        x = self.entrance(inputs)
        for number, block in enumerate(self.blocks):
            x = block(x, cache, number)
        return x

    def scores(self, hidden: Float[Tensor, "... inner"], position: int) -> Float[Tensor, "... n"]:
        """Logits of one output, in float32."""
        logits: Tensor = self.exits[position](hidden)
        return logits.float()
