"""Writing sound files: wav and flac, whole or not at all, and encoding into memory.

Owns the rounding of floats to PCM. libsndfile only lays out the bytes, in memory, because it
does not report a full disk; the file itself is written by Python. It does not know models.
"""

import io
import os
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float, Int32, Shaped
from numpy.typing import ArrayLike

from ..errors import AudioError, AudioFileError
from ..files import write_file
from .containers import ogg_checksum
from .samples import (
    as_float_audio,
    check_audio,
    check_finite,
    check_sampling_rate,
    check_shape,
)

_SUBTYPES = {".wav": ("PCM_16", "PCM_24", "PCM_32", "FLOAT"), ".flac": ("PCM_16", "PCM_24")}
# Bits of an integer that each subtype keeps; a float32 has 24.
_BITS = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 24}
_BLOCK_SAMPLES = 1 << 16
_MAX_WAV_BYTES = (1 << 32) - 4096
_MAX_FLAC_CHANNELS = 8
_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)


def save_audio(
    path: str | os.PathLike[str],
    audio: ArrayLike,
    sampling_rate: int,
    *,
    subtype: str | None = None,
) -> None:
    """Write a .wav or .flac file beside its target and move it there when it is complete.

    Floats are rounded to the nearest PCM value, those beyond full scale are clipped to -1
    and 1 (only FLOAT keeps them); so what load_audio read from 16-bit PCM is written back
    bit for bit. int16 and int32 are written exactly or refused, never rounded.

    Args:
        path: the target, .wav or .flac; an existing file is replaced.
        audio: (samples,) or (channels, samples); float, int16, int32, or other PCM.
        sampling_rate: samples a second, 8,000 to 192,000.
        subtype: PCM_16, PCM_24, and for wav also PCM_32 and FLOAT. None is PCM_16, and for
            int32 input the widest PCM of the format.

    Raises:
        AudioError: unusable audio, rate or subtype, or integers that do not fit the subtype.
        AudioFileError: an unknown extension, or the file cannot be written.
    """
    extension = _check_extension(path)
    data = _encoded(repr(os.fspath(path)), audio, sampling_rate, extension, subtype)
    write_file(path, data.getbuffer(), AudioFileError)


def encode_audio(audio: ArrayLike, sampling_rate: int, extension: str) -> bytes:
    """The bytes of a sound file: the same for the same samples, wherever they are encoded.

    Args:
        audio: as for `save_audio`.
        sampling_rate: samples a second; 8, 12, 16, 24 or 48 kHz for opus.
        extension: ".wav" and ".flac" hold 16 bits a sample, ".opus" is lossy.

    Raises:
        AudioError: unusable audio or rate.
        AudioFileError: an unknown extension, or the format cannot hold such audio.
    """
    if extension == ".opus":
        return _opus(check_audio(audio), check_sampling_rate(sampling_rate))
    _check_extension(f"audio{extension}")
    return _encoded("audio", audio, sampling_rate, extension, "PCM_16").getvalue()


def _encoded(
    name: str, audio: ArrayLike, sampling_rate: int, extension: str, subtype: str | None
) -> io.BytesIO:
    rate = check_sampling_rate(sampling_rate)
    samples = _check_samples(audio, extension)
    subtype = _check_subtype(extension, subtype, samples)
    try:
        return _encode(samples, rate, extension, subtype)
    except soundfile.LibsndfileError as problem:  # such as flac at 96,001 samples a second
        raise AudioFileError(
            f"cannot write {name}: {extension} cannot hold {rate} samples a second "
            f"({problem.error_string}); use .wav"
        ) from problem


def _opus(samples: Float[np.ndarray, "channels samples"], rate: int) -> bytes:
    if rate not in _OPUS_RATES or len(samples) > 2:
        raise AudioFileError(
            f"opus cannot hold {len(samples)} channels at {rate} samples a second; expected 1 or 2 "
            f"channels at {', '.join(map(str, _OPUS_RATES))}: convert them, or use flac"
        )
    data = io.BytesIO()
    with soundfile.SoundFile(data, "w", rate, len(samples), "OPUS", format="OGG") as file:
        for start in range(0, samples.shape[1], _BLOCK_SAMPLES):
            file.write(np.ascontiguousarray(samples[:, start : start + _BLOCK_SAMPLES].T))
    return _without_serial_number(data.getvalue())


