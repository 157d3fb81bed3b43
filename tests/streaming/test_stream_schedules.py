"""Whatever happens to its neighbours, a stream gives what one pass over its clip gives."""

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stream_checks import assert_decoded, assert_encoded, random_audio, random_codes

from moss_audio_tokenizer.errors import SlotsFull

MAX_SLOTS, MAX_CHUNK_FRAMES = 3, 6
STEP = 8  # samples a frame

ROW = st.integers(0, MAX_SLOTS - 1)
# In all they go past both windows, 5 and 3 frames, and past rings of 64 places.
FRAMES = st.sampled_from([0, 1, 1, 2, 3, 5, 9, 40])
SAMPLES = st.one_of(st.integers(0, 3 * STEP), st.sampled_from([5 * STEP, 77, 40 * STEP, 333]))


def schedules(lengths):
    """Lists of what is done to which streams; a step names some of them, the others pause."""
    step = st.tuples(st.just("step"), st.dictionaries(ROW, lengths, min_size=1))
    other = st.tuples(st.sampled_from(["open", "close", "reset", "fork"]), ROW)
    return st.lists(st.one_of(step, step, step, other), max_size=16)


@dataclass(eq=False)
class Stream:
    """One stream: its clip, how much of it was fed, and what came out."""

    slot: object
    clip: torch.Tensor
    fed: int = 0
    results: list = field(default_factory=list)

    def next(self, length):
        self.fed += length
        return self.clip[:, self.fed - length : self.fed]


class Schedule:
    """Streams of one session, and what can be done to them."""

    def __init__(self, session, clips, check):
        self.session, self.clips, self.check = session, clips, check
        self.streams, self.opened = [], 0
        self.open(0)
        self.open(0)

    def open(self, _):
        self._admit(self.session.open, 0, ())

    def fork(self, stream):
        new = self._admit(lambda: self.session.fork(stream.slot), stream.fed, stream.results)
        if new is not None:
            new.clip = torch.cat((stream.clip[:, : stream.fed], new.clip), dim=1)

    def _admit(self, make, fed, results):
        if len(self.streams) == MAX_SLOTS:
            with pytest.raises(SlotsFull, match="all 3 slots"):
                make()
            return None
        self.opened += 1
        clip = self.clips[self.opened % len(self.clips)]
        self.streams.append(Stream(make(), clip, fed, list(results)))
        return self.streams[-1]

    def step(self, lengths):
        chosen = {self.streams[row]: length for row, length in lengths.items()}
        chunks = {stream.slot: stream.next(length) for stream, length in chosen.items()}
        results = self.session.step(chunks)
        assert list(results) == list(chunks)
        for stream in chosen:
            stream.results.append(results[stream.slot])

    def reset(self, stream):
        if stream.results:
            self.check(stream, whole=False)
        self.session.reset(stream.slot)
        stream.fed, stream.results = 0, []

    def close(self, stream):
        stream.results.append(self.session.close(stream.slot))
        self.check(stream, whole=True)
        self.streams.remove(stream)

    def run(self, actions):
        for name, what in actions:
            if name == "step":
                self.step({row: n for row, n in what.items() if row < len(self.streams)})
            elif name == "open":
                self.open(what)
            elif self.streams:
                getattr(self, name)(self.streams[what % len(self.streams)])
        for stream in list(self.streams):
            self.close(stream)


KINDS = pytest.mark.parametrize(("channels", "kind"), [(1, "rlfq"), (2, "rvq")])
SETTINGS = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


@KINDS
@pytest.mark.usefixtures("path")
def test_decoders(make_model, channels, kind):
    model = make_model(channels, quantizer_type=kind)
    clips = [random_codes(700, seed) for seed in range(3)]

    def check(stream, whole):
        assert_decoded(model, stream.clip[:, : stream.fed], torch.cat(stream.results, dim=1))

    @SETTINGS
    @given(schedules(FRAMES))
    def run(actions):
        Schedule(model.decoder_stream(MAX_SLOTS, MAX_CHUNK_FRAMES), clips, check).run(actions)

    run()


@KINDS
@pytest.mark.usefixtures("path")
def test_encoders(make_model, channels, kind):
    model = make_model(channels, quantizer_type=kind)
    clips = [random_audio(700 * STEP, channels, seed) for seed in range(3)]

    def check(stream, whole):
        codes = torch.cat(stream.results, dim=1)
        frames = None if whole else stream.fed // STEP
        assert_encoded(model, stream.clip[:, : stream.fed], codes, frames)

    @SETTINGS
    @given(schedules(SAMPLES))
    def run(actions):
        Schedule(model.encoder_stream(MAX_SLOTS, MAX_CHUNK_FRAMES), clips, check).run(actions)

    run()
