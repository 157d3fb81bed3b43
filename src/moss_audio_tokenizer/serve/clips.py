"""Whole files through the server's one batch: each is a stream that is fed all at once.

So a long file never keeps live streams waiting for more than a step, and gives what offline
encoding and decoding give. Bytes in, bytes out; knows no HTTP.
"""

import asyncio
import io
from functools import partial

import numpy as np
from jaxtyping import Float

from ..audio import encode_audio, load_audio
from ..audio.reading import open_audio
from ..codes import AudioCodes, CodecInfo
from ..codes.clip_codes import ClipCodes
from ..codes.moss_format import HEADER_SIZE, from_bytes
from ..errors import CodesError, ModelMismatchError
from .streams import Streams

# What a second of a file may hold, in values of all channels together: 48 kHz stereo.
_MAX_VALUES_A_SECOND = 96_000


async def encode_clip(streams: Streams, recording: bytes, num_quantizers: int | None) -> AudioCodes:
    """The codes of a sound file.

    Raises:
        AudioError, AudioFileError, CodesError: see each message.
        ServerError: the stream was broken off.
    """
    info = streams.info
    layers = _checked_layers(num_quantizers, info)
    async with streams.clip("encode") as stream:
        read = partial(_read, recording, info, streams.settings.max_clip_seconds)
        audio = await asyncio.to_thread(read)
        await stream.feed(audio)
        stream.finish()
        pieces = [codes async for codes, _ in stream.results()]
    return AudioCodes(
        np.concatenate(pieces, axis=1)[:layers],
        info.sampling_rate,
        audio.shape[1],
        downsample_rate=info.downsample_rate,
        num_channels=info.num_channels,
        codebook_size=info.codebook_size,
        model=info.identity,
    )


async def decode_clip(
    streams: Streams, document: bytes, num_quantizers: int | None, audio_format: str
) -> bytes:
    """A .moss document as a sound file: "wav", "flac" or "opus".

    Raises:
        CodesError, CodesFileError, ModelMismatchError, AudioFileError: see each message.
        ServerError: the stream was broken off.
    """
    codes = await asyncio.to_thread(from_bytes, document, "the document")
    require_model(codes, streams.info)
    if codes.duration_seconds > streams.settings.max_clip_seconds:
        raise CodesError(
            f"the codes hold {codes.duration_seconds:.0f} s; expected at most "
            f"{streams.settings.max_clip_seconds:g} s: send them in parts"
        )
    layers = _checked_layers(num_quantizers, streams.info)
    async with streams.clip("decode") as stream:
        await stream.feed(codes.codes[:layers])
        stream.finish()
        pieces = [audio async for audio, _ in stream.results()]
        audio = np.concatenate(pieces, axis=1)[:, : codes.num_samples]
        rate = streams.info.sampling_rate
        return await asyncio.to_thread(encode_audio, audio, rate, f".{audio_format}")


def largest_document(info: CodecInfo, max_seconds: float) -> float:
    """Bytes that a .moss document of so many seconds has at most; codes take 64 bits in memory."""
    return HEADER_SIZE + (max_seconds + 1) * info.bitrate() / 8


def require_model(codes: ClipCodes, info: CodecInfo) -> None:
    """Refuse codes that mean nothing to the model.

    Raises:
        ModelMismatchError: they were made by another model.
    """
    if codes.model and codes.model != info.identity:
        raise ModelMismatchError(
            f"these codes were made by model {codes.model}; this server runs {info.identity}"
        )


def _checked_layers(num_quantizers: int | None, info: CodecInfo) -> int:
    layers = info.num_quantizers if num_quantizers is None else num_quantizers
    if not 1 <= layers <= info.num_quantizers:
        raise CodesError(f"num_quantizers is {layers}; expected 1 to {info.num_quantizers}")
    return layers


def _read(
    recording: bytes, info: CodecInfo, max_seconds: float
) -> Float[np.ndarray, "channels samples"]:
    with open_audio(io.BytesIO(recording)) as file:
        values_a_second = file.samplerate * file.channels
    allowed = max_seconds * min(1.0, _MAX_VALUES_A_SECOND / values_a_second)
    return load_audio(
        io.BytesIO(recording), info.sampling_rate, info.num_channels, max_seconds=allowed
    )