def _without_serial_number(data: bytes) -> bytes:
    """An Ogg file whose stream has the number 0 in place of a random one."""
    pages, start = [], 0
    while start < len(data):
        lacing_end = start + 27 + data[start + 26]
        end = lacing_end + sum(data[start + 27 : lacing_end])
        page = bytearray(data[start:end])
        page[14:18] = page[22:26] = bytes(4)
        page[22:26] = ogg_checksum(bytes(page)).to_bytes(4, "little")
        pages.append(bytes(page))
        start = end
    return b"".join(pages)


def _check_extension(path: str | os.PathLike[str]) -> str:
    extension = Path(path).suffix.lower()
    if extension not in _SUBTYPES:
        raise AudioFileError(
            f"cannot write {os.fspath(path)!r}: unknown extension {extension!r}; "
            "expected .wav or .flac"
        )
    return extension


def _check_samples(audio: ArrayLike, extension: str) -> Shaped[np.ndarray, "channels samples"]:
    """(channels, samples), with int16 and int32 kept as they are and the rest as float32."""
    samples = np.asarray(audio) if isinstance(audio, np.ndarray) else as_float_audio(audio)
    if samples.dtype.name not in ("int16", "int32"):
        samples = as_float_audio(samples)
    samples = check_shape(samples)
    if samples.dtype.kind == "f":
        check_finite(samples)
    if extension == ".flac" and len(samples) > _MAX_FLAC_CHANNELS:
        raise AudioError(f"got {len(samples)} channels; flac has at most 8: use .wav")
    return samples


def _check_subtype(extension: str, subtype: str | None, samples: np.ndarray) -> str:
    allowed = _SUBTYPES[extension]
    is_wide = samples.dtype.name == "int32"
    if subtype is None:
        subtype = [name for name in allowed if name != "FLOAT"][-1] if is_wide else "PCM_16"
    if subtype not in allowed:
        raise AudioError(
            f"got subtype {subtype!r}; expected one of {', '.join(allowed)} for {extension}"
        )
    lost_bits = (1 << (32 - _BITS[subtype])) - 1
    if is_wide and np.any(samples & np.int32(lost_bits)):
        raise AudioError(
            f"these int32 samples do not fit {subtype} of {extension} exactly: use .wav with "
            "PCM_32, or as_float_audio first to have them rounded"
        )
    num_bytes = samples.size * (32 if subtype == "FLOAT" else _BITS[subtype]) // 8
    if extension == ".wav" and num_bytes > _MAX_WAV_BYTES:
        raise AudioError(f"got {num_bytes} bytes of samples; wav holds 4 GiB: use .flac")
    return subtype


def _encode(samples: np.ndarray, sampling_rate: int, extension: str, subtype: str) -> io.BytesIO:
    data = io.BytesIO()
    num_channels, num_samples = samples.shape
    layout = extension[1:].upper()
    with soundfile.SoundFile(
        data, "w", sampling_rate, num_channels, subtype=subtype, format=layout
    ) as file:
        for start in range(0, num_samples, _BLOCK_SAMPLES):
            block = samples[:, start : start + _BLOCK_SAMPLES]
            values = as_float_audio(block) if subtype == "FLOAT" else _as_pcm(block, subtype)
            file.write(np.ascontiguousarray(values.T))
    return data


def _as_pcm(
    block: Shaped[np.ndarray, "channels samples"], subtype: str
) -> Int32[np.ndarray, "channels samples"]:
    """32-bit PCM whose upper bits are the subtype's, which is how libsndfile takes them."""
    if block.dtype.kind == "i":
        return block.astype(np.int32) << (32 - block.dtype.itemsize * 8)
    bits = _BITS[subtype]
    full_scale = 2.0 ** (bits - 1)
    rounded = np.rint(block.astype(np.float64) * full_scale)
    return np.clip(rounded, -full_scale, full_scale - 1).astype(np.int32) << (32 - bits)
