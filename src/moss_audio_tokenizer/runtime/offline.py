"""Encoding and decoding of whole clips, in memory that does not grow with the length.

A longer clip is processed chunk by chunk, with the KV caches carried along, which gives the same
result as one pass. Owns the cutting and the batching; the arithmetic is in `inference_codec`,
checks and formats are the callers'.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..codes.codec_progress import reported
from ..model.inputs import pad_rows
from .inference_codec import InferenceDecoder, InferenceEncoder
from .ring_cache import StepBatch

# Long enough that the work of a chunk dwarfs the keys carried over, short enough for caches.
CHUNK_SECONDS = 10.0
# Up to so many steps of the fastest stage, ring caches, which copy nothing, are cheaper than
# sliding ones; measured on CPUs.
LONGEST_STEP = 250


def encode_rows(
    encoder: InferenceEncoder,
    clips: Sequence[Float[Tensor, "channels _"]],
    num_quantizers: int,
    chunk_frames: int | None = None,
    alone: bool = True,
) -> Iterator[tuple[Int[Tensor, "num_quantizers _"], Float[Tensor, "width _"]]]:
    """Codes and hidden states of each clip, ceil(samples / downsample_rate) frames.

    Args:
        encoder: the encoder and the quantizer.
        clips: samples of any lengths, on the encoder's device.
        num_quantizers: codebooks that are used.
        chunk_frames: frames in a chunk (default: about `CHUNK_SECONDS`).
        alone: process every clip by itself, so that it cannot depend on the others.
    """
    step = encoder.config.downsample_rate
    padded = [F.pad(clip, (0, -clip.shape[1] % step)) for clip in clips]
    for rows in _groups(padded, alone):
        batch = encode_batch(encoder, pad_rows(rows), num_quantizers, chunk_frames)
        for row, codes, hidden in zip(rows, batch[0].unbind(1), batch[1], strict=True):
            frames = row.shape[1] // step
            yield codes[:, :frames], hidden[:, :frames]


def decode_rows(
    decoder: InferenceDecoder,
    rows: Sequence[Int[Tensor, "num_quantizers _"]],
    chunk_frames: int | None = None,
    alone: bool = True,
) -> Iterator[Float[Tensor, "channels _"]]:
    """Audio of each row of codes, downsample_rate samples a frame.

    Args:
        decoder: the quantizer and the decoder.
        rows: codes of any lengths, on the decoder's device.
        chunk_frames: frames in a chunk (default: about `CHUNK_SECONDS`).
        alone: process every row by itself, so that it cannot depend on the others.
    """
    step = decoder.config.downsample_rate
    for group in _groups(rows, alone):
        batch = decode_batch(decoder, pad_rows(group).transpose(0, 1), chunk_frames)
        for row, audio in zip(group, batch, strict=True):
            yield audio[:, : row.shape[1] * step]


def _groups(rows: Sequence[Tensor], alone: bool) -> list[list[Tensor]]:
    return [[row] for row in rows] if alone else [list(rows)]


def encode_batch(
    encoder: InferenceEncoder,
    audio: Float[Tensor, "batch channels samples"],
    num_quantizers: int,
    chunk_frames: int | None = None,
) -> tuple[Int[Tensor, "num_quantizers batch frames"], Float[Tensor, "batch width frames"]]:
    """Codes and hidden states of whole frames of audio, one batch, chunk by chunk."""
    step = encoder.config.downsample_rate
    chunks = _chunks(encoder, audio.shape[-1] // step, chunk_frames)
    run = _runner(encoder, len(audio), chunks)
    codes, hiddens = [], []
    for chunk in reported(chunks, audio.shape[-1] // step):
        hidden = run(audio[..., chunk.start * step : chunk.stop * step], chunk.stop - chunk.start)
        codes.append(encoder.quantizer.encode(hidden, num_quantizers))
        hiddens.append(hidden.transpose(1, 2))
    return torch.cat(codes, dim=2), torch.cat(hiddens, dim=2)


def decode_batch(
    decoder: InferenceDecoder,
    codes: Int[Tensor, "num_quantizers batch frames"],
    chunk_frames: int | None = None,
) -> Float[Tensor, "batch channels samples"]:
    """Audio of codes, one batch, chunk by chunk."""
    step, batch = decoder.config.downsample_rate, codes.shape[1]
    chunks = _chunks(decoder, codes.shape[2], chunk_frames)
    run = _runner(decoder, batch, chunks)
    shape = (batch, decoder.config.number_channels, codes.shape[2] * step)
    audio = torch.empty(shape, device=codes.device)
    for chunk in reported(chunks, codes.shape[2]):
        hidden = decoder.quantizer.decode(codes[:, :, chunk])
        samples = slice(chunk.start * step, chunk.stop * step)
        audio[..., samples] = run(hidden, chunk.stop - chunk.start)
    return audio


def _chunks(
    coder: InferenceEncoder | InferenceDecoder, frames: int, chunk_frames: int | None
) -> list[slice]:
    size = chunk_frames or max(1, round(CHUNK_SECONDS * coder.config.frame_rate))
    return [slice(start, min(start + size, frames)) for start in range(0, frames, size)]


def _runner(
    coder: InferenceEncoder | InferenceDecoder, batch: int, chunks: list[slice]
) -> Callable[[Tensor, int], Tensor]:
    """A function that runs one chunk after the other: (input, frames) to output."""
    if len(chunks) == 1:
        return lambda x, _frames: coder.run_chunk(x)
    size = chunks[0].stop
    if size * coder.stack.max_steps_per_frame > LONGEST_STEP:
        states = coder.stack.init_chunks()
        return lambda x, _frames: coder.run_chunk(x, states)
    rings, slots = coder.stack.init_state(batch, size), range(batch)
    return lambda x, frames: coder.step(x, rings, StepBatch.of(rings, slots, [frames] * batch))
