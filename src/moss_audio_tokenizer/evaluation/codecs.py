"""Evaluated codecs: codecs of any kind behind one small interface.

Owns the interface and the adapter for everything that speaks the `Codec` protocol (this
package's models in any runtime, a served codec); knows nothing of metrics or files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Integer

from ..codes import Codec, CodecInfo
from ..errors import CodesError


@dataclass(frozen=True)
class CodedClip:
    """A clip after a codec, at one bitrate.

    Attributes:
        num_quantizers: layers of codes that were decoded; None for a codec without layers.
        nominal_kbps: kilobits a second that were asked for.
        num_bits: bits of the coded clip; what is counted stands with each codec.
        audio: decoded samples at the codec's rate; delays are not its concern.
        codes: what was decoded, where there are codes to look at.
    """

    num_quantizers: int | None
    nominal_kbps: float
    num_bits: int
    audio: Float[np.ndarray, "channels samples"]
    codes: Integer[np.ndarray, "num_quantizers frames"] | None = None


class EvaluatedCodec(Protocol):
    """A codec in a comparison.

    Attributes:
        name: as the user knows it, such as "opus:6"; unique in a comparison.
        identity: which version it is, so that results of another one are not taken for its own.
        sampling_rate: samples a second that go in and come out.
        num_channels: channels that go in and come out.
        quantizer_counts: numbers of quantizers it is measured at, in the order of the coded clips;
            (None,) for a codec without layers.
        codebook_size: entries of each codebook; 0 for a codec without codes.
    """

    name: str
    identity: str
    sampling_rate: int
    num_channels: int
    quantizer_counts: tuple[int | None, ...]
    codebook_size: int

    def code(self, audio: Float[np.ndarray, "channels samples"]) -> Sequence[CodedClip]:
        """The clip through the codec, once for each of its quantizer_counts."""
        ...


Opener = Callable[[], EvaluatedCodec]
"""Makes a codec; it travels to worker processes, so it is a partial of a named function."""


class LayeredCodec:
    """A `Codec` at several quantizer_counts: a clip is encoded once, fewer layers are its prefix.

    Its bits are those of the codes, without any file's header.

    Raises:
        CodesError: a number of quantizers that the codec does not have.
    """

    def __init__(self, codec: Codec, name: str, quantizer_counts: Sequence[int] = ()) -> None:
        info = codec.info
        counts = checked_counts(quantizer_counts, info.num_quantizers, name)
        self.quantizer_counts: tuple[int | None, ...] = tuple(counts or [info.num_quantizers])
        self.name, self.identity = name, info.identity
        self.sampling_rate, self.num_channels = info.sampling_rate, info.num_channels
        self.codebook_size = info.codebook_size
        self._codec = codec

    def code(self, audio: Float[np.ndarray, "channels samples"]) -> list[CodedClip]:
        """The clip at every number of quantizers; samples past its end are cut off."""
        counts = [count for count in self.quantizer_counts if count]
        codes = self._codec.encode(audio, num_quantizers=max(counts))
        return [self._coding(codes[:count], audio.shape[1]) for count in counts]

    def _coding(self, codes: np.ndarray, num_samples: int) -> CodedClip:
        info = self._codec.info
        decoded = self._codec.decode(codes)[:, :num_samples]
        bits = codes.size * (info.codebook_size - 1).bit_length()
        return CodedClip(len(codes), info.bitrate(len(codes)) / 1000, bits, decoded, codes)


def counts_at(info: CodecInfo, bitrates: Sequence[float]) -> tuple[int, ...]:
    """The numbers of quantizers at which a codec has given bitrates; others are left out.

    A codec that has none of them is measured as near to them as it comes: at the number whose
    bitrate is next to each that it reaches, or at its lowest or highest one.

    Args:
        info: of the codec.
        bitrates: in bits a second.
    """
    counts = range(1, info.num_quantizers + 1)
    exact = tuple(count for count in counts if info.bitrate(count) in bitrates)
    if exact:
        return exact
    reached = [rate for rate in bitrates if rate <= info.bitrate(info.num_quantizers)]
    wanted = reached or [min(bitrates)]
    nearest = {min(counts, key=lambda count: abs(info.bitrate(count) - rate)) for rate in wanted}
    return tuple(sorted(nearest))


def checked_counts(wanted: Sequence[int], most: int, name: str) -> list[int]:
    """Numbers of quantizers from the lowest, each once.

    Raises:
        CodesError: one of them is not 1 to the most that the model of this name has.
    """
    for count in wanted:
        if not 1 <= count <= most:
            raise CodesError(f"num_quantizers is {count}; expected 1 to {most} for {name!r}")
    return sorted(set(wanted))
