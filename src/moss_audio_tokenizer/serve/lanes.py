"""Lanes: one session each, and the streams whose queued chunks become its next step.

Owns what a stream has waiting, when it is ready, and that one stream's trouble stays its own. It
knows no threads and no network: whoever calls holds the lock that guards the queues.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Shaped

from ..codes.codec import Codec
from ..errors import InputError, ServerError
from ..streaming import DecoderStream, EncoderStream, Slot

Chunk = Shaped[np.ndarray, "rows entries"]


class StreamingCodec(Codec, Protocol):
    """A codec with sessions: what a server needs of PyTorch or ONNX."""

    def encoder_stream(self, max_slots: int, max_chunk_frames: int) -> EncoderStream:
        """A session of audio to codes."""
        ...

    def decoder_stream(self, max_slots: int, max_chunk_frames: int) -> DecoderStream:
        """A session of codes to audio."""
        ...


class QueuedStream:
    """What one stream was given and what it is owed.

    Entries are samples (of an encoder) or frames (of a decoder).

    Args:
        lane: where it steps.
        receive: is called with each `Outcome`, in order, by whoever delivers them.
    """

    def __init__(self, lane: "Lane", receive: "Callable[[Outcome], None]") -> None:
        self.lane = lane
        self.receive = receive
        self.slot: Slot | None = None
        self.num_waiting = 0  # entries
        self.num_owed = 0  # frames of results that the client has not taken yet
        self.is_finished = False  # no more chunks come
        self.is_over = False  # no more outcomes come
        self._num_put = 0
        self._num_frames = 0
        self._started = 0.0
        self._chunks: deque[Chunk] = deque()
        self._arrivals: deque[tuple[int, float]] = deque()

    def put(self, chunk: Chunk, now: float) -> None:
        """Queue a chunk."""
        if self._num_put == 0:
            self._started = now
        self._chunks.append(chunk)
        self._num_put += chunk.shape[1]
        self.num_waiting += chunk.shape[1]
        self._arrivals.append((self._num_put, now))

    @property
    def is_ready(self) -> bool:
        """Whether a step has something to do for it, and its client takes what it is given."""
        if self.slot is None or self.is_over or self.num_owed >= self.lane.max_owed_frames:
            return False
        return self.num_waiting >= self.lane.unit or self.is_finished

    def take(self, max_frames: int) -> Chunk:
        """The next whole frames; the last frame of a finished stream is padded with zeros."""
        unit = self.lane.unit
        wanted = min(self.num_waiting, max_frames * unit)
        if wanted % unit and not (self.is_finished and wanted == self.num_waiting):
            wanted -= wanted % unit
        pieces = self._pop(wanted)
        self.num_waiting -= wanted
        if padding := -wanted % unit:
            pieces.append(np.zeros((pieces[0].shape[0], padding), pieces[0].dtype))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)

    def _pop(self, wanted: int) -> list[Chunk]:
        pieces: list[Chunk] = []
        while wanted:
            piece = self._chunks.popleft()
            if piece.shape[1] > wanted:
                self._chunks.appendleft(piece[:, wanted:])
                piece = piece[:, :wanted]
            pieces.append(piece)
            wanted -= piece.shape[1]
        return pieces

    def waited(self, num_frames: int, now: float, frame_seconds: float) -> float:
        """Seconds by which the first of these results follows the moment it was possible.

        That is when the last of its input came; of input that came ahead of real time, when it
        would have come.
        """
        last = (self._num_frames + 1) * self.lane.unit
        while len(self._arrivals) > 1 and self._arrivals[0][0] < last:
            self._arrivals.popleft()
        possible = self._started + self._num_frames * frame_seconds
        self._num_frames += num_frames
        return max(0.0, now - max(possible, self._arrivals[0][1]))


@dataclass(frozen=True)
class Outcome:
    """What became of a stream's chunk.

    Attributes:
        stream: whose.
        result: codes or audio, or None.
        num_frames: in the result.
        error: why there will be no more, or None.
        is_last: nothing more comes.
    """

    stream: QueuedStream
    result: Any = None
    num_frames: int = 0
    error: Exception | None = None
    is_last: bool = False


class Lane:
    """A session and its streams.

    Args:
        name: "encode" or "decode".
        is_live: whether its streams are live ones, not whole files.
        session: does the stepping; its slots are this lane's.
        unit: entries a frame: samples for an encoder, 1 for a decoder.
        step_frames: frames that one step takes of one stream.
        max_owed_frames: frames of results that a client may leave untaken before its stream pauses.
    """

    def __init__(
        self,
        name: str,
        is_live: bool,
        session: EncoderStream | DecoderStream,
        unit: int,
        step_frames: int,
        max_owed_frames: float,
    ) -> None:
        self.name = name
        self.is_live = is_live
        self.session = session
        self.unit = unit
        self.step_frames = step_frames
        self.max_owed_frames = max_owed_frames
        self.streams: list[QueuedStream] = []

    def admit(self, stream: QueuedStream) -> None:
        """Give a stream its slot.

        Raises:
            SlotsFull: more streams were let in than there are slots.
        """
        stream.slot = self.session.open()
        self.streams.append(stream)

    def dismiss(self, stream: QueuedStream) -> None:
        """Take a stream's slot back."""
        if stream.slot is not None:
            self.streams.remove(stream)
            self.session.close(stream.slot)
            stream.slot = None

    def is_ready(self) -> bool:
        """Whether any stream is."""
        return any(stream.is_ready for stream in self.streams)

    def step(self, lock: AbstractContextManager[Any]) -> list[Outcome]:
        """Advance every stream that is ready, together; the lock is held only around the queues."""
        with lock:
            ready = [stream for stream in self.streams if stream.is_ready]
            # A finished stream with nothing left only has to be told that this was all.
            over = [stream for stream in ready if not stream.num_waiting]
            batch = {s: s.take(self.step_frames) for s in ready if s.num_waiting}
        outcomes = [*self._advance(batch), *(Outcome(stream, is_last=True) for stream in over)]
        with lock:
            for outcome in outcomes:
                outcome.stream.num_owed += outcome.num_frames
                outcome.stream.is_over |= outcome.is_last
        return outcomes

    def _advance(self, batch: dict[QueuedStream, Chunk]) -> list[Outcome]:
        refused = {stream: problem for stream in batch if (problem := self._fault(batch[stream]))}
        good = {stream: chunk for stream, chunk in batch.items() if stream not in refused}
        outcomes = [Outcome(s, error=problem, is_last=True) for s, problem in refused.items()]
        try:
            return outcomes + self._results(good)
        except Exception:
            # Together they failed, and none has moved: alone, only the one at fault does.
            return outcomes + [self._alone(stream, chunk) for stream, chunk in good.items()]

    def _alone(self, stream: QueuedStream, chunk: Chunk) -> Outcome:
        try:
            return self._results({stream: chunk})[0]
        except Exception as problem:
            error = ServerError(
                f"the model failed on this stream ({type(problem).__name__}); open it anew"
            )
            error.__cause__ = problem
            return Outcome(stream, error=error, is_last=True)

    def _fault(self, chunk: Chunk) -> Exception | None:
        try:
            self.session.engine.check(chunk)
        except InputError as problem:
            return problem
        return None

    def _results(self, batch: dict[QueuedStream, Chunk]) -> list[Outcome]:
        slots = {stream.slot: stream for stream in batch if stream.slot is not None}
        results = self.session.step({slot: batch[stream] for slot, stream in slots.items()})
        return [
            Outcome(stream, np.asarray(results[slot]), batch[stream].shape[1] // self.unit)
            for slot, stream in slots.items()
        ]


def is_any_ready(lanes: Sequence[Lane]) -> bool:
    """Whether any stream of these lanes is ready."""
    return any(lane.is_ready() for lane in lanes)
