"""The streaming methods of the released model code, which MOSS-TTS calls, over our sessions.

In a ``with model.streaming(batch_size)`` block the rows of every call continue the same streams.
Owns how those calls map to slots of a `DecoderStream` and an `EncoderStream`; `streaming` does
the work. New code uses the sessions directly: several of them can live beside each other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..api.continuous_batches import StreamRows
from ..api.validation import check_num_quantizers, require_count
from ..api.verbs import CodecVerbs
from ..errors import InputError
from ..model.inputs import TENSORS
from ..streaming import DecoderStream
from .model_outputs import MossAudioTokenizerDecoderOutput, MossAudioTokenizerEncoderOutput


class OfficialStreaming(
    CodecVerbs[MossAudioTokenizerEncoderOutput, MossAudioTokenizerDecoderOutput]
):
    """Streaming as the released code has it, on a model with sessions."""

    config: Any

    @contextmanager
    def streaming(self, batch_size: int = 1) -> Iterator[None]:
        """Within the block, `encode` and `decode` continue one stream for each row of a batch.

        Unlike the released code, whose chunks of audio are zero-padded to whole frames, an
        unfinished frame waits for the next call.

        Raises:
            InputError: the batch size is wrong, or the model is in such a block already.
        """
        self._start_streaming(batch_size)
        try:
            yield
        finally:
            self._stop_streaming()

    def _start_streaming(self, batch_size: int) -> None:
        """Begin a block; see `streaming`."""
        count = require_count(batch_size, "batch_size")
        if self._rows is not None:
            raise InputError(
                "the model is in a streaming block already; leave it first, or use "
                "decoder_stream() and encoder_stream(), of which a model can have several"
            )
        self._rows = StreamRows(count)

    def _stop_streaming(self) -> None:
        """End a block and drop its streams."""
        self._rows = None

    def _set_streaming_exec_mask(self, exec_mask: Tensor) -> None:
        """Choose the rows that the next calls advance; the others stand still.

        Args:
            exec_mask: (batch,), true for rows that advance.

        Raises:
            InputError: the model is not in a streaming block, or the mask has another shape.
        """
        active = [bool(value) for value in torch.as_tensor(exec_mask).flatten()]
        if self._rows is None or len(active) != len(self._rows.active):
            raise InputError(
                f"exec_mask has {len(active)} rows; expected one value for each row of a block "
                "with model.streaming(batch_size)"
            )
        self._rows.active = active

    def _encode_frame(
        self,
        input_values: Any,
        input_lengths: Any = None,
        n_quantizers: int | None = None,
    ) -> MossAudioTokenizerEncoderOutput:
        """Encode a padded batch, of which each row has so many samples; see `encode`."""
        rows = TENSORS.as_waveform_rows(input_values, self.config.codec.number_channels)
        if self._rows is None:
            mask = _mask(input_lengths, rows)
            return self.encode(rows, mask, n_quantizers, return_dict=True)
        count = check_num_quantizers(n_quantizers, self.config.codec)
        clips = _cut(rows, input_lengths)
        return self._encoder_result(self._encode_rows(clips, count, None, alone=True))

    def _decode_frame(
        self, codes: Any, codes_lengths: Any = None
    ) -> MossAudioTokenizerDecoderOutput:
        """Decode a padded batch, of which each row has so many frames; see `decode`."""
        rows = TENSORS.as_code_rows(codes, self.config.codec).movedim(1, 0)
        if self._rows is None:
            return self.decode(rows.movedim(0, 1), _mask(codes_lengths, rows), return_dict=True)
        return self._decoder_result(self._decode_rows(_cut(rows, codes_lengths), None, alone=True))

    def create_decode_session(self, *_: Any, **__: Any) -> DecoderStream:
        """Refused: the released v2 code has a session of this name, whose arguments are not public.

        Raises:
            InputError: always; it names what to use.
        """
        raise InputError(
            "create_decode_session is not provided; use model.decoder_stream(max_slots=...), "
            "whose streams are opened and stepped one by one, or model.streaming(batch_size)"
        )

    def _reset_batch_decode_streaming_state(self) -> None:
        """Drop the streams behind ``batch_decode(streaming=True)``."""
        self._batches.pop("decode", None)

    def _reset_batch_encode_streaming_state(self) -> None:
        """Drop the streams behind ``batch_encode(streaming=True)``."""
        self._batches.pop("encode", None)


def _lengths(lengths: Any, rows: Tensor) -> list[int]:
    """Valid lengths of padded rows, checked."""
    if lengths is None:
        return [rows.shape[-1]] * len(rows)
    found = [int(value) for value in torch.as_tensor(lengths).flatten()]
    if len(found) != len(rows) or not all(0 <= value <= rows.shape[-1] for value in found):
        raise InputError(f"lengths are {found}; expected {len(rows)} of 0 to {rows.shape[-1]}")
    return found


def _cut(rows: Tensor, lengths: Any) -> list[Tensor]:
    """Each row without its padding."""
    return [row[..., :n] for row, n in zip(rows, _lengths(lengths, rows), strict=True)]


def _mask(lengths: Any, rows: Tensor) -> Tensor | None:
    """A padding mask of the lengths."""
    if lengths is None:
        return None
    valid = torch.tensor(_lengths(lengths, rows))
    return torch.arange(rows.shape[-1]) < valid[:, None]
