"""The streaming verbs of the released model code, which MOSS-TTS calls, over our sessions.

In a ``with model.streaming(batch_size)`` block the rows of every call continue the same streams.
Owns how those calls map to slots of a `DecoderStream` and an `EncoderStream`; `streaming` does
the work. New code uses the sessions directly: several of them can live beside each other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..config.arguments import check_num_quantizers, require_count
from ..errors import InputError
from ..model.inputs import as_code_rows, as_waveform_rows, pad_rows
from ..streaming import DecoderStream, EncoderStream
from ..streaming.slots import Slot
from .model_outputs import MossAudioTokenizerDecoderOutput, MossAudioTokenizerEncoderOutput


class _Rows:
    """The streams of one ``streaming`` block: a slot for each row of a batch, in order."""

    def __init__(self, batch_size: int) -> None:
        self.active = [True] * batch_size
        self._sessions: dict[str, tuple[DecoderStream | EncoderStream, list[Slot]]] = {}

    def step(self, verb: str, make: Any, chunks: list[Tensor]) -> list[Tensor]:
        """Advance the active rows by their chunks; the others give nothing and stand still."""
        if len(chunks) != len(self.active):
            raise InputError(
                f"got {len(chunks)} rows inside streaming(batch_size={len(self.active)}); expected "
                f"{len(self.active)}: open the block with another batch_size"
            )
        if verb not in self._sessions:
            session = make(max_slots=len(self.active))
            self._sessions[verb] = (session, [session.open() for _ in self.active])
        session, slots = self._sessions[verb]
        rows = zip(slots, chunks, self.active, strict=True)
        found: dict[Slot, Tensor] = session.step(
            {slot: chunk for slot, chunk, active in rows if active}
        )
        nothing: Tensor = session.engine.join_results([])
        return [found.get(slot, nothing) for slot in slots]


class OfficialStreaming:
    """Streaming as the released code has it, on a model with sessions."""

    config: Any
    decoder_stream: Any
    encoder_stream: Any
    encode: Any
    decode: Any
    _batches: Any
    _rows: _Rows | None

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
        self._rows = _Rows(count)

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
        rows = as_waveform_rows(input_values, self.config.codec.number_channels)
        if self._rows is None:
            mask = _mask(input_lengths, rows)
            return self.encode(rows, mask, n_quantizers, return_dict=True)
        return self._encode_in_block(_cut(rows, input_lengths), n_quantizers)

    def _decode_frame(
        self, codes: Any, codes_lengths: Any = None
    ) -> MossAudioTokenizerDecoderOutput:
        """Decode a padded batch, of which each row has so many frames; see `decode`."""
        rows = as_code_rows(codes, self.config.codec).movedim(1, 0)
        if self._rows is None:
            return self.decode(rows.movedim(0, 1), _mask(codes_lengths, rows), return_dict=True)
        return self._decode_in_block(_cut(rows, codes_lengths))

    def _encode_in_block(
        self, clips: list[Tensor], num_quantizers: int | None
    ) -> MossAudioTokenizerEncoderOutput:
        """The next chunk of each row; hidden states are not kept in streams."""
        layers = check_num_quantizers(num_quantizers, self.config.codec)
        assert self._rows is not None  # noqa: S101 - only called inside a block
        codes = self._rows.step("encode", self.encoder_stream, clips)
        codes = [row[:layers] for row in codes]
        return MossAudioTokenizerEncoderOutput(
            audio_codes=pad_rows(codes).transpose(0, 1), audio_codes_lengths=lengths_tensor(codes)
        )

    def _decode_in_block(self, rows: list[Tensor]) -> MossAudioTokenizerDecoderOutput:
        """The next chunk of each row."""
        assert self._rows is not None  # noqa: S101 - only called inside a block
        clips = self._rows.step("decode", self.decoder_stream, rows)
        return MossAudioTokenizerDecoderOutput(pad_rows(clips), lengths_tensor(clips))

    def _reset_batch_decode_streaming_state(self) -> None:
        """Drop the streams behind ``batch_decode(streaming=True)``."""
        self._batches.drop("decode")

    def _reset_batch_encode_streaming_state(self) -> None:
        """Drop the streams behind ``batch_encode(streaming=True)``."""
        self._batches.drop("encode")


def lengths_tensor(rows: list[Tensor]) -> Tensor:
    """Lengths of the last axis of each row."""
    return torch.tensor([row.shape[-1] for row in rows], device=rows[0].device)


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
