"""Codes as the token sequences of a language model: flat ids, delays, special tokens, batches.

Owns the arithmetic of token ids in NumPy; knows nothing of models, files or text tokens. Every
function has an inverse or a mask, so that no frame is lost on the way back to audio. A clip's codes
may be an array (num_quantizers, frames), or the `AudioCodes` that shards and files hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from ..errors import CodesError
from .container import AudioCodes

SPECIAL_TOKENS = ("pad", "begin", "end")


@dataclass(frozen=True)
class CodeVocabulary:
    """Token ids of all quantizer layers in one range, with special tokens behind them.

    Layer q's code k has the id ``first_id + q * codebook_size + k``. Behind the codes come "pad",
    "begin" and "end".

    Attributes:
        num_quantizers: layers of codes in a frame.
        codebook_size: codes of a layer.
        first_id: the first id that is free, such as the size of a text vocabulary.
    """

    num_quantizers: int
    codebook_size: int = 1024
    first_id: int = 0

    def __post_init__(self) -> None:
        if min(self.num_quantizers, self.codebook_size) < 1 or self.first_id < 0:
            raise CodesError(
                f"{self} has no codes; expected sizes above 0 and a first_id from 0 on"
            )

    @property
    def num_codes(self) -> int:
        """How many ids codes have."""
        return self.num_quantizers * self.codebook_size

    @property
    def size(self) -> int:
        """The first id behind this vocabulary: rows that an embedding table needs."""
        return self.first_id + self.num_codes + len(SPECIAL_TOKENS)

    def special(self, name: str) -> int:
        """The id of "pad", "begin" or "end"."""
        if name not in SPECIAL_TOKENS:
            raise CodesError(f"no special token {name!r}; there are {', '.join(SPECIAL_TOKENS)}")
        return self.first_id + self.num_codes + SPECIAL_TOKENS.index(name)

    def flatten(self, codes: Int[np.ndarray, "num_quantizers frames"]) -> Int[np.ndarray, " ids"]:
        """Token ids frame by frame, layer by layer within a frame, as int64.

        Raises:
            CodesError: the codes have another number of layers, or values out of range.
        """
        codes = _checked(codes, self.num_quantizers, self.codebook_size)
        offsets = self.first_id + np.arange(self.num_quantizers) * self.codebook_size
        return (codes + offsets[:, None]).T.reshape(-1)

    def unflatten(self, ids: Int[np.ndarray, " ids"]) -> Int[np.ndarray, "num_quantizers frames"]:
        """The inverse of `flatten`; special tokens and an unfinished last frame are left out.

        Raises:
            CodesError: an id belongs to another layer than its position says.
        """
        ids = np.asarray(ids, dtype=np.int64).reshape(-1) - self.first_id
        ids = ids[(ids >= 0) & (ids < self.num_codes)]
        whole = len(ids) // self.num_quantizers * self.num_quantizers
        frames = ids[:whole].reshape(-1, self.num_quantizers)
        codes = frames - np.arange(self.num_quantizers) * self.codebook_size
        if codes.size and not 0 <= codes.min() <= codes.max() < self.codebook_size:
            raise CodesError("token ids are not in the order of layers; was one dropped or added?")
        return codes.T


def delay(
    codes: Int[np.ndarray, "num_quantizers frames"], pad: int
) -> Int[np.ndarray, "num_quantizers steps"]:
    """The delay pattern: layer q starts q steps later, so that a step has one code of each layer.

    Args:
        codes: of one clip.
        pad: fills the steps before a layer begins and after it ends; ``codebook_size`` is free.

    Returns:
        codes in ``frames + num_quantizers - 1`` steps.
    """
    codes = _array(codes)
    num_quantizers, frames = codes.shape
    delayed = np.full((num_quantizers, frames + num_quantizers - 1), pad, dtype=np.int64)
    for layer in range(num_quantizers):
        delayed[layer, layer : layer + frames] = codes[layer]
    return delayed


def undelay(
    delayed: Int[np.ndarray, "num_quantizers steps"],
) -> Int[np.ndarray, "num_quantizers frames"]:
    """The inverse of `delay`; of an unfinished sequence, the frames that are complete."""
    num_quantizers, steps = delayed.shape
    frames = max(0, steps - num_quantizers + 1)
    return np.stack([row[layer : layer + frames] for layer, row in enumerate(delayed)])


def pad_batch(
    clips: Sequence[Int[np.ndarray, "num_quantizers frames"]], pad: int = 0
) -> tuple[Int[np.ndarray, "batch num_quantizers frames"], Bool[np.ndarray, "batch frames"]]:
    """Clips of different lengths as one array, batch first, and which frames are real.

    Raises:
        CodesError: there are no clips, or they differ in their number of layers.
    """
    clips = [_array(clip) for clip in clips]
    if len({clip.shape[0] for clip in clips}) != 1:
        raise CodesError(
            "a batch needs clips with one number of layers; use the first layers of all"
        )
    frames = np.array([clip.shape[1] for clip in clips])
    padded = np.full((len(clips), clips[0].shape[0], frames.max()), pad, dtype=np.int64)
    for row, clip in zip(padded, clips, strict=True):
        row[:, : clip.shape[1]] = clip
    return padded, np.arange(frames.max()) < frames[:, None]


def _array(codes: Any) -> np.ndarray:
    """The array of a clip's codes.

    Raises:
        CodesError: it has other axes than num_quantizers and frames.
    """
    array = np.asarray(codes.codes if isinstance(codes, AudioCodes) else codes)
    if array.ndim != 2:
        raise CodesError(
            f"codes have shape {list(array.shape)}; expected (num_quantizers, frames), one clip's"
        )
    return array


def _checked(codes: Any, num_quantizers: int, codebook_size: int) -> np.ndarray:
    codes = _array(codes)
    if codes.shape[0] != num_quantizers or codes.dtype.kind not in "iu":
        raise CodesError(
            f"codes are {codes.dtype} of shape {list(codes.shape)}; expected integers of shape "
            f"({num_quantizers}, frames)"
        )
    if codes.size and not 0 <= codes.min() <= codes.max() < codebook_size:
        raise CodesError(f"codes are not all in 0 to {codebook_size - 1}")
    return codes.astype(np.int64)
