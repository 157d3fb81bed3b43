"""The streaming verbs of `MossAudioTokenizerModel`: sessions, and batches that go on.

A mixin, so that the face stays in readable parts. Sessions own their streams; the one stream
that lives behind the model is that of `batch_encode` and `batch_decode` with
``streaming=True``, whose published interface has nowhere else to put it.
"""

from typing import Any

import torch
from torch import Tensor

from ..api.validation import first_layers
from ..config.arguments import check_num_quantizers, require_count
from ..model.inputs import as_code_chunk, pad_rows
from ..runtime.inference_codec import InferenceDecoder, InferenceEncoder
from ..runtime.onnx_steps import make_decoder_engine, make_encoder_engine
from ..streaming import DecoderStream, EncoderStream
from ..streaming.batching import CallersBatches
from .model_outputs import MossAudioTokenizerDecoderOutput, MossAudioTokenizerEncoderOutput


class StreamingVerbs:
    """Sessions and continuous batches on a model with an encoder and a decoder."""

    config: Any

    def _encoder_half(self) -> InferenceEncoder:
        raise NotImplementedError

    def _decoder_half(self) -> InferenceDecoder:
        raise NotImplementedError

    def _forget_streams(self) -> None:
        """Drop the streams behind `batch_encode` and `batch_decode`."""
        self._batches = CallersBatches()

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
            make_decoder_engine(
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
            make_encoder_engine(
                self._encoder_half(),
                require_count(max_slots, "max_slots"),
                require_count(max_chunk_frames, "max_chunk_frames"),
                check_num_quantizers(num_quantizers, self.config.codec),
            ),
            pads_last_frame=self.config.lengths == "ceil",
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
        chunks = [as_code_chunk(codes, config) for codes in items]
        chunks = first_layers(chunks, num_quantizers, config)
        clips = self._continue_batch("decode", chunks, *slots)
        return MossAudioTokenizerDecoderOutput(pad_rows(clips), _lengths(clips))

    def _continue_batch(self, verb: str, chunks: list[Any], *slots: Any) -> list[Tensor]:
        """Advance the hidden stream of a verb."""
        make = self.encoder_stream if verb == "encode" else self.decoder_stream
        return self._batches.advance(verb, make, chunks, *slots)


def _lengths(rows: list[Tensor]) -> Tensor:
    return torch.tensor([row.shape[-1] for row in rows], device=rows[0].device)
