"""`OnnxAudioTokenizer`: the model's verbs on exported graphs, with NumPy arrays.

Owns the public face; checks are `arrays.py`'s, computing is `engines.py`'s. Whole clips are
worked through in chunks by the same steps as streams, one row after the other, so that a row's
codes depend on nothing else and memory does not grow with the clip.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..api.validation import first_layers, only_row, require_equal_layers
from ..codes.codec import CodecInfo
from ..codes.codec_progress import reported
from ..config import CodecConfig
from ..config.arguments import (
    check_num_quantizers,
    frames_of_duration,
    kept_samples,
    require_count,
    require_lengths,
    require_list,
)
from ..errors import CodesError, InputError
from ..streaming import DecoderStream, EncoderStream
from ..streaming.batching import CallersBatches
from .arrays import as_code_chunk, as_code_rows, as_waveform_rows, check_clip, lengths_of, pad_rows
from .engines import (
    OnnxDecoderEngine,
    OnnxEncoderEngine,
    StepGraph,
    decoder_engine,
    encoder_engine,
)
from .folder import OnnxFolder, find_folder
from .outputs import DecoderOutput, EncoderOutput
from .runtime import Runtime, session_facts
from .shapes import PIECE_FRAMES


class OnnxAudioTokenizer:
    """Audio to discrete codes and back, without PyTorch.

    Sessions for the encoder and the decoder are made when first needed; any number of streams
    and threads share them.

    Args:
        folder: the exported model.
        runtime: where it runs.
    """

    def __init__(self, folder: OnnxFolder, runtime: Runtime) -> None:
        self.folder = folder
        self.lengths = "ceil"
        self._runtime = runtime
        self._batches = CallersBatches()

    def __reduce__(self) -> tuple[Any, ...]:
        """For copies and pickles: the folder is opened again, and streams stay behind."""
        return _reopened, (type(self), self.folder.path, self._runtime.device, *self._settings())

    def _settings(self) -> tuple[int | None, str]:
        return self._runtime.num_threads, self.lengths

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: str = "cpu",
        num_threads: int | None = None,
        verify: bool = False,
        lengths: str = "ceil",
    ) -> "OnnxAudioTokenizer":
        """Load an exported folder, or "bundled" (the model in the package).

        Args:
            path: where it is.
            device: "cpu", "cuda", "cuda:1" or "tensorrt", as onnxruntime has it.
            num_threads: on a CPU (default: OMP_NUM_THREADS, or one a core).
            verify: compare hashes of weights over 256 MB too, not only their sizes.
            lengths: frames of a clip of n samples; see `set_lengths`.

        Raises:
            CheckpointError: no export is there, or its files are not as exported.
            ConfigError, InputError: the device or the threads.
            MissingDependencyError: onnxruntime is not installed.
        """
        folder = find_folder(path)
        folder.check_weights(verify)
        codec = cls(folder, Runtime(device, num_threads))
        codec.set_lengths(lengths)
        return codec

    def set_lengths(self, name: str) -> None:
        """Choose how many frames a clip of n samples gives.

        Args:
            name: "ceil" encodes all samples, the last frame zero-padded: ceil(n /
                downsample_rate) frames. "floor" drops the samples of an unfinished frame, as the
                released code does: floor(n / downsample_rate) frames.

        Raises:
            ConfigError: it is neither.
        """
        self.lengths = require_lengths(name)

    # What it is

    @property
    def config(self) -> CodecConfig:
        """What the codec is built like."""
        return self.folder.config

    @property
    def info(self) -> CodecInfo:
        """What the codec is, as far as its codes are concerned."""
        return self.folder.info

    @property
    def sampling_rate(self) -> int:
        """Samples a second and channel."""
        return self.config.sampling_rate

    @property
    def identity(self) -> str:
        """16 hexadecimal digits, equal for models whose codes are interchangeable."""
        return self.folder.identity

    @cached_property
    def _encoder_steps(self) -> StepGraph:
        return self._steps("encoder_step")

    @cached_property
    def _decoder_steps(self) -> StepGraph:
        return self._steps("decoder_step")

    def _steps(self, name: str) -> StepGraph:
        session = self._runtime.session(self.folder.graph(name))
        self.folder.check_session(name, session_facts(session))
        return StepGraph(
            self._runtime,
            lambda _frames: session,
            self.config,
            self.folder.codes_type,
            self.folder.stream_identity(name),
        )

    # Encoding

    def encode(
        self,
        input_values: Any,
        padding_mask: Any = None,
        num_quantizers: int | None = None,
        return_dict: bool | None = None,
        chunk_duration: float | None = None,
    ) -> EncoderOutput:
        """Audio to codes; a clip of n samples gives ceil(n / downsample_rate) frames.

        Args:
            input_values: (batch, channels, samples), or (batch, samples) or (samples,) for mono,
                or (channels, samples) for stereo; floating point within +-1, int16 or int32.
            padding_mask: (batch, samples), 1 for samples and 0 for padding at the end.
            num_quantizers: use the first so many layers (default: all).
            return_dict: False for the tuple (audio_codes, audio_codes_lengths).
            chunk_duration: seconds to work through at a time; the result is the same.

        Raises:
            AudioError, CodesError, InputError: see each message.
        """
        rows = as_waveform_rows(input_values, self.config.number_channels)
        lengths = lengths_of(padding_mask, rows.shape[0], rows.shape[2], "samples")
        clips = [row[:, :length] for row, length in zip(rows, lengths, strict=True)]
        encoded = self._encode(clips, num_quantizers, chunk_duration)
        codes = (encoded.audio_codes, encoded.audio_codes_lengths)
        return codes if return_dict is False else encoded  # type: ignore[return-value]

    def batch_encode(
        self,
        wav_list: Sequence[Any],
        num_quantizers: int | None = None,
        chunk_duration: float | None = None,
        streaming: bool = False,
        max_batch_size: int | None = None,
        finalize_indices: Sequence[int] | None = None,
        reset_stream: bool = False,
    ) -> EncoderOutput:
        """Encode clips of unequal lengths: a list of (channels, samples), or (samples,) for mono.

        The options are those of `encode`, and for streaming those of `batch_decode`: with
        ``streaming=True`` what does not fill a frame waits for the next call, a finalized row's
        last frame is zero-padded, and there are no hidden states.
        """
        items = require_list(wav_list, "clips", "encode")
        slots = (max_batch_size, finalize_indices, reset_stream)
        if streaming:
            frames_of_duration(chunk_duration, self.config)
            layers = check_num_quantizers(num_quantizers, self.config)
            rows = self._batches.advance("encode", self.encoder_stream, items, *slots)
            return _encoded([row[:layers] for row in rows])
        self._batches.refuse("encode", *slots)
        channels = self.config.number_channels
        clips = [_single(as_waveform_rows(clip, channels)) for clip in items]
        return self._encode(clips, num_quantizers, chunk_duration)

    def _encode(
        self, clips: list[np.ndarray], num_quantizers: int | None, chunk_duration: float | None
    ) -> EncoderOutput:
        layers = check_num_quantizers(num_quantizers, self.config)
        chunk = frames_of_duration(chunk_duration, self.config)
        unit = self.config.downsample_rate
        samples = [kept_samples(clip.shape[-1], unit, self.lengths) for clip in clips]
        clips = [check_clip(clip)[:, :n] for clip, n in zip(clips, samples, strict=True)]
        rows = [self._encode_rows([clip], layers, chunk)[0] for clip in clips]
        hidden = pad_rows([states for _, states in rows])
        return _encoded([codes for codes, _ in rows], hidden)

    def encode_together(
        self, clips: Sequence[Any], num_quantizers: int | None = None
    ) -> list[np.ndarray]:
        """Codes (layers, frames) of clips of any lengths that are computed at once.

        That is faster than `batch_encode` for short ones, and most where lengths are alike; sums
        are rounded another way, so that a few codes may depend on the others.
        """
        layers = check_num_quantizers(num_quantizers, self.config)
        channels = self.config.number_channels
        rows = [check_clip(_single(as_waveform_rows(clip, channels))) for clip in clips]
        return [codes for codes, _ in self._encode_rows(rows, layers, None)]

    def _encode_rows(
        self, clips: Sequence[np.ndarray], layers: int, chunk: int | None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Codes (layers, frames) and hidden states (width, frames) of clips, a slot each."""
        unit = self.config.downsample_rate
        frames = [-(-clip.shape[1] // unit) for clip in clips]
        pieces = list(_pieces(max(frames), chunk))
        engine = self._encoder_engine(len(clips), pieces[0].stop, layers)
        found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in clips]
        for piece in pieces:
            parts = {}
            for row, clip in enumerate(clips):
                stop = min(piece.stop, frames[row])
                if stop > piece.start:
                    part = clip[:, piece.start * unit : stop * unit]
                    parts[row] = engine.pad(part, (stop - piece.start) * unit)
            for row, result in engine.step_with_hidden(parts).items():
                found[row].append(result)
        return [(_joined(row, 0), _joined(row, 1)) for row in found]

    # Decoding

    def decode(
        self,
        audio_codes: Any,
        padding_mask: Any = None,
        return_dict: bool | None = None,
        chunk_duration: float | None = None,
        num_quantizers: int | None = None,
    ) -> DecoderOutput:
        """Codes to audio, downsample_rate samples a frame.

        Args:
            audio_codes: (num_quantizers, batch, frames) or (num_quantizers, frames); fewer
                layers than the model has are fine.
            padding_mask: (batch, frames), 1 for frames and 0 for padding at the end.
            return_dict: False for the tuple (audio,).
            chunk_duration: seconds to work through at a time; the result is the same.
            num_quantizers: use only the first so many of the layers given.

        Raises:
            CodesError, InputError: see each message.
        """
        codes = as_code_rows(audio_codes, self.config)
        lengths = lengths_of(padding_mask, codes.shape[1], codes.shape[2], "frames")
        rows = [codes[:, row, :length] for row, length in enumerate(lengths)]
        decoded = self._decode(rows, num_quantizers, chunk_duration)
        return (decoded.audio,) if return_dict is False else decoded  # type: ignore[return-value]

    def batch_decode(
        self,
        codes_list: Sequence[Any],
        num_quantizers: int | None = None,
        chunk_duration: float | None = None,
        streaming: bool = False,
        max_batch_size: int | None = None,
        finalize_indices: Sequence[int] | None = None,
        reset_stream: bool = False,
    ) -> DecoderOutput:
        """Decode a list of (num_quantizers, frames) of unequal lengths; see `decode`.

        Args:
            codes_list: one item a row.
            num_quantizers: use only the first so many of the layers given.
            chunk_duration: seconds to work through at a time; the result is the same.
            streaming: continue where the last such call ended: row i is the same stream again.
                More rows than before admit streams at the tail; codes of 0 frames pause a row.
            max_batch_size: rows to make room for; counts in the first call (default: its rows).
            finalize_indices: rows that end with this call and then leave; the others keep their
                order.
            reset_stream: drop the streams of earlier calls first.

        Raises:
            CodesError, InputError: see each message; the streams are then as they were.
        """
        items = require_list(codes_list, "codes", "decode")
        slots = (max_batch_size, finalize_indices, reset_stream)
        if streaming:
            frames_of_duration(chunk_duration, self.config)
            chunks = [as_code_chunk(codes, self.config) for codes in items]
            chunks = first_layers(chunks, num_quantizers, self.config)
            make = self.decoder_stream
            return _decoded(self._batches.advance("decode", make, chunks, *slots))
        self._batches.refuse("decode", *slots)
        rows = [_single(as_code_rows(codes, self.config).swapaxes(0, 1)) for codes in items]
        require_equal_layers(rows, num_quantizers)
        return self._decode(rows, num_quantizers, chunk_duration)

    def _decode(
        self, rows: list[np.ndarray], num_quantizers: int | None, chunk_duration: float | None
    ) -> DecoderOutput:
        rows = first_layers(rows, num_quantizers, self.config)
        if min(row.shape[1] for row in rows) == 0:
            raise CodesError("a row of codes has no frames; expected at least one")
        chunk = frames_of_duration(chunk_duration, self.config)
        return _decoded([self._decode_row(row, chunk) for row in rows])

    def _decode_row(self, codes: np.ndarray, chunk: int | None) -> np.ndarray:
        """Audio (channels, samples) of codes (layers, frames)."""
        pieces = list(_pieces(codes.shape[1], chunk))
        engine = self._decoder_engine(1, pieces[0].stop)
        unit = self.config.downsample_rate
        audio = np.empty((self.config.number_channels, codes.shape[1] * unit), np.float32)
        for piece in pieces:
            audio[:, piece.start * unit : piece.stop * unit] = engine.step({0: codes[:, piece]})[0]
        return audio

    # Sessions

    def decoder_stream(self, max_slots: int = 64, max_chunk_frames: int = 25) -> DecoderStream:
        """A session that decodes streams of codes; any number of sessions share the weights.

        Args:
            max_slots: streams that can be open at once; their memory is set aside now.
            max_chunk_frames: frames that one computation takes. Longer chunks are welcome and
                cut; fewer frames make smaller rings.

        Raises:
            InputError: a number is wrong.
        """
        sizes = (require_count(max_slots, "max_slots"), max_chunk_frames)
        return DecoderStream(
            self._decoder_engine(sizes[0], require_count(sizes[1], "max_chunk_frames"))
        )

    def encoder_stream(
        self, max_slots: int = 64, max_chunk_frames: int = 25, num_quantizers: int | None = None
    ) -> EncoderStream:
        """A session that encodes streams of audio; see `decoder_stream`.

        Args:
            max_slots: streams that can be open at once.
            max_chunk_frames: frames that one computation takes.
            num_quantizers: layers of codes (default: all).

        Raises:
            CodesError, InputError: a number is wrong.
        """
        slots = require_count(max_slots, "max_slots")
        frames = require_count(max_chunk_frames, "max_chunk_frames")
        layers = check_num_quantizers(num_quantizers, self.config)
        engine = self._encoder_engine(slots, frames, layers)
        return EncoderStream(engine, pads_last_frame=self.lengths == "ceil")

    def _encoder_engine(self, slots: int, frames: int, layers: int) -> OnnxEncoderEngine:
        return encoder_engine(self._encoder_steps, slots, frames, layers)

    def _decoder_engine(self, slots: int, frames: int) -> OnnxDecoderEngine:
        return decoder_engine(self._decoder_steps, slots, frames)


def _reopened(
    cls: type[OnnxAudioTokenizer], path: Path, device: str, num_threads: int | None, lengths: str
) -> OnnxAudioTokenizer:
    """What a pickle becomes again."""
    return cls.from_pretrained(path, device, num_threads, lengths=lengths)


def _pieces(frames: int, chunk: int | None) -> Iterator[slice]:
    size = chunk or PIECE_FRAMES
    pieces = (slice(start, min(start + size, frames)) for start in range(0, frames, size))
    return reported(pieces, frames)


def _single(rows: np.ndarray) -> np.ndarray:
    """The only row of a batch of one."""
    row: np.ndarray = only_row(rows, "each item of a list is one clip", InputError)
    return row


def _joined(results: Sequence[tuple[np.ndarray, ...]], index: int) -> np.ndarray:
    """One of the results of all chunks, along their frames."""
    return np.concatenate([result[index] for result in results], axis=1)


def _lengths(rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([row.shape[-1] for row in rows], np.int64)


def _encoded(rows: Sequence[np.ndarray], hidden: np.ndarray | None = None) -> EncoderOutput:
    return EncoderOutput(pad_rows(rows).swapaxes(0, 1), _lengths(rows), hidden)


def _decoded(clips: Sequence[np.ndarray]) -> DecoderOutput:
    return DecoderOutput(pad_rows(clips), _lengths(clips))
