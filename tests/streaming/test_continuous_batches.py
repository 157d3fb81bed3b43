"""Continuous batches: row i of one call is row i of the next, while others come and leave."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stream_checks import assert_decoded, assert_encoded, random_audio, random_codes

from moss_audio_tokenizer.errors import AudioError, CodesError, InputError

STEP = 8  # samples a frame
BOTH = pytest.mark.parametrize("verb", ["decode", "encode"])


@dataclass(eq=False)
class Row:
    """One logical row: its clip, how much of it was fed, and what came out."""

    clip: torch.Tensor
    fed: int = 0
    results: list = field(default_factory=list)

    def next(self, length):
        return self.clip[:, self.fed : self.fed + length]


class Batch:
    """Calls of `batch_decode` or `batch_encode` with streaming, and what they must give.

    Lengths are in frames; an encoder's chunks are cut in the middle of frames.
    """

    def __init__(self, model, verb, frames=400):
        self.model, self.verb = model, verb
        self.rows, self.opened = [], 0
        if verb == "decode":
            self.unit, clip = 1, random_codes
        else:
            self.unit, clip = STEP + 1, random_audio
        self.clips = [clip(frames * self.unit, seed=seed) for seed in range(3)]

    def raw(self, chunks, **options):
        call = self.model.batch_decode if self.verb == "decode" else self.model.batch_encode
        return call(chunks, streaming=True, **options)

    def chunks(self, *frames):
        """What comes next in each row; rows beyond those that there are start afresh."""
        new = [Row(self.clips[(self.opened + i) % 3]) for i in range(len(frames) - len(self.rows))]
        return [
            row.next(count * self.unit) for row, count in zip(self.rows + new, frames, strict=True)
        ]

    def call(self, *frames, **options):
        """One call, after which every row that ended is held against one pass."""
        if options.get("reset_stream"):
            self.rows = []
        chunks = self.chunks(*frames)
        results = self._results(self.raw(chunks, **options), len(chunks))
        for _ in frames[len(self.rows) :]:
            self.rows.append(Row(self.clips[self.opened % 3]))
            self.opened += 1
        for row, chunk, result in zip(self.rows, chunks, results, strict=True):
            row.fed += chunk.shape[1]
            row.results.append(result)
        ended = [int(index) for index in options.get("finalize_indices", ())]
        for index, row in enumerate(self.rows):
            self._check(row, index in ended)
        self.rows = [row for index, row in enumerate(self.rows) if index not in ended]

    def _results(self, output, count):
        if self.verb == "decode":
            values, lengths = output.audio, output.audio_lengths
        else:
            values, lengths = output.audio_codes.transpose(0, 1), output.audio_codes_lengths
            assert output.encoder_hidden_states is None
        assert len(values) == len(lengths) == count
        assert values.shape[-1] == lengths.max()
        for row, length in zip(values, lengths, strict=True):
            assert row[:, length:].count_nonzero() == 0
        return [row[:, :length] for row, length in zip(values, lengths, strict=True)]

    def _check(self, row, ended):
        fed, got = row.clip[:, : row.fed], torch.cat(row.results, dim=1)
        if self.verb == "decode":
            assert_decoded(self.model, fed, got)
        else:
            assert_encoded(self.model, fed, got, None if ended else row.fed // STEP)


@pytest.fixture
def model(make_model):
    return make_model()


# What it does


@BOTH
@pytest.mark.usefixtures("path")
def test_rows_come_and_go(model, verb):
    batch = Batch(model, verb)
    batch.call(4, 2, max_batch_size=4)
    batch.call(4, 7)  # the same rows again
    batch.call(1, 30, 3)  # a third is admitted
    batch.call(5, 0, 2, finalize_indices=[1])  # the second ends, without anything new
    batch.call(2, 9)  # the others have kept their order
    batch.call(50, 50, 70, 1)  # two more, one of them in the place that is free
    batch.call(1, 1, 1, 1, finalize_indices=[3, 0])
    batch.call(1, 1, finalize_indices=[0, 1])
    assert batch.rows == []
    batch.call(3, 3, 3, 3)  # all anew, in the room that the first call reserved
    with pytest.raises(InputError, match="4 slots were reserved"):
        batch.raw(batch.chunks(1, 1, 1, 1, 1))
    batch.call(20, 1, 20, 1, finalize_indices=[0, 1, 2, 3])


@st.composite
def calls(draw):
    """Calls that make sense: frames of each row, and which rows end."""
    count, found = 0, []
    for _ in range(draw(st.integers(1, 8))):
        reset = draw(st.integers(0, 9)) == 0
        count = draw(st.integers(max(1, 0 if reset else count), 4))
        frames = draw(st.lists(st.sampled_from([0, 1, 2, 5, 20]), min_size=count, max_size=count))
        ended = draw(st.lists(st.integers(0, count - 1), unique=True))
        found.append((frames, {"finalize_indices": ended, "reset_stream": reset}))
        count -= len(ended)
    return found


@BOTH
@pytest.mark.usefixtures("path")
def test_any_admissions_and_endings(model, verb):
    @settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(calls())
    def run(schedule):
        batch = Batch(model, verb)
        model._reset_batch_decode_streaming_state()
        model._reset_batch_encode_streaming_state()
        for number, (frames, options) in enumerate(schedule):
            if number == 0 or options["reset_stream"]:
                options = {**options, "max_batch_size": 4}
            batch.call(*frames, **options)

    run()


@BOTH
def test_the_first_call_reserves_its_own_size(model, verb):
    batch = Batch(model, verb)
    batch.call(3, 3)
    with pytest.raises(InputError, match=r"2 slots were reserved.*max_batch_size"):
        batch.raw(batch.chunks(1, 1, 1))
    batch.call(9, 9, finalize_indices=[0])
    batch.call(9, 9)  # one in the place of the one that left


@BOTH
def test_a_row_may_come_and_end_in_one_call(model, verb):
    batch = Batch(model, verb)
    batch.call(3, max_batch_size=2)
    batch.call(3, 11, finalize_indices=[1])
    batch.call(3, 12, finalize_indices=[0, 1])


@BOTH
def test_reset_starts_afresh_with_room_of_its_own(model, verb):
    batch = Batch(model, verb)
    batch.call(3, 3)
    batch.call(5, 5, 5, reset_stream=True)
    batch.call(9, 9, 9)
    batch.call(2, reset_stream=True, max_batch_size=2)
    batch.call(2, 8)


def test_without_streaming_the_streams_stay(model):
    batch, others = Batch(model, "decode"), Batch(model, "encode")
    batch.call(5, 5)
    others.call(7)
    model.batch_decode(batch.chunks(9, 9), chunk_duration=0.02)
    model.encode(random_audio(90))
    session = model.decoder_stream(1)
    session.step({session.open(): random_codes(9)})
    batch.call(5, 5)
    others.call(7, finalize_indices=[0])
    model.batch_decode(batch.chunks(1, 1), reset_stream=True)  # drops them
    batch.rows = []
    batch.call(3, 3, 3)
    others.call(7)


def test_fewer_layers(model):
    codes, audio = random_codes(30), random_audio(30 * STEP)
    parts = [
        model.batch_decode([codes[:, :13]], num_quantizers=2, streaming=True),
        model.batch_decode([codes[:2, 13:]], streaming=True),
    ]
    assert_decoded(model, codes[:2], torch.cat([part.audio[0] for part in parts], dim=1))
    encoded = model.batch_encode([audio], num_quantizers=3, streaming=True).audio_codes[:, 0]
    assert torch.equal(encoded, model.encode(audio).audio_codes[:3, 0])


def test_stereo(make_model):
    model = make_model(2)
    codes, audio = random_codes(60), random_audio(60 * STEP, channels=2)
    parts = [model.batch_decode([codes[:, i : i + 7]], streaming=True) for i in range(0, 60, 7)]
    assert_decoded(model, codes, torch.cat([part.audio[0] for part in parts], dim=1))
    parts = [model.batch_encode([audio[:, i : i + 77]], streaming=True) for i in range(0, 480, 77)]
    assert_encoded(model, audio, torch.cat([part.audio_codes[:, 0] for part in parts], dim=1))


# What it refuses: each error leaves every stream as it was


WRONG_OPTIONS = [
    ({"finalize_indices": [-1]}, "different rows of 0 to 1"),
    ({"finalize_indices": [2]}, "different rows of 0 to 1"),
    ({"finalize_indices": [0, 0]}, "different rows of 0 to 1"),
    ({"finalize_indices": np.array([1, 5])}, "different rows of 0 to 1"),
    ({"finalize_indices": [0.0]}, "list of whole numbers"),
    ({"finalize_indices": [True]}, "list of whole numbers"),
    ({"finalize_indices": [None]}, "list of whole numbers"),
    ({"finalize_indices": [[0]]}, "list of whole numbers"),
    ({"finalize_indices": "0"}, "list of whole numbers"),
    ({"finalize_indices": 0}, "list of whole numbers"),
    ({"finalize_indices": torch.tensor([0.5])}, "list of whole numbers"),
    ({"max_batch_size": 2}, "the first call reserved 3 rows"),
    ({"max_batch_size": 4}, "the first call reserved 3 rows"),
    ({"max_batch_size": 0}, "whole number of at least 1"),
    ({"max_batch_size": 2.5}, "whole number of at least 1"),
    ({"max_batch_size": 1, "reset_stream": True}, "1 slots were reserved"),
    ({"reset_stream": True, "finalize_indices": [2]}, "different rows of 0 to 1"),
    ({"num_quantizers": 5}, "expected 1 to 4"),
    ({"chunk_duration": 0.015}, "multiple of 0.01 s"),
]


@BOTH
@pytest.mark.parametrize(("options", "message"), WRONG_OPTIONS)
def test_wrong_options(model, verb, options, message):
    batch = Batch(model, verb)
    batch.call(4, 13, max_batch_size=3)
    with pytest.raises(InputError, match=message):
        batch.raw(batch.chunks(6, 6), **options)
    batch.call(6, 6)
    batch.call(7, 7, 7, max_batch_size=3, finalize_indices=np.array([0, 2]))


@BOTH
def test_wrong_numbers_of_rows(model, verb):
    batch = Batch(model, verb)
    batch.call(4, 13, max_batch_size=3)
    for count, message in [(1, "2 streams are open: .*finalize_indices"), (4, "3 slots were")]:
        with pytest.raises(InputError, match=message):
            batch.raw(batch.chunks(*[6] * count) if count > 1 else batch.clips[:1])
        with pytest.raises(InputError, match=message):
            batch.raw(batch.clips[:1] * count, finalize_indices=[0])
    for nothing in ([], batch.clips[0], None):
        with pytest.raises(InputError, match="expected a list"):
            batch.raw(nothing)
    batch.call(6, 6)
    batch.call(7, 7, 7)


WRONG_ROWS = {
    "decode": [
        (random_codes(5) + 16, CodesError),
        (random_codes(5).float(), CodesError),
        (random_codes(5, layers=5), CodesError),
        (random_codes(5)[:, None].expand(-1, 2, -1), CodesError),
        (None, CodesError),
    ],
    "encode": [
        (torch.full((1, 9), float("inf")), AudioError),
        (random_audio(9, 2), AudioError),
        (torch.zeros(9, dtype=torch.long), AudioError),
        (None, AudioError),
    ],
}


@pytest.mark.parametrize(
    ("verb", "wrong", "error"),
    [(verb, wrong, error) for verb, rows in WRONG_ROWS.items() for wrong, error in rows],
)
@pytest.mark.parametrize("place", [0, 2])
def test_one_wrong_row(model, verb, wrong, error, place):
    batch = Batch(model, verb)
    batch.call(4, 13, max_batch_size=3)
    chunks = batch.chunks(6, 6, 6)
    chunks[place] = wrong
    with pytest.raises(error):
        batch.raw(chunks)
    with pytest.raises(error):
        batch.raw(chunks, finalize_indices=[0])
    with pytest.raises(error):
        batch.raw(chunks, reset_stream=True)
    batch.call(6, 6)  # the third was not admitted either
    batch.call(7, 7, 7)


@BOTH
def test_a_first_call_that_fails_reserves_nothing(model, verb):
    batch = Batch(model, verb)
    with pytest.raises(InputError, match="1 slots were reserved"):
        batch.raw(batch.chunks(6, 6), max_batch_size=1)
    with pytest.raises(InputError):
        batch.raw([None])
    batch.call(6, 6, 6)


@BOTH
def test_options_without_streaming(model, verb):
    batch = Batch(model, verb)
    batch.call(6)
    call = getattr(model, f"batch_{verb}")
    for options in ({"max_batch_size": 1}, {"finalize_indices": []}):
        with pytest.raises(InputError, match="need streaming=True"):
            call(batch.chunks(6), **options)
    batch.call(6)


@BOTH
@pytest.mark.usefixtures("plain_steps")
@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_a_call_that_is_cut_short(model, verb, error, monkeypatch):
    batch = Batch(model, verb)
    batch.call(4, 13, max_batch_size=3)
    half = model._inference_decoder() if verb == "decode" else model._inference_encoder()
    with monkeypatch.context() as patch:

        def fail(*arguments):
            raise error

        patch.setattr(half, "step", fail)
        with pytest.raises(type(error)):
            batch.raw(batch.chunks(6, 6, 6))
    batch.call(6, 6)
    batch.call(7, 7, 7)
