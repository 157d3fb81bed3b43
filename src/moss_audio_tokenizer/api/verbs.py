"""The public methods of a codec, once for PyTorch and NumPy: clips, batches and streams.

Owns what the methods take, check and return, and in which order. A runtime adds how its arrays are
read (`api.arrays`, `model.inputs`), how rows are computed, and the engines of its sessions.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from ..config import CodecConfig
from ..errors import CodesError, InputError
from ..streaming import DecoderStream, EncoderStream
from ..streaming.engine import StepEngine
from .arrays import ArrayInputs, only_row
from .continuous_batches import ContinuousBatch, StreamRows, advance_batch
from .validation import (
    check_num_quantizers,
    check_rate,
    first_layers,
    frames_of_duration,
    memory_of_streams,
    require_count,
    require_equal_layers,
    require_lengths,
    require_list,
    whole_samples,
)

Encoded = TypeVar("Encoded")
Decoded = TypeVar("Decoded")


class CodecVerbs(Generic[Encoded, Decoded]):
    """Audio to codes and back.

    Attributes:
        lengths: how many frames a clip gives, see `set_lengths`.
    """

    lengths: str
    # The functions that read a caller's arrays, and the types of the results.
    _arrays: ClassVar[ArrayInputs]
    _encoder_output: ClassVar[Any]
    _decoder_output: ClassVar[Any]
    # Streams of `batch_encode` and `batch_decode`, and those of a `streaming` block.
    _batches: dict[str, ContinuousBatch]
    _rows: StreamRows | None = None

    # What a runtime adds

    def _codec_config(self) -> CodecConfig:
        """How the codec is built."""
        raise NotImplementedError

    def _alone(self, deterministic: bool) -> bool:
        """Whether every row is computed by itself; on a GPU, PyTorch does so only if asked."""
        del deterministic
        return True

    def _run_encoder(
        self, clips: list[Any], num_quantizers: int, chunk_frames: int | None, alone: bool
    ) -> list[tuple[Any, Any]]:
        """Codes (num_quantizers, frames) and hidden states (width, frames) of checked clips."""
        raise NotImplementedError

    def _run_decoder(self, rows: list[Any], chunk_frames: int | None, alone: bool) -> list[Any]:
        """Audio (channels, samples) of checked codes."""
        raise NotImplementedError

    def _encoder_engine(
        self, max_slots: int, max_chunk_frames: int, num_quantizers: int
    ) -> StepEngine:
        """The engine of a session that encodes."""
        raise NotImplementedError

    def _decoder_engine(self, max_slots: int, max_chunk_frames: int) -> StepEngine:
        """The engine of a session that decodes."""
        raise NotImplementedError

    def _returned(self, output: Any, return_dict: bool | None) -> Any:
        """The output, or a tuple of some of its values."""
        raise NotImplementedError

    def _drop_streams(self) -> None:
        """Forget the streams that calls have left open."""
        self._batches, self._rows = {}, None

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

    # Encoding

    def encode(
        self,
        input_values: Any,
        padding_mask: Any = None,
        num_quantizers: int | None = None,
        return_dict: bool | None = None,
        chunk_duration: float | None = None,
        *,
        deterministic: bool = False,
        sampling_rate: int | None = None,
    ) -> Encoded:
        """Audio to codes; a clip of n samples gives ceil(n / downsample_rate) frames.

        `set_lengths` chooses floor(n / downsample_rate) instead.

        Args:
            input_values: (batch, channels, samples), or (batch, samples) or (samples,) for mono,
                or (channels, samples) for stereo; floating point within +-1, int16 or int32.
            padding_mask: (batch, samples), 1 for samples and 0 for padding at the end.
            num_quantizers: use the first so many codebooks (default: all).
            return_dict: False for the tuple (audio_codes, audio_codes_lengths); None for what a
                PyTorch model's ``config.return_dict`` says.
            chunk_duration: seconds to compute at a time; the result is the same.
            deterministic: compute every row by itself, so that its codes do not depend, bit for
                bit, on the other rows (always so on a CPU and with ONNX).
            sampling_rate: samples a second of the audio, to be checked against the model's; None
                checks nothing.

        Raises:
            AudioError, CodesError, InputError: an argument is wrong; the message says how.
        """
        check_rate(sampling_rate, self._codec_config())
        rows = self._arrays.as_waveform_rows(input_values, self._codec_config().number_channels)
        lengths = self._arrays.lengths_of(padding_mask, rows.shape[0], rows.shape[2], "samples")
        clips = [row[:, :length] for row, length in zip(rows, lengths, strict=True)]
        encoded = self._encode(clips, num_quantizers, chunk_duration, deterministic)
        return self._returned(encoded, return_dict)

    def batch_encode(
        self,
        wav_list: Sequence[Any],
        num_quantizers: int | None = None,
        chunk_duration: float | None = None,
        streaming: bool = False,
        max_batch_size: int | None = None,
        finalize_indices: Sequence[int] | None = None,
        reset_stream: bool = False,
        *,
        deterministic: bool = False,
        sampling_rate: int | None = None,
    ) -> Encoded:
        """Encode clips of unequal lengths: a list of (channels, samples), or (samples,) for mono.

        The options are those of `encode`, and for streaming those of `batch_decode`: with
        ``streaming=True`` what does not fill a frame waits for the next call, a finalized row's
        last frame is zero-padded, and there are no hidden states.
        """
        check_rate(sampling_rate, self._codec_config())
        items = require_list(wav_list, "clips", "encode")
        slots = (max_batch_size, finalize_indices, reset_stream)
        if streaming:
            frames_of_duration(chunk_duration, self._codec_config())
            count = check_num_quantizers(num_quantizers, self._codec_config())
            rows = advance_batch(self._batches, "encode", self.encoder_stream, items, *slots)
            return self._encoder_result([(row[:count], None) for row in rows])
        self._refuse_slots("encode", *slots)
        return self._encode(self._clips(items), num_quantizers, chunk_duration, deterministic)

    def _refuse_slots(self, verb: str, most: Any, finalize: Any, reset_stream: bool) -> None:
        """Refuse what means nothing without ``streaming=True``; a reset drops the verb's batch."""
        if most is not None or finalize is not None:
            raise InputError("max_batch_size and finalize_indices need streaming=True")
        if reset_stream:
            self._batches.pop(verb, None)

    def _clips(self, items: Sequence[Any]) -> list[Any]:
        """Clips (channels, samples) of a list."""
        channels = self._codec_config().number_channels
        return [_single(self._arrays.as_waveform_rows(clip, channels)) for clip in items]

    def _encode(
        self,
        clips: list[Any],
        num_quantizers: int | None,
        chunk_duration: float | None,
        deterministic: bool,
    ) -> Encoded:
        count = check_num_quantizers(num_quantizers, self._codec_config())
        chunk = frames_of_duration(chunk_duration, self._codec_config())
        clips = [self._whole(self._arrays.check_clip(clip)) for clip in clips]
        return self._encoder_result(
            self._encode_rows(clips, count, chunk, self._alone(deterministic))
        )

    def _encode_rows(
        self, clips: list[Any], num_quantizers: int, chunk_frames: int | None, alone: bool
    ) -> list[tuple[Any, Any]]:
        """Results of `encode`; in a `streaming` block, hidden states are None."""
        if self._rows is not None:
            codes = self._rows.step("encode", self.encoder_stream, clips)
            return [(row[:num_quantizers], None) for row in codes]
        return self._run_encoder(clips, num_quantizers, chunk_frames, alone)

    def encode_together(self, clips: Sequence[Any], num_quantizers: int | None = None) -> list[Any]:
        """Codes (num_quantizers, frames) of clips that are computed at once, also on a CPU.

        That is faster than `batch_encode` for short clips, most where their lengths are alike.
        Sums are rounded in another order, so that a few codes may depend on the other clips.
        """
        count = check_num_quantizers(num_quantizers, self._codec_config())
        items = self._clips(require_list(clips, "clips", "encode"))
        rows = [self._whole(self._arrays.check_clip(clip)) for clip in items]
        return [codes for codes, _ in self._run_encoder(rows, count, None, alone=False)]

    def _whole(self, clip: Any) -> Any:
        """The samples that are encoded: with floor lengths whole frames, else all of them."""
        if self._rows is not None:  # the samples of an unfinished frame wait for the next call
            return clip
        unit = self._codec_config().downsample_rate
        return clip[..., : whole_samples(clip.shape[-1], unit, self.lengths)]

    # Decoding

    def decode(
        self,
        audio_codes: Any,
        padding_mask: Any = None,
        return_dict: bool | None = None,
        chunk_duration: float | None = None,
        num_quantizers: int | None = None,
        *,
        deterministic: bool = False,
    ) -> Decoded:
        """Codes to audio, downsample_rate samples a frame.

        Args:
            audio_codes: (num_quantizers, batch, frames) or (num_quantizers, frames); of fewer
                codebooks than the model has, too.
            padding_mask: (batch, frames), 1 for frames and 0 for padding at the end.
            return_dict: False for the tuple (audio,); None for what a PyTorch model's
                ``config.return_dict`` says.
            chunk_duration: seconds to compute at a time; the result is the same.
            num_quantizers: use only the first so many of the codebooks given.
            deterministic: compute every row by itself (always so on a CPU and with ONNX).

        Raises:
            CodesError, InputError: an argument is wrong; the message says how.
        """
        codes = self._arrays.as_code_rows(audio_codes, self._codec_config())
        lengths = self._arrays.lengths_of(padding_mask, codes.shape[1], codes.shape[2], "frames")
        rows = [codes[:, row, :length] for row, length in enumerate(lengths)]
        decoded = self._decode(rows, num_quantizers, chunk_duration, deterministic)
        return self._returned(decoded, return_dict)

    def batch_decode(
        self,
        codes_list: Sequence[Any],
        num_quantizers: int | None = None,
        chunk_duration: float | None = None,
        streaming: bool = False,
        max_batch_size: int | None = None,
        finalize_indices: Sequence[int] | None = None,
        reset_stream: bool = False,
        use_cuda_graph: bool | None = None,
        *,
        deterministic: bool = False,
    ) -> Decoded:
        """Decode a list of (num_quantizers, frames) of unequal lengths.

        Args:
            codes_list: codes of each row.
            num_quantizers: use only the first so many of the codebooks given.
            chunk_duration: seconds to compute at a time; the result is the same.
            streaming: continue where the last such call ended: row i is the same stream again.
                More rows than before admit streams at the tail; codes of 0 frames pause a row.
            max_batch_size: rows to make room for; counts in the first call (default: its rows).
            finalize_indices: rows that end with this call and then leave; the others keep their
                order.
            reset_stream: drop the streams of earlier calls first.
            use_cuda_graph: accepted for code that passes it; streams on a GPU always use CUDA
                graphs, which change no result.
            deterministic: compute every row by itself (always so on a CPU and with ONNX).

        Raises:
            CodesError, InputError: an argument is wrong; the streams are then as they were.
        """
        del use_cuda_graph
        config = self._codec_config()
        items = require_list(codes_list, "codes", "decode")
        slots = (max_batch_size, finalize_indices, reset_stream)
        if streaming:
            frames_of_duration(chunk_duration, config)
            chunks = [self._arrays.as_code_chunk(codes, config) for codes in items]
            chunks = first_layers(chunks, num_quantizers, config)
            return self._decoder_result(
                advance_batch(self._batches, "decode", self.decoder_stream, chunks, *slots)
            )
        self._refuse_slots("decode", *slots)
        rows = [_single(self._arrays.as_code_rows(codes, config).swapaxes(0, 1)) for codes in items]
        require_equal_layers(rows, num_quantizers)
        return self._decode(rows, num_quantizers, chunk_duration, deterministic)

    def _decode(
        self,
        rows: list[Any],
        num_quantizers: int | None,
        chunk_duration: float | None,
        deterministic: bool,
    ) -> Decoded:
        rows = first_layers(rows, num_quantizers, self._codec_config())
        if min(row.shape[1] for row in rows) == 0:
            raise CodesError("a row of codes has no frames; expected at least one")
        chunk = frames_of_duration(chunk_duration, self._codec_config())
        return self._decoder_result(self._decode_rows(rows, chunk, self._alone(deterministic)))

    def _decode_rows(self, rows: list[Any], chunk_frames: int | None, alone: bool) -> list[Any]:
        if self._rows is not None:
            return self._rows.step("decode", self.decoder_stream, rows)
        return self._run_decoder(rows, chunk_frames, alone)

    # Sessions

    def decoder_stream(self, max_slots: int = 64, max_chunk_frames: int = 25) -> DecoderStream:
        """Open a session that decodes streams of codes; all sessions share the weights.

        Args:
            max_slots: streams that can be open at once; their memory is allocated now.
            max_chunk_frames: frames that one computation takes. Longer chunks are accepted and
                cut; fewer frames need smaller KV caches.

        Raises:
            InputError: a number is wrong.
        """
        slots = require_count(max_slots, "max_slots")
        frames = require_count(max_chunk_frames, "max_chunk_frames")
        with memory_of_streams(slots, frames):
            return DecoderStream(self._decoder_engine(slots, frames))

    def encoder_stream(
        self, max_slots: int = 64, max_chunk_frames: int = 25, num_quantizers: int | None = None
    ) -> EncoderStream:
        """Open a session that encodes streams of audio; all sessions share the weights.

        Args:
            max_slots: streams that can be open at once; their memory is allocated now.
            max_chunk_frames: frames that one computation takes.
            num_quantizers: codebooks to use (default: all).

        Raises:
            CodesError, InputError: a number is wrong.
        """
        slots = require_count(max_slots, "max_slots")
        frames = require_count(max_chunk_frames, "max_chunk_frames")
        count = check_num_quantizers(num_quantizers, self._codec_config())
        with memory_of_streams(slots, frames):
            engine = self._encoder_engine(slots, frames, count)
        return EncoderStream(engine, pads_last_frame=self.lengths == "ceil")

    # Results

    def _encoder_result(self, rows: Sequence[tuple[Any, Any]]) -> Encoded:
        """Codes and hidden states of all rows, padded; streams have no hidden states."""
        codes = [row for row, _ in rows]
        hidden = [states for _, states in rows]
        return self._encoder_output(
            audio_codes=self._arrays.pad_rows(codes).swapaxes(0, 1),
            audio_codes_lengths=self._arrays.row_lengths(codes),
            encoder_hidden_states=None if hidden[0] is None else self._arrays.pad_rows(hidden),
        )

    def _decoder_result(self, clips: Sequence[Any]) -> Decoded:
        """Audio of all rows, padded."""
        return self._decoder_output(
            audio=self._arrays.pad_rows(clips), audio_lengths=self._arrays.row_lengths(clips)
        )


def _single(rows: Any) -> Any:
    """The only row of a batch of one."""
    return only_row(rows, "each item of a list is one clip", InputError)
