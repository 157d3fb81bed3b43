"""Whether something computes what a codec must; for people who reimplement it.

What is compared with golden vectors is a `Subject`: a codec of this package, or a port of it behind
a server.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..codes import Codec, CodecInfo
from ..errors import InputError
from .golden_vectors import Clip, Codes, GoldenVectors, Vector

# Share of the codes that may differ: nearly equal distances fall either way in float32.
CODES_TOLERANCE = 1e-3
# Of the audio: the RMS of the difference over that of the audio.
AUDIO_TOLERANCE = 1e-4
# Where audio comes in 16 bits: the least level, in steps, at which it differs from silence.
_LEAST_STEPS = 100


class Subject(Protocol):
    """What is verified; a clip at a time.

    Attributes:
        audio_step: of whole audio: 1/32768 where it comes in 16 bits, 0 where it comes in floats.
    """

    audio_step: float

    @property
    def info(self) -> CodecInfo:
        """What the codec is."""
        ...

    def encode(self, audio: Clip, num_quantizers: int) -> Codes:
        """Codes of a whole clip."""
        ...

    def decode(self, codes: Codes) -> Clip:
        """Audio of whole codes."""
        ...

    def encode_live(self, audio: Clip) -> Codes:
        """Codes of all layers, from a stream."""
        ...

    def decode_live(self, codes: Codes) -> Clip:
        """Audio from a stream."""
        ...


@dataclass(frozen=True)
class Check:
    """One comparison: how close something is, and how close it must be."""

    name: str
    passed: bool
    found: str
    expected: str


class LocalSubject:
    """A codec of this package; streams take a frame at a time."""

    audio_step = 0.0

    def __init__(self, codec: Any) -> None:
        self._codec = codec
        self.info: CodecInfo = codec.info
        self.decode = codec.decode

    def encode(self, audio: Clip, num_quantizers: int) -> Codes:
        """Codes of a complete clip."""
        return self._codec.encode(audio, num_quantizers=num_quantizers)

    def encode_live(self, audio: Clip) -> Codes:
        """Codes of a clip that is streamed."""
        session = self._codec.encoder_stream(1, 1)
        slot, step = session.open(), self.info.downsample_rate
        starts = range(0, audio.shape[1], step)
        parts = [session.step({slot: audio[:, start : start + step]})[slot] for start in starts]
        return np.concatenate([*parts, session.close(slot)], axis=1)

    def decode_live(self, codes: Codes) -> Clip:
        """Audio of codes that are streamed."""
        session = self._codec.decoder_stream(1, 1)
        slot = session.open()
        frames = range(codes.shape[1])
        parts = [session.step({slot: codes[:, frame : frame + 1]})[slot] for frame in frames]
        return np.concatenate(parts, axis=1)


def make_vectors(codec: Codec, source: str) -> GoldenVectors:
    """What a codec computes on two clips of noise and tones, longer than a second."""
    info = codec.info
    clips = [_probe(info, seconds, seed) for seed, seconds in enumerate((2.0, 1.37))]
    whole = [codec.encode(clip) for clip in clips]
    few = min(3, info.num_quantizers)
    first = codec.encode(clips[0], num_quantizers=few)
    encodings = [*map(Vector, ("codes of clip 1", "codes of clip 2"), clips, whole)]
    encodings.append(Vector(f"codes of clip 1, {few} layers", clips[0], first))
    decodings = [
        Vector(f"audio of codes {row + 1}", codec.decode(codes), codes)
        for row, codes in enumerate(whole)
    ]
    start = whole[0][:few]
    decodings.append(Vector(f"audio of codes 1, {few} layers", codec.decode(start), start))
    return GoldenVectors(source, tuple(encodings), tuple(decodings))


def _probe(info: CodecInfo, seconds: float, seed: int) -> Clip:
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * info.sampling_rate)) / info.sampling_rate
    tones = random.uniform(80, 1200, (info.num_channels, 6, 1))
    clip = 0.05 * np.sin(2 * np.pi * tones * time).sum(1)
    clip += 0.03 * random.standard_normal(clip.shape) * (np.sin(7 * time) > 0)
    return clip.astype(np.float32)


def num_checks(vectors: GoldenVectors) -> int:
    """How many comparisons `verify` makes."""
    return len(vectors.encodings) + len(vectors.decodings) + 2


def verify(subject: Subject, vectors: GoldenVectors) -> Iterator[Check]:
    """Compare a codec, whole clips and streams, with golden vectors.

    Raises:
        InputError: the vectors are of a codec of another shape, or too quiet for 16 bits.
    """
    _check_shape(subject, vectors)
    step = vectors.shape[2]
    for encoding in vectors.encodings:
        got = subject.encode(encoding.audio, len(encoding.codes))
        yield _codes_check(encoding.name, got, encoding, step)
    first = vectors.encodings[0]
    yield _codes_check(f"{first.name}, streamed", subject.encode_live(first.audio), first, step)
    for decoding in vectors.decodings:
        got = subject.decode(decoding.codes)
        yield _audio_check(decoding.name, got, decoding.audio, subject.audio_step)
    start = vectors.decodings[0]
    got = subject.decode_live(start.codes)
    yield _audio_check(f"{start.name}, streamed", got, start.audio, 0.0)


def _check_shape(subject: Subject, vectors: GoldenVectors) -> None:
    info, expected = subject.info, vectors.shape
    found = (info.num_quantizers, info.num_channels, info.downsample_rate)
    if found != expected:
        raise InputError(
            f"the codec has {found[0]} layers, {found[1]} channels and {found[2]} samples a frame; "
            f"the vectors in {vectors.source} have {expected[0]}, {expected[1]} and {expected[2]}: "
            "they are of another codec"
        )
    quietest = min(_level(decoding.audio) for decoding in vectors.decodings)
    if quietest < _LEAST_STEPS * subject.audio_step:
        raise InputError(
            f"audio of the vectors in {vectors.source} has an RMS of {quietest:.1e}; expected at "
            f"least {_LEAST_STEPS * subject.audio_step:.1e} where it comes in 16 bits"
        )


def _level(audio: Clip) -> float:
    """RMS."""
    return float(np.sqrt(np.square(audio, dtype=np.float64).mean()))


def _codes_check(name: str, got: Codes, encoding: Vector, samples_per_frame: int) -> Check:
    expected = encoding.codes
    # All that the clip has; vectors may know fewer.
    frames = max(expected.shape[1], -(-encoding.audio.shape[1] // samples_per_frame))
    if got.shape != (len(expected), frames):
        return Check(name, False, f"shape {got.shape}", f"shape {(len(expected), frames)}")
    differing = int((got[:, : expected.shape[1]] != expected).sum())
    found = f"{differing} of {expected.size:,} differ"
    passed = differing <= CODES_TOLERANCE * expected.size
    return Check(name, passed, found, f"at most {CODES_TOLERANCE:.1%} of them differ")


def _audio_check(name: str, got: Clip, expected: Clip, step: float) -> Check:
    if got.shape != expected.shape:
        return Check(name, False, f"shape {got.shape}", f"shape {expected.shape}")
    reference = np.clip(expected, -1, 1 - step) if step else expected
    level = max(_level(reference), 1e-12)
    off = _level(got - reference) / level
    # Rounding to steps is off by 0.29 of a step, and with dither by 0.5.
    allowed = AUDIO_TOLERANCE + step / 2 / level
    passed = bool(np.isfinite(off)) and off <= allowed
    return Check(name, passed, f"off by {off:.1e} of its RMS", f"at most {allowed:.1e}")
