"""Golden vectors: what a codec must compute, and whether something computes it.

Owns their file, which is that of the reference's vectors (wav, codes, audio and their lengths in
``io.safetensors``), and the comparison. What is compared is a `Subject`: a codec of this package,
or a port of it behind a server. For people who write the codec anew elsewhere.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Integer
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..codes import Codec, CodecInfo
from ..errors import CheckpointError, InputError
from ..files import atomic_path, require_file

VECTORS_NAME = "io.safetensors"
# Share of the codes that may differ: nearly equal distances fall either way in float32.
CODES_TOLERANCE = 1e-3
# Of the audio: the RMS of the difference over that of the audio.
AUDIO_TOLERANCE = 1e-4
_PCM_STEP = 1 / 32768

Clip = Float[np.ndarray, "channels samples"]
Codes = Integer[np.ndarray, "num_quantizers frames"]


@dataclass(frozen=True, eq=False)
class Encoding:
    """A clip, and the codes of its first frames.

    Attributes:
        name: of the check.
        audio: what is encoded.
        codes: what comes out, of as many layers as are asked for.
    """

    name: str
    audio: Clip
    codes: Codes


@dataclass(frozen=True, eq=False)
class Decoding:
    """Codes, and the audio that they become.

    Attributes:
        name: of the check.
        codes: what is decoded.
        audio: what comes out.
    """

    name: str
    codes: Codes
    audio: Clip


@dataclass(frozen=True)
class GoldenVectors:
    """What a codec must compute.

    Attributes:
        source: where they are from.
        encodings: in the order of the checks.
        decodings: likewise.
    """

    source: str
    encodings: tuple[Encoding, ...]
    decodings: tuple[Decoding, ...]

    @property
    def num_quantizers(self) -> int:
        """Layers of the codec."""
        return max(len(item.codes) for item in self.encodings)


class Subject(Protocol):
    """What is verified; a clip at a time."""

    # How far whole audio may be off beyond the tolerance: where it comes in 16 bits.
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
    """One comparison.

    Attributes:
        name: what was compared.
        passed: whether it is close enough.
        found: how close it is.
        expected: what would do.
    """

    name: str
    passed: bool
    found: str
    expected: str


class LocalSubject:
    """A codec of this package; streams take a frame at a time."""

    audio_step = 0.0

    def __init__(self, codec: Any) -> None:
        self._codec = codec

    @property
    def info(self) -> CodecInfo:
        """See `Subject`."""
        info: CodecInfo = self._codec.info
        return info

    def encode(self, audio: Clip, num_quantizers: int) -> Codes:
        """See `Subject`."""
        codes: Codes = self._codec.encode(audio, num_quantizers=num_quantizers)
        return codes

    def decode(self, codes: Codes) -> Clip:
        """See `Subject`."""
        audio: Clip = self._codec.decode(codes)
        return audio

    def encode_live(self, audio: Clip) -> Codes:
        """See `Subject`."""
        session = self._codec.encoder_stream(1, 1)
        slot, step = session.open(), self.info.downsample_rate
        starts = range(0, audio.shape[1], step)
        parts = [session.step({slot: audio[:, start : start + step]})[slot] for start in starts]
        return np.concatenate([*parts, session.close(slot)], axis=1)

    def decode_live(self, codes: Codes) -> Clip:
        """See `Subject`."""
        session = self._codec.decoder_stream(1, 1)
        slot = session.open()
        frames = range(codes.shape[1])
        parts = [session.step({slot: codes[:, frame : frame + 1]})[slot] for frame in frames]
        return np.concatenate(parts, axis=1)


def read_vectors(path: Path) -> GoldenVectors:
    """The vectors in a file, or in the folder that holds ``io.safetensors``.

    Raises:
        CheckpointError: they are missing, damaged, or no golden vectors.
    """
    file = path / VECTORS_NAME if path.is_dir() else path
    require_file(file, error=CheckpointError)
    try:
        tensors = load_file(file)
        encodings, decodings = tuple(_encodings(tensors)), tuple(_decodings(tensors))
    except (SafetensorError, KeyError, IndexError, ValueError) as problem:
        raise CheckpointError(
            f"{file} holds no golden vectors ({problem}); expected the tensors wav, lengths, "
            "codes, codes_lengths, dec_codes and audio"
        ) from problem
    return GoldenVectors(str(file), encodings, decodings)


def _encodings(tensors: dict[str, np.ndarray]) -> Iterator[Encoding]:
    rows = zip(tensors["wav"], tensors["lengths"], tensors["codes_lengths"], strict=True)
    for row, (wav, samples, frames) in enumerate(rows):
        codes = tensors["codes"][:, row, : int(frames)]
        yield Encoding(f"codes of clip {row + 1}", wav[:, : int(samples)], codes)
    if "codes_first3" in tensors:
        few = tensors["codes_first3"][:, 0, : int(tensors["codes_lengths"][0])]
        yield Encoding(f"codes of clip 1, {len(few)} layers", tensors["wav"][0], few)


def _decodings(tensors: dict[str, np.ndarray]) -> Iterator[Decoding]:
    codes, audio = tensors["dec_codes"], tensors["audio"]
    for row in range(len(audio)):
        yield Decoding(f"audio of codes {row + 1}", codes[:, row], audio[row])
    if "audio_first3" in tensors:
        start = tensors["audio_first3"][0]
        # It may be cut off: a causal decoder's start is that of the whole.
        frames = start.shape[1] * codes.shape[2] // audio.shape[2]
        few = codes[:3, 0, :frames]
        yield Decoding(f"audio of codes 1, {len(few)} layers", few, start)


def make_vectors(codec: Codec, source: str) -> GoldenVectors:
    """What a codec computes on two clips of noise and tones, longer than a second."""
    info = codec.info
    clips = [_probe(info, seconds, seed) for seed, seconds in enumerate((2.0, 1.37))]
    whole = [codec.encode(clip) for clip in clips]
    few = min(3, info.num_quantizers)
    encodings = [
        Encoding(f"codes of clip {row + 1}", clip, codes)
        for row, (clip, codes) in enumerate(zip(clips, whole, strict=True))
    ]
    encodings.append(
        Encoding(
            f"codes of clip 1, {few} layers", clips[0], codec.encode(clips[0], num_quantizers=few)
        )
    )
    decodings = [
        Decoding(f"audio of codes {row + 1}", codes, codec.decode(codes))
        for row, codes in enumerate(whole)
    ]
    first = whole[0][:few]
    decodings.append(Decoding(f"audio of codes 1, {few} layers", first, codec.decode(first)))
    return GoldenVectors(source, tuple(encodings), tuple(decodings))


def _probe(info: CodecInfo, seconds: float, seed: int) -> Clip:
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * info.sampling_rate)) / info.sampling_rate
    tones = random.uniform(80, 1200, (info.num_channels, 6, 1))
    clip = 0.05 * np.sin(2 * np.pi * tones * time).sum(1)
    clip += 0.03 * random.standard_normal(clip.shape) * (np.sin(7 * time) > 0)
    return clip.astype(np.float32)


def write_vectors(path: Path, vectors: GoldenVectors, info: CodecInfo) -> None:
    """Write the vectors of `make_vectors`, whole or not at all.

    Raises:
        CheckpointError: the file cannot be written.
    """
    *rows, few = vectors.encodings
    *spoken, first = vectors.decodings
    longest = max(row.audio.shape[1] for row in rows)
    frames = max(row.codes.shape[1] for row in rows)
    shortest = min(item.codes.shape[1] for item in spoken)
    tensors = {
        "wav": _padded([row.audio for row in rows], longest),
        "lengths": np.array([row.audio.shape[1] for row in rows]),
        "codes": _padded([row.codes for row in rows], frames).swapaxes(0, 1),
        "codes_lengths": np.array([row.codes.shape[1] for row in rows]),
        "codes_first3": few.codes[:, None],
        "dec_codes": np.stack([item.codes[:, :shortest] for item in spoken], 1),
        "audio": np.stack([item.audio[:, : shortest * info.downsample_rate] for item in spoken]),
        "audio_first3": first.audio[None, :, : shortest * info.downsample_rate],
    }
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    with atomic_path(path, error=CheckpointError) as temporary:
        save_file(arrays, temporary, {"identity": info.identity})


def _padded(rows: Sequence[np.ndarray], length: int) -> np.ndarray:
    return np.stack([np.pad(row, ((0, 0), (0, length - row.shape[1]))) for row in rows])


def verify(
    subject: Subject, vectors: GoldenVectors, advance: Callable[[Check], None] | None = None
) -> list[Check]:
    """Compare a codec, whole clips and streams, with golden vectors.

    Args:
        subject: what is verified.
        vectors: what it must compute.
        advance: called after each check.

    Raises:
        InputError: the vectors are of a codec of another shape.
    """
    _check_shape(subject.info, vectors)
    checks = []
    for check in _checks(subject, vectors):
        checks.append(check)
        if advance is not None:
            advance(check)
    return checks


def num_checks(vectors: GoldenVectors) -> int:
    """How many comparisons `verify` makes."""
    return len(vectors.encodings) + len(vectors.decodings) + 2


def _checks(subject: Subject, vectors: GoldenVectors) -> Iterator[Check]:
    for encoding in vectors.encodings:
        got = subject.encode(encoding.audio, len(encoding.codes))
        yield _codes_check(encoding.name, got, encoding.codes)
    first = vectors.encodings[0]
    yield _codes_check(f"{first.name}, streamed", subject.encode_live(first.audio), first.codes)
    for decoding in vectors.decodings:
        got = subject.decode(decoding.codes)
        yield _audio_check(decoding.name, got, decoding.audio, subject.audio_step)
    start = vectors.decodings[0]
    got = subject.decode_live(start.codes)
    yield _audio_check(f"{start.name}, streamed", got, start.audio, 0.0)


def _check_shape(info: CodecInfo, vectors: GoldenVectors) -> None:
    first = vectors.decodings[0]
    channels, samples = first.audio.shape
    expected = (vectors.num_quantizers, channels, samples // first.codes.shape[1])
    found = (info.num_quantizers, info.num_channels, info.downsample_rate)
    if found != expected:
        raise InputError(
            f"the codec has {found[0]} layers, {found[1]} channels and {found[2]} samples a frame; "
            f"the vectors in {vectors.source} have {expected[0]}, {expected[1]} and {expected[2]}: "
            "they are of another codec"
        )


def _codes_check(name: str, got: np.ndarray, expected: np.ndarray) -> Check:
    wanted = f"at most {CODES_TOLERANCE:.1%} of them differ"
    frames = expected.shape[1]
    if got.ndim != 2 or len(got) != len(expected) or got.shape[1] < frames:
        return Check(name, False, f"shape {got.shape}", f"shape {expected.shape}")
    differing = int((got[:, :frames] != expected).sum())
    found = f"{differing} of {expected.size:,} differ"
    return Check(name, differing <= CODES_TOLERANCE * expected.size, found, wanted)


def _audio_check(name: str, got: np.ndarray, expected: np.ndarray, step: float) -> Check:
    if got.shape != expected.shape:
        return Check(name, False, f"shape {got.shape}", f"shape {expected.shape}")
    reference = np.clip(expected, -1, 1 - _PCM_STEP) if step else expected
    level = max(float(np.sqrt(np.square(reference, dtype=np.float64).mean())), 1e-12)
    noise = float(np.sqrt(np.square(got - reference, dtype=np.float64).mean()))
    allowed = AUDIO_TOLERANCE + step / level
    return Check(
        name,
        noise <= allowed * level,
        f"off by {noise / level:.1e} of its RMS",
        f"at most {allowed:.1e}",
    )
