"""Whole clips, of any number and any length, in memory that does not grow with the length.

A clip longer than a piece is worked through piece by piece, the encoder's or decoder's state
carried along, which gives the same result as one pass. Owns the cutting and what is computed
together; the codec does the computing, checks and formats are the callers'.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .codec import Codec
from .inputs import pad_rows

# Long enough that the work of a piece dwarfs the keys carried over, short enough for caches.
PIECE_SECONDS = 10.0


def encode_rows(
    codec: Codec,
    clips: Sequence[Float[Tensor, "channels _"]],
    num_quantizers: int,
    chunk_frames: int | None = None,
    alone: bool = True,
) -> Iterator[tuple[Int[Tensor, "layers _"], Float[Tensor, "width _"]]]:
    """Codes and hidden states of each clip, ceil(samples / downsample_rate) frames.

    Args:
        codec: with its encoder.
        clips: samples of any lengths, on the codec's device.
        num_quantizers: layers of codes.
        chunk_frames: frames a piece (default: about `PIECE_SECONDS`).
        alone: compute every clip by itself, so that it cannot depend on the others.
    """
    step = codec.config.downsample_rate
    padded = [F.pad(clip, (0, -clip.shape[1] % step)) for clip in clips]
    for rows in _groups(padded, alone):
        together = encode_batch(codec, pad_rows(rows), num_quantizers, chunk_frames)
        for row, codes, hidden in zip(rows, together[0].unbind(1), together[1], strict=True):
            frames = row.shape[1] // step
            yield codes[:, :frames], hidden[:, :frames]


def decode_rows(
    codec: Codec,
    rows: Sequence[Int[Tensor, "layers _"]],
    chunk_frames: int | None = None,
    alone: bool = True,
) -> Iterator[Float[Tensor, "channels _"]]:
    """Audio of each row of codes, downsample_rate samples a frame; see `encode_rows`."""
    step = codec.config.downsample_rate
    for group in _groups(rows, alone):
        together = decode_batch(codec, pad_rows(group).transpose(0, 1), chunk_frames)
        for row, audio in zip(group, together, strict=True):
            yield audio[:, : row.shape[1] * step]


def _groups(rows: Sequence[Tensor], alone: bool) -> list[list[Tensor]]:
    return [[row] for row in rows] if alone else [list(rows)]


def encode_batch(
    codec: Codec,
    audio: Float[Tensor, "batch channels samples"],
    num_quantizers: int,
    chunk_frames: int | None = None,
) -> tuple[Int[Tensor, "layers batch frames"], Float[Tensor, "batch width frames"]]:
    """Codes and hidden states of whole frames of audio, one batch, piece by piece."""
    encoder, step = codec.require_encoder(), codec.config.downsample_rate
    pieces = _pieces(codec, audio.shape[-1] // step, chunk_frames)
    state = encoder.init_state() if len(pieces) > 1 else None
    codes, hiddens = [], []
    for piece in pieces:
        hidden = encoder(audio[..., piece.start * step : piece.stop * step], state).float()
        codes.append(codec.quantizer.encode(hidden, num_quantizers))
        hiddens.append(hidden.transpose(1, 2))
    return torch.cat(codes, dim=2), torch.cat(hiddens, dim=2)


def decode_batch(
    codec: Codec, codes: Int[Tensor, "layers batch frames"], chunk_frames: int | None = None
) -> Float[Tensor, "batch channels samples"]:
    """Audio of codes, one batch, piece by piece."""
    decoder, step = codec.require_decoder(), codec.config.downsample_rate
    pieces = _pieces(codec, codes.shape[2], chunk_frames)
    state = decoder.init_state() if len(pieces) > 1 else None
    shape = (codes.shape[1], codec.config.number_channels, codes.shape[2] * step)
    audio = torch.empty(shape, device=codes.device)
    for piece in pieces:
        hidden = codec.quantizer.decode(codes[:, :, piece])
        audio[..., piece.start * step : piece.stop * step] = decoder(hidden, state)
    return audio


def _pieces(codec: Codec, frames: int, chunk_frames: int | None) -> list[slice]:
    size = chunk_frames or max(1, round(PIECE_SECONDS * codec.config.frame_rate))
    return [slice(start, min(start + size, frames)) for start in range(0, frames, size)]
