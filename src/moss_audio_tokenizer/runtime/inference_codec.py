"""Encoder and decoder prepared for inference: folded weights, run over clips, chunks or streams.

An `InferenceEncoder` has the encoder's stages and the quantizer, an `InferenceDecoder` the
quantizer and the decoder's stages. A clip longer than a chunk is processed chunk by chunk, with the
KV caches carried along, which gives the same result as one pass in memory that does not grow with
the clip. Checks and formats are the callers'.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from types import ModuleType

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..codes.codec import reported
from ..config import CodecConfig
from ..model.codec import Codec, StageStack, deinterleave, interleave
from ..model.inputs import TENSORS
from ..model.transformer import Transformer
from ..onnx.engines import StepGraph
from .chunk_cache import ChunkAttention, ChunkState
from .folded_quantizer import fold_quantizer
from .onnx_steps import step_graph
from .ring_cache import RingKVCache, StepBatch, init_ring
from .stage import InferenceStage
from .triton_attention import load_triton_kernels, ring_attention

# Long enough that the work of a chunk dwarfs the keys carried over, short enough for caches.
CHUNK_SECONDS = 10.0
# Up to so many steps of the fastest stage, ring caches, which copy nothing, are cheaper than
# sliding ones; measured on CPUs.
LONGEST_STEP = 250


class InferenceCoder:
    """What encoder and decoder have in common.

    Args:
        codec: the trained codec, which has that side.
        dtype: the type of weights, keys and values.
    """

    side: str

    def __init__(self, codec: Codec, dtype: torch.dtype) -> None:
        config = codec.config
        stack: StageStack = getattr(codec, self.side)
        rates = config.encoder_rates if self.side == "encoder" else config.decoder_rates
        self.config = config
        self.dtype = dtype
        self.device = next(stack.parameters()).device
        self.identity = _fingerprint(config, dtype, stack, codec.quantizer)
        self.quantizer = fold_quantizer(codec.quantizer)
        self._codec, self._stack = codec, stack
        self._steps_per_frame = [round(rate / config.frame_rate) for rate in rates]

    @cached_property
    def stages(self) -> list[InferenceStage | nn.Module]:
        """Transformer stages, folded at their first use, and patch stages as they are."""
        return [
            InferenceStage(stage, steps, self.dtype) if isinstance(stage, Transformer) else stage
            for stage, steps in zip(self._stack.stages, self._steps_per_frame, strict=True)
        ]

    @cached_property
    def step_graph(self) -> StepGraph | None:
        """The ONNX graph of its steps, with copies of its weights; None where PyTorch steps."""
        if self.device.type != "cpu" or self.dtype != torch.float32:
            return None
        return step_graph(self._codec, self.side, self.identity)

    def transformers(self) -> list[InferenceStage]:
        """The Transformer stages, in order."""
        return [stage for stage in self.stages if isinstance(stage, InferenceStage)]

    def init_chunks(self) -> list[ChunkState]:
        """The state before the first chunk: one for each Transformer stage."""
        return [ChunkState.of(stage) for stage in self.transformers()]

    @torch.compiler.disable
    def run_chunk(self, x: Tensor, states: Sequence[ChunkState] = ()) -> Tensor:
        """A whole sequence, or the chunk that follows those that ``states`` has seen."""
        remaining = iter(states)
        x = self._entering(x)
        with torch.autocast(x.device.type, enabled=False):
            for stage in self.stages:
                if isinstance(stage, InferenceStage):
                    state = next(remaining, None)
                    x = stage.run(x, ChunkAttention(stage, x.shape[1], x.device, state))
                else:
                    x = stage(x)
        return self._leaving(x)

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
        x = self._entering(x)
        with torch.autocast(x.device.type, enabled=False):
            for stage in self.stages:
                if isinstance(stage, InferenceStage):
                    x = stage.run(x, *ring_attention(self._triton, stage, next(rings), batch))
                else:
                    x = stage(x)
        batch.advance(state)
        return self._leaving(x)

    def _entering(self, x: Tensor) -> Tensor:
        return x

    def _leaving(self, x: Tensor) -> Tensor:
        return x

    def chunks(self, frames: int, chunk_frames: int | None) -> list[slice]:
        """The frames of a clip in chunks of so many (default: about `CHUNK_SECONDS`)."""
        size = chunk_frames or max(1, round(CHUNK_SECONDS * self.config.frame_rate))
        return [slice(start, min(start + size, frames)) for start in range(0, frames, size)]

    def runner(self, batch: int, chunks: list[slice]) -> Callable[[Tensor, int], Tensor]:
        """A function that runs one chunk after the other: (input, frames) to output."""
        if len(chunks) == 1:
            return lambda x, _frames: self.run_chunk(x)
        size = chunks[0].stop
        most_steps = max(stage.steps_per_frame for stage in self.transformers())
        if size * most_steps > LONGEST_STEP:
            states = self.init_chunks()
            return lambda x, _frames: self.run_chunk(x, states)
        rings, slots = self.init_state(batch, size), range(batch)
        return lambda x, frames: self.step(x, rings, StepBatch.of(rings, slots, [frames] * batch))


class InferenceEncoder(InferenceCoder):
    """Audio (batch, channels, samples) to hidden states (batch, frames, width)."""

    side = "encoder"

    def _entering(self, x: Tensor) -> Tensor:
        return interleave(x)

    def encode_rows(
        self,
        clips: Sequence[Float[Tensor, "channels _"]],
        num_quantizers: int,
        chunk_frames: int | None = None,
        alone: bool = True,
    ) -> Iterator[tuple[Int[Tensor, "num_quantizers _"], Float[Tensor, "width _"]]]:
        """Codes and hidden states of each clip, ceil(samples / downsample_rate) frames.

        Args:
            clips: samples of any lengths, on the encoder's device.
            num_quantizers: codebooks that are used.
            chunk_frames: frames in a chunk (default: about `CHUNK_SECONDS`).
            alone: process every clip by itself, so that it cannot depend on the others.
        """
        step = self.config.downsample_rate
        padded = [F.pad(clip, (0, -clip.shape[1] % step)) for clip in clips]
        for rows in _groups(padded, alone):
            batch = self.encode_batch(TENSORS.pad_rows(rows), num_quantizers, chunk_frames)
            for row, codes, hidden in zip(rows, batch[0].unbind(1), batch[1], strict=True):
                frames = row.shape[1] // step
                yield codes[:, :frames], hidden[:, :frames]

    def encode_batch(
        self,
        audio: Float[Tensor, "batch channels samples"],
        num_quantizers: int,
        chunk_frames: int | None = None,
    ) -> tuple[Int[Tensor, "num_quantizers batch frames"], Float[Tensor, "batch width frames"]]:
        """Codes and hidden states of whole frames of audio, one batch, chunk by chunk."""
        step = self.config.downsample_rate
        frames = audio.shape[-1] // step
        chunks = self.chunks(frames, chunk_frames)
        run = self.runner(len(audio), chunks)
        codes, hiddens = [], []
        for chunk in reported(chunks, frames):
            samples = audio[..., chunk.start * step : chunk.stop * step]
            hidden = run(samples, chunk.stop - chunk.start)
            codes.append(self.quantizer.encode(hidden, num_quantizers))
            hiddens.append(hidden.transpose(1, 2))
        return torch.cat(codes, dim=2), torch.cat(hiddens, dim=2)


class InferenceDecoder(InferenceCoder):
    """Hidden states (batch, frames, width) to audio (batch, channels, samples)."""

    side = "decoder"

    def _leaving(self, x: Tensor) -> Tensor:
        return deinterleave(x, self.config.number_channels)

    def decode_rows(
        self,
        rows: Sequence[Int[Tensor, "num_quantizers _"]],
        chunk_frames: int | None = None,
        alone: bool = True,
    ) -> Iterator[Float[Tensor, "channels _"]]:
        """Audio of each row of codes, downsample_rate samples a frame.

        Args:
            rows: codes of any lengths, on the decoder's device.
            chunk_frames: frames in a chunk (default: about `CHUNK_SECONDS`).
            alone: process every row by itself, so that it cannot depend on the others.
        """
        step = self.config.downsample_rate
        for group in _groups(rows, alone):
            batch = self.decode_batch(TENSORS.pad_rows(group).transpose(0, 1), chunk_frames)
            for row, audio in zip(group, batch, strict=True):
                yield audio[:, : row.shape[1] * step]

    def decode_batch(
        self, codes: Int[Tensor, "num_quantizers batch frames"], chunk_frames: int | None = None
    ) -> Float[Tensor, "batch channels samples"]:
        """Audio of codes, one batch, chunk by chunk."""
        step, batch, frames = self.config.downsample_rate, codes.shape[1], codes.shape[2]
        chunks = self.chunks(frames, chunk_frames)
        run = self.runner(batch, chunks)
        shape = (batch, self.config.number_channels, frames * step)
        audio = torch.empty(shape, device=codes.device)
        for chunk in reported(chunks, frames):
            hidden = self.quantizer.decode(codes[:, :, chunk])
            samples = slice(chunk.start * step, chunk.stop * step)
            audio[..., samples] = run(hidden, chunk.stop - chunk.start)
        return audio


def _groups(rows: Sequence[Tensor], alone: bool) -> list[list[Tensor]]:
    return [[row] for row in rows] if alone else [list(rows)]


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
