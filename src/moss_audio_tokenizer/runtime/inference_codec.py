"""Encoder and decoder prepared for inference: folded weights, run over chunks or streams.

An `InferenceEncoder` has the encoder's stages and the quantizer, an `InferenceDecoder` the
quantizer and the decoder's stages; `InferenceStack` is what they have in common.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..config import CodecConfig
from ..model.codec import Codec
from ..model.quantizer import without_autocast
from ..model.stages import StageStack, deinterleave, interleave
from ..model.transformer import Transformer
from ..onnx.engines import StepGraph
from .chunk_cache import ChunkAttention, ChunkState
from .folded_quantizer import fold_quantizer
from .onnx_sessions import step_graph
from .ring_cache import RingKVCache, StepBatch, init_ring
from .stage import InferenceStage
from .triton_attention import load_triton_kernels, ring_attention


class InferenceStack:
    """`StageStack` for inference.

    Args:
        stack: the trained stages.
        rates: steps a second of each stage.
        frame_rate: frames of codes a second.
        dtype: the type of weights, keys and values.
    """

    def __init__(
        self, stack: StageStack, rates: Sequence[float], frame_rate: float, dtype: torch.dtype
    ) -> None:
        self.dtype = dtype
        self.device = next(stack.parameters()).device
        self._stack = stack
        self._steps_per_frame = [round(rate / frame_rate) for rate in rates]

    @cached_property
    def stages(self) -> list[InferenceStage | nn.Module]:
        """Transformer stages, folded at their first use, and patch stages as they are."""
        return [
            InferenceStage(stage, steps, self.dtype) if isinstance(stage, Transformer) else stage
            for stage, steps in zip(self._stack.stages, self._steps_per_frame, strict=True)
        ]

    @property
    def runs_in_onnx(self) -> bool:
        """Whether an ONNX graph could compute the same: in float32, on a CPU."""
        return self.device.type == "cpu" and self.dtype == torch.float32

    def transformers(self) -> list[InferenceStage]:
        """The Transformer stages, in order."""
        return [stage for stage in self.stages if isinstance(stage, InferenceStage)]

    @property
    def max_steps_per_frame(self) -> int:
        """Steps for each frame of the stage that takes the most."""
        return max(stage.steps_per_frame for stage in self.transformers())

    def init_chunks(self) -> list[ChunkState]:
        """The state before the first chunk: one for each Transformer stage."""
        return [ChunkState.of(stage) for stage in self.transformers()]

    @torch.compiler.disable
    def run_chunk(self, x: Tensor, states: Sequence[ChunkState] = ()) -> Tensor:
        """A whole sequence, or the chunk that follows those that ``states`` has seen."""
        remaining = iter(states)
        with without_autocast(x):
            for stage in self.stages:
                if isinstance(stage, InferenceStage):
                    state = next(remaining, None)
                    x = stage.run(x, ChunkAttention(stage, x.shape[1], x.device, state))
                else:
                    x = stage(x)
        return x

    def init_state(self, num_slots: int, max_chunk_frames: int) -> RingKVCache:
        """Empty streams in ``num_slots`` slots."""
        _ = self._triton  # loaded now: nothing can be compiled while a CUDA graph is recorded
        # On a CPU float16 is a type to round weights to: the arithmetic is in float32.
        rounds = self.device.type == "cpu" and self.dtype == torch.float16
        dtype = torch.float32 if rounds else self.dtype
        rings = [
            init_ring(stage, num_slots, max_chunk_frames, dtype, self.device)
            for stage in self.transformers()
        ]
        return RingKVCache(torch.zeros(num_slots, dtype=torch.long, device=self.device), rings)

    @cached_property
    def _triton(self) -> ModuleType | None:
        return load_triton_kernels(self.device)

    @torch.compiler.disable
    def step(self, x: Tensor, state: RingKVCache, batch: StepBatch) -> Tensor:
        """The next frames of some streams; positions advance when all stages are done.

        Args:
            x: a row for each stream, padded to the longest.
            state: KV caches and positions; advanced in place.
            batch: the streams that take part.
        """
        rings = iter(state.rings)
        with without_autocast(x):
            for stage in self.stages:
                if isinstance(stage, InferenceStage):
                    x = stage.run(x, *ring_attention(self._triton, stage, next(rings), batch))
                else:
                    x = stage(x)
        batch.advance(state)
        return x


class InferenceEncoder:
    """Audio to hidden states, and hidden states to codes.

    Args:
        codec: the trained codec; must have an encoder.
        dtype: the type of weights, keys and values.
    """

    def __init__(self, codec: Codec, dtype: torch.dtype) -> None:
        config = codec.config
        self.config = config
        encoder = codec.require_encoder()
        self._codec = codec
        self.identity = _fingerprint(config, dtype, encoder, codec.quantizer)
        self.stack = InferenceStack(encoder, config.encoder_rates, config.frame_rate, dtype)
        self.quantizer = fold_quantizer(codec.quantizer)

    @cached_property
    def step_graph(self) -> StepGraph | None:
        """The ONNX graph of its steps, with copies of its weights; None where PyTorch steps."""
        if not self.stack.runs_in_onnx:
            return None
        return step_graph(self._codec, "encoder", self.identity)

    def run_chunk(
        self, audio: Float[Tensor, "batch channels samples"], states: Sequence[ChunkState] = ()
    ) -> Float[Tensor, "batch frames width"]:
        """Hidden states of whole frames of audio; with states, of the chunk that follows."""
        return self.stack.run_chunk(interleave(audio), states)

    def step(
        self,
        audio: Float[Tensor, "rows channels samples"],
        state: RingKVCache,
        batch: StepBatch,
    ) -> Float[Tensor, "rows frames width"]:
        """Hidden states of the next frames of some streams, whose positions advance."""
        return self.stack.step(interleave(audio), state, batch)


class InferenceDecoder:
    """Codes to hidden states, and hidden states to audio.

    Args:
        codec: the trained codec; must have a decoder.
        dtype: the type of weights, keys and values.
    """

    def __init__(self, codec: Codec, dtype: torch.dtype) -> None:
        config = codec.config
        self.config = config
        decoder = codec.require_decoder()
        self._codec = codec
        self.identity = _fingerprint(config, dtype, decoder, codec.quantizer)
        self.stack = InferenceStack(decoder, config.decoder_rates, config.frame_rate, dtype)
        self.quantizer = fold_quantizer(codec.quantizer)

    @cached_property
    def step_graph(self) -> StepGraph | None:
        """The ONNX graph of its steps, with copies of its weights; None where PyTorch steps."""
        if not self.stack.runs_in_onnx:
            return None
        return step_graph(self._codec, "decoder", self.identity)

    def run_chunk(
        self, hidden: Float[Tensor, "batch frames width"], states: Sequence[ChunkState] = ()
    ) -> Float[Tensor, "batch channels samples"]:
        """Audio of what the quantizer decoded; with states, of the chunk that follows."""
        x = self.stack.run_chunk(hidden, states)
        return deinterleave(x, self.config.number_channels)

    def step(
        self,
        hidden: Float[Tensor, "rows frames width"],
        state: RingKVCache,
        batch: StepBatch,
    ) -> Float[Tensor, "rows channels samples"]:
        """Audio of the next frames of some streams, whose positions advance."""
        x = self.stack.step(hidden, state, batch)
        return deinterleave(x, self.config.number_channels)


def _fingerprint(config: CodecConfig, dtype: torch.dtype, *parts: nn.Module) -> str:
    """16 hexadecimal digits that differ where a saved stream's KV caches would be wrong.

    Only the first values of each weight are read: training changes them too.
    """
    digest = hashlib.sha256(f"{config} {dtype}".encode())
    for part in parts:
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.flatten()[:256].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
