"""Golden vectors: the file of the reference, ``io.safetensors``; `golden` compares.

Every tensor is checked before anything is computed, so that what fails later is the codec's fault.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from safetensors.numpy import load_file, save

from ..codes import CodecInfo
from ..errors import CheckpointError, InputError, one_line
from ..files import require_file, write_file

VECTORS_NAME = "io.safetensors"

Clip = Float[np.ndarray, "channels samples"]
Codes = Integer[np.ndarray, "num_quantizers frames"]
Tensors = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Vector:
    """A clip and the codes of its first frames, or codes and the audio that they become."""

    name: str
    audio: Clip
    codes: Codes


@dataclass(frozen=True)
class GoldenVectors:
    """What a codec must compute; the first encoding has all layers.

    The source says where the vectors are from.
    """

    source: str
    encodings: tuple[Vector, ...]
    decodings: tuple[Vector, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers of the codec, channels, and samples a frame."""
        first = self.decodings[0]
        samples = first.audio.shape[1] // first.codes.shape[1]
        return len(self.encodings[0].codes), len(first.audio), samples


def read_vectors(path: Path) -> GoldenVectors:
    """The vectors in a file, or in the folder that holds ``io.safetensors``.

    Raises:
        CheckpointError: they are missing, damaged, or not such as a codec can compute.
    """
    file = path / VECTORS_NAME if path.is_dir() else path
    require_file(file, error=CheckpointError)
    try:
        tensors = load_file(file)
    except Exception as problem:  # of types that NumPy lacks come TypeErrors and AttributeErrors
        raise CheckpointError(
            f"{file} cannot be read as golden vectors ({one_line(problem)})"
        ) from problem
    try:
        _check_clips(tensors)
        _check_sounds(tensors)
    except InputError as problem:
        raise CheckpointError(f"{file} holds no golden vectors: {problem}") from problem
    return GoldenVectors(str(file), tuple(_encodings(tensors)), tuple(_decodings(tensors)))


def _check_clips(tensors: Tensors) -> None:
    """What is encoded, and the codes of it."""
    wav = _tensor(tensors, "wav", 3, "f")
    codes = _tensor(tensors, "codes", 3, "iu")
    for name, most in (("lengths", wav.shape[2]), ("codes_lengths", codes.shape[2])):
        lengths = _tensor(tensors, name, 1, "iu")
        if len(lengths) != len(wav) or lengths.min() < 1 or lengths.max() > most:
            raise InputError(f"{name} is {lengths.tolist()}; expected {len(wav)} of 1 to {most}")
    if codes.shape[1] != len(wav):
        raise InputError(f"codes has {codes.shape[1]} rows and wav {len(wav)}; expected as many")
    if "codes_first3" in tensors:
        few = _tensor(tensors, "codes_first3", 3, "iu")
        if few.shape[0] > codes.shape[0] or few.shape[2] < tensors["codes_lengths"][0]:
            raise InputError(f"codes_first3 has shape {few.shape}, which is not of these codes")


def _check_sounds(tensors: Tensors) -> None:
    """What is decoded, and the audio of it."""
    codes, audio = _tensor(tensors, "dec_codes", 3, "iu"), _tensor(tensors, "audio", 3, "f")
    if codes.shape[1] != len(audio) or audio.shape[2] % codes.shape[2]:
        raise InputError(
            f"dec_codes has shape {codes.shape} and audio {audio.shape}; expected (layers, rows, "
            "frames) and (rows, channels, frames x samples a frame)"
        )
    if "audio_first3" in tensors:
        start, step = _tensor(tensors, "audio_first3", 3, "f"), audio.shape[2] // codes.shape[2]
        if start.shape[2] % step or start.shape[2] > audio.shape[2]:
            raise InputError(
                f"audio_first3 has {start.shape[2]} samples; expected whole frames of {step}"
            )


def _tensor(tensors: Tensors, name: str, num_axes: int, kinds: str) -> np.ndarray:
    """A tensor of numbers that can be compared."""
    if name not in tensors:
        raise InputError(f"there is no {name}")
    found = tensors[name]
    if found.ndim != num_axes or not found.size or found.dtype.kind not in kinds:
        raise InputError(
            f"{name} is {found.dtype} of shape {found.shape}; expected {num_axes} axes of "
            f"{'floats' if kinds == 'f' else 'integers'}"
        )
    if not np.isfinite(found).all():
        raise InputError(f"{name} holds values that are not finite")
    return found


def _encodings(tensors: Tensors) -> Iterator[Vector]:
    rows = zip(tensors["wav"], tensors["lengths"], tensors["codes_lengths"], strict=True)
    for row, (wav, samples, frames) in enumerate(rows):
        codes = tensors["codes"][:, row, : int(frames)]
        yield Vector(f"codes of clip {row + 1}", wav[:, : int(samples)], codes)
    if "codes_first3" in tensors:
        # The reference computes it over all of the tensor; only whole frames are compared.
        few = tensors["codes_first3"][:, 0, : int(tensors["codes_lengths"][0])]
        yield Vector(f"codes of clip 1, {len(few)} layers", tensors["wav"][0], few)


def _decodings(tensors: Tensors) -> Iterator[Vector]:
    codes, audio = tensors["dec_codes"], tensors["audio"]
    for row in range(len(audio)):
        yield Vector(f"audio of codes {row + 1}", audio[row], codes[:, row])
    if "audio_first3" in tensors:
        start = tensors["audio_first3"][0]
        # It may be cut off: a causal decoder's start is that of the whole.
        frames = start.shape[1] * codes.shape[2] // audio.shape[2]
        few = codes[:3, 0, :frames]
        yield Vector(f"audio of codes 1, {len(few)} layers", start, few)


def write_vectors(path: Path, vectors: GoldenVectors, info: CodecInfo) -> None:
    """Write the vectors of `golden.make_vectors` to a new file, whole or not at all.

    Raises:
        CheckpointError: the file cannot be written.
    """
    *rows, few = vectors.encodings
    *spoken, first = vectors.decodings
    shortest = min(item.codes.shape[1] for item in spoken)
    samples = shortest * info.downsample_rate
    tensors = {
        "wav": _padded([row.audio for row in rows]),
        "lengths": np.array([row.audio.shape[1] for row in rows]),
        "codes": _padded([row.codes for row in rows]).swapaxes(0, 1),
        "codes_lengths": np.array([row.codes.shape[1] for row in rows]),
        "codes_first3": few.codes[:, None],
        "dec_codes": np.stack([item.codes[:, :shortest] for item in spoken], 1),
        "audio": np.stack([item.audio[:, :samples] for item in spoken]),
        "audio_first3": first.audio[None, :, :samples],
    }
    arrays: dict[str, Any] = {name: np.ascontiguousarray(item) for name, item in tensors.items()}
    write_file(path, save(arrays, {"identity": info.identity}), CheckpointError)


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    longest = max(row.shape[1] for row in rows)
    return np.stack([np.pad(row, ((0, 0), (0, longest - row.shape[1]))) for row in rows])
