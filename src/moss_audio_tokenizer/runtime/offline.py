"""Whole clips, of any number and any length, in memory that does not grow with the length.

A clip longer than a piece is worked through piece by piece, the encoder's or decoder's state
carried along, which gives the same result as one pass. Owns the cutting and what is computed
together; `inference` does the computing, checks and formats are the callers'.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..model.inputs import pad_rows
from .inference_codec import InferenceDecoder, InferenceEncoder
from .ring_cache import StepBatch

# Long enough that the work of a piece dwarfs the keys carried over, short enough for caches.
PIECE_SECONDS = 10.0
# Up to so many steps of the fastest stage, rings, which copy nothing, are cheaper than carrying
# the window along; measured on CPUs.
LONGEST_STEP = 250


def encode_rows(
    half: InferenceEncoder,
    clips: Sequence[Float[Tensor, "channels _"]],
    num_quantizers: int,
    chunk_frames: int | None = None,
    alone: bool = True,
) -> Iterator[tuple[Int[Tensor, "layers _"], Float[Tensor, "width _"]]]:
    """Codes and hidden states of each clip, ceil(samples / downsample_rate) frames.

    Args:
        half: the encoder and the quantizer.
        clips: samples of any lengths, on its device.
        num_quantizers: layers of codes.
        chunk_frames: frames a piece (default: about `PIECE_SECONDS`).
        alone: compute every clip by itself, so that it cannot depend on the others.
    """
    step = half.config.downsample_rate
    padded = [F.pad(clip, (0, -clip.shape[1] % step)) for clip in clips]
    for rows in _groups(padded, alone):
        together = encode_batch(half, pad_rows(rows), num_quantizers, chunk_frames)
        for row, codes, hidden in zip(rows, together[0].unbind(1), together[1], strict=True):
            frames = row.shape[1] // step
            yield codes[:, :frames], hidden[:, :frames]


def decode_rows(
    half: InferenceDecoder,
    rows: Sequence[Int[Tensor, "layers _"]],
    chunk_frames: int | None = None,
    alone: bool = True,
) -> Iterator[Float[Tensor, "channels _"]]:
    """Audio of each row of codes, downsample_rate samples a frame; see `encode_rows`."""
    step = half.config.downsample_rate
    for group in _groups(rows, alone):
        together = decode_batch(half, pad_rows(group).transpose(0, 1), chunk_frames)
        for row, audio in zip(group, together, strict=True):
            yield audio[:, : row.shape[1] * step]


def _groups(rows: Sequence[Tensor], alone: bool) -> list[list[Tensor]]:
    return [[row] for row in rows] if alone else [list(rows)]


def encode_batch(
    half: InferenceEncoder,
    audio: Float[Tensor, "batch channels samples"],
    num_quantizers: int,
    chunk_frames: int | None = None,
) -> tuple[Int[Tensor, "layers batch frames"], Float[Tensor, "batch width frames"]]:
    """Codes and hidden states of whole frames of audio, one batch, piece by piece."""
    step = half.config.downsample_rate
    pieces = _pieces(half, audio.shape[-1] // step, chunk_frames)
    run = _runner(half, len(audio), pieces)
    codes, hiddens = [], []
    for piece in pieces:
        hidden = run(audio[..., piece.start * step : piece.stop * step], piece.stop - piece.start)
        codes.append(half.quantizer.encode(hidden, num_quantizers))
        hiddens.append(hidden.transpose(1, 2))
    return torch.cat(codes, dim=2), torch.cat(hiddens, dim=2)


def decode_batch(
    half: InferenceDecoder,
    codes: Int[Tensor, "layers batch frames"],
    chunk_frames: int | None = None,
) -> Float[Tensor, "batch channels samples"]:
    """Audio of codes, one batch, piece by piece."""
    step, batch = half.config.downsample_rate, codes.shape[1]
    pieces = _pieces(half, codes.shape[2], chunk_frames)
    run = _runner(half, batch, pieces)
    shape = (batch, half.config.number_channels, codes.shape[2] * step)
    audio = torch.empty(shape, device=codes.device)
    for piece in pieces:
        hidden = half.quantizer.decode(codes[:, :, piece])
        samples = slice(piece.start * step, piece.stop * step)
        audio[..., samples] = run(hidden, piece.stop - piece.start)
    return audio


def _pieces(
    half: InferenceEncoder | InferenceDecoder, frames: int, chunk: int | None
) -> list[slice]:
    size = chunk or max(1, round(PIECE_SECONDS * half.config.frame_rate))
    return [slice(start, min(start + size, frames)) for start in range(0, frames, size)]


def _runner(
    half: InferenceEncoder | InferenceDecoder, batch: int, pieces: list[slice]
) -> Callable[[Tensor, int], Tensor]:
    """What runs one piece after the other: (input, frames) to output."""
    if len(pieces) == 1:
        return lambda x, _frames: half.run_piece(x)
    size = pieces[0].stop
    if size * half.stack.most_steps_per_frame > LONGEST_STEP:
        pieces_state = half.stack.init_pieces()
        return lambda x, _frames: half.run_piece(x, pieces_state)
    rings = half.stack.init_state(batch, size)
    return lambda x, frames: half.step(
        x, rings, StepBatch.of(rings, range(batch), [frames] * batch)
    )
