"""The streaming verbs of `MossAudioTokenizerModel`: sessions, and batches that go on.

A mixin, so that the face stays in readable parts. Sessions own their streams; the one stream
that lives behind the model is that of `batch_encode` and `batch_decode` with
``streaming=True``, whose published interface has nowhere else to put it.
"""

from typing import Any

import torch
from torch import Tensor

from ..errors import CodesError, InputError
from ..streaming import DecoderStream, EncoderStream
from ..streaming.batching import ContinuousBatch
from .engines import TorchDecoderEngine, TorchEncoderEngine
from .inference.halves import DecoderHalf, EncoderHalf
from .inputs import (
    as_code_chunk,
    check_num_quantizers,
    pad_rows,
    require_count,
    require_indices,
)
from .outputs import MossAudioTokenizerDecoderOutput, MossAudioTokenizerEncoderOutput

# Longer chunks are worked through in steps of so many frames.
_HIDDEN_STREAM_FRAMES = 8


class StreamingVerbs:
    """Sessions and continuous batches on a model that can give its halves."""

    config: Any

    def _encoder_half(self) -> EncoderHalf:
        raise NotImplementedError

    def _decoder_half(self) -> DecoderHalf:
        raise NotImplementedError

    def _forget_streams(self) -> None:
        """Drop the streams behind `batch_encode` and `batch_decode`."""
        self._batches: dict[str, ContinuousBatch] = {}

    def decoder_stream(self, max_slots: int = 64, max_chunk_frames: int = 25) -> DecoderStream:
        """A session that decodes streams of codes; any number of sessions share the weights.

        Args:
            max_slots: streams that can be open at once; their memory is set aside now.
            max_chunk_frames: frames that one computation takes. Longer chunks are welcome and
                cut; fewer frames make smaller rings.

        Raises:
            InputError: a number is wrong.
        """
        return DecoderStream(
            TorchDecoderEngine(
                self._decoder_half(),
                require_count(max_slots, "max_slots"),
                require_count(max_chunk_frames, "max_chunk_frames"),
            )
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
        return EncoderStream(
            TorchEncoderEngine(
                self._encoder_half(),
                require_count(max_slots, "max_slots"),
                require_count(max_chunk_frames, "max_chunk_frames"),
                check_num_quantizers(num_quantizers, self.config.codec),
            )
        )

    def _continue_encode(
        self, items: list[Any], num_quantizers: int | None, *slots: Any
    ) -> MossAudioTokenizerEncoderOutput:
        """`batch_encode` with ``streaming=True``."""
        layers = check_num_quantizers(num_quantizers, self.config.codec)
        codes = [row[:layers] for row in self._continue_batch("encode", items, *slots)]
        return MossAudioTokenizerEncoderOutput(
            audio_codes=pad_rows(codes).transpose(0, 1), audio_codes_lengths=_lengths(codes)
        )

    def _continue_decode(
        self, items: list[Any], num_quantizers: int | None, *slots: Any
    ) -> MossAudioTokenizerDecoderOutput:
        """`batch_decode` with ``streaming=True``."""
        config = self.config.codec
        layers = check_num_quantizers(num_quantizers, config)
        chunks = [as_code_chunk(codes, config) for codes in items]
        shallowest = min(len(chunk) for chunk in chunks)
        if num_quantizers is not None and layers > shallowest:
            raise CodesError(f"num_quantizers is {layers}, but the codes have {shallowest} layers")
        clips = self._continue_batch("decode", [chunk[:layers] for chunk in chunks], *slots)
        return MossAudioTokenizerDecoderOutput(pad_rows(clips), _lengths(clips))

    def _not_streaming(
        self, verb: str, max_batch_size: Any, finalize_indices: Any, reset_stream: bool
    ) -> None:
        """Refuse what means nothing without ``streaming=True``; a reset drops the hidden stream.

        Raises:
            InputError: an option of streaming was given.
        """
        if max_batch_size is not None or finalize_indices is not None:
            raise InputError("max_batch_size and finalize_indices need streaming=True")
        if reset_stream:
            self._batches.pop(verb, None)

    def _continue_batch(
        self,
        verb: str,
        chunks: list[Any],
        max_batch_size: int | None,
        finalize_indices: Any,
        reset_stream: bool,
    ) -> list[Tensor]:
        """Advance the hidden stream of a verb; see `ContinuousBatch.step`.

        A first call (or one that resets) reserves ``max_batch_size`` rows. An error leaves the
        stream as it was.
        """
        finalize = require_indices(finalize_indices, "finalize_indices")
        batch = None if reset_stream else self._batches.get(verb)
        if max_batch_size is not None:
            max_batch_size = require_count(max_batch_size, "max_batch_size")
        if batch is None:
            make = self.encoder_stream if verb == "encode" else self.decoder_stream
            batch = ContinuousBatch(make(max_batch_size or len(chunks), _HIDDEN_STREAM_FRAMES))
        elif max_batch_size not in (None, batch.max_rows):
            raise InputError(
                f"max_batch_size is {max_batch_size}, but the first call reserved "
                f"{batch.max_rows} rows; leave it out, or start afresh with reset_stream=True"
            )
        results = batch.step(chunks, finalize)
        self._batches[verb] = batch
        return results


def _lengths(rows: list[Tensor]) -> Tensor:
    return torch.tensor([row.shape[-1] for row in rows], device=rows[0].device)
