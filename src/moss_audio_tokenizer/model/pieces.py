"""Whole clips of any length in memory that does not grow with them.

A clip longer than a piece is worked through piece by piece, the encoder's or decoder's state
carried along, which gives the same result as one pass. Owns the cutting; the codec does the
computing.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .codec import Codec

# Long enough that the work of a piece dwarfs the keys carried over, short enough for caches.
PIECE_SECONDS = 10.0


def piece_frames(codec: Codec, chunk_frames: int | None) -> int:
    """Frames a piece: as asked, or about `PIECE_SECONDS`."""
    return chunk_frames or max(1, round(PIECE_SECONDS * codec.config.frame_rate))


def _pieces(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def encode_clips(
    codec: Codec,
    audio: Float[Tensor, "batch channels samples"],
    num_quantizers: int,
    chunk_frames: int | None = None,
) -> tuple[Int[Tensor, "layers batch frames"], Float[Tensor, "batch width frames"]]:
    """Codes and hidden states of whole frames of audio."""
    encoder = codec.require_encoder()
    step = codec.config.downsample_rate
    total, size = audio.shape[-1] // step, piece_frames(codec, chunk_frames)
    state = encoder.init_state() if total > size else None
    codes, hiddens = [], []
    for piece in _pieces(total, size):
        hidden = encoder(audio[..., piece.start * step : piece.stop * step], state).float()
        codes.append(codec.quantizer.encode(hidden, num_quantizers))
        hiddens.append(hidden.transpose(1, 2))
    return torch.cat(codes, dim=2), torch.cat(hiddens, dim=2)


def decode_clips(
    codec: Codec,
    codes: Int[Tensor, "layers batch frames"],
    chunk_frames: int | None = None,
) -> Float[Tensor, "batch channels samples"]:
    """Audio of codes."""
    decoder = codec.require_decoder()
    total, size = codes.shape[2], piece_frames(codec, chunk_frames)
    state = decoder.init_state() if total > size else None
    step = codec.config.downsample_rate
    audio = torch.empty(
        codes.shape[1], codec.config.number_channels, total * step, device=codes.device
    )
    for piece in _pieces(total, size):
        hidden = codec.quantizer.decode(codes[:, :, piece])
        audio[..., piece.start * step : piece.stop * step] = decoder(hidden, state)
    return audio
