"""Streaming equals offline: chunked calls, sessions side by side, streams that run for weeks."""

import pytest
import torch

from moss_audio_tokenizer.errors import InputError
from moss_audio_tokenizer.runtime import inference_codec

STEP = 8  # samples a frame
CHANNELS = pytest.mark.parametrize("channels", [1, 2])


@pytest.fixture
def make_codec(make_codec, vary_codes):
    return lambda channels=1, **quantizer: vary_codes(make_codec(channels, **quantizer), channels)


@pytest.fixture(params=["rings", "sliding"])
def chunk_path(request, monkeypatch):
    """Ring caches for short chunks, and the sliding caches that long chunks take."""
    if request.param == "sliding":
        monkeypatch.setattr(inference_codec, "LONGEST_STEP", 0)
    return request.param


def random_codes(frames, seed=0):
    return torch.randint(16, (4, frames), generator=torch.Generator().manual_seed(seed))


def random_audio(samples, channels=1, seed=0):
    random = torch.Generator().manual_seed(seed)
    return 0.3 * torch.randn(channels, samples, generator=random)


def assert_close(got, expected):
    """Within 1e-4 of the RMS of what is expected, everywhere."""
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-4 * expected.square().mean().sqrt()


# chunk_duration


@CHANNELS
@pytest.mark.parametrize("frames", [1, 7, 64, 200])
@pytest.mark.usefixtures("chunk_path")
def test_chunks_equal_one_pass(make_model, channels, frames):
    model = make_model(channels, quantizer_type="rlfq" if channels == 1 else "rvq")
    audio, codes = random_audio(100 * STEP - 3, channels), random_codes(100)
    whole = model.encode(audio)
    got = model.encode(audio, chunk_duration=frames / 100)
    assert torch.equal(got.audio_codes, whole.audio_codes)
    assert_close(got.encoder_hidden_states, whole.encoder_hidden_states)
    expected = model.decode(codes).audio
    assert_close(model.decode(codes, chunk_duration=frames / 100).audio, expected)


@CHANNELS
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.usefixtures("chunk_path")
def test_chunks_of_ragged_batches(make_model, monkeypatch, channels, together):
    model = make_model(channels)
    if together:  # what a GPU does: one padded batch
        monkeypatch.setattr(model, "_alone", lambda deterministic: deterministic)
    clips = [random_audio(n, channels, n) for n in (1, 500, 55 * STEP, 700)]
    rows = [random_codes(frames, frames) for frames in (70, 1, 90, 33)]
    encoded = model.batch_encode(clips, chunk_duration=0.05)
    for row, clip in enumerate(clips):
        count = encoded.audio_codes_lengths[row]
        codes = encoded.audio_codes[:, row]
        assert torch.equal(codes[:, :count], model.encode(clip).audio_codes[:, 0])
        assert codes[:, count:].count_nonzero() == 0
    decoded = model.batch_decode(rows, chunk_duration=0.05)
    assert decoded.audio_lengths.tolist() == [row.shape[1] * STEP for row in rows]
    for audio, count, row in zip(decoded.audio, decoded.audio_lengths, rows, strict=True):
        assert_close(audio[:, :count], model.decode(row).audio[0])
        assert audio[:, count:].count_nonzero() == 0


@pytest.mark.parametrize("seconds", [0, -0.01, 0.015, 0.005, float("nan"), "0.01", True, [0.01]])
def test_durations_that_are_no_frames(make_model, seconds):
    model = make_model()
    audio, codes = random_audio(80), random_codes(10)
    for call, value in (
        *((model.encode, audio), (model.decode, codes)),
        *((model.batch_encode, [audio]), (model.batch_decode, [codes])),
    ):
        with pytest.raises(InputError, match=r"chunk_duration is .* multiple of 0\.01 s"):
            call(value, chunk_duration=seconds)


def test_the_nearest_durations_are_named(make_model):
    with pytest.raises(ValueError, match=r"such as 0\.02 or 0\.03$"):
        make_model().encode(random_audio(80), chunk_duration=0.024)


# Sessions side by side


class OneStream:
    """A stream of a session of its own, fed chunk by chunk."""

    def __init__(self, session, clip):
        self.session, self.clip, self.fed, self.results = session, clip, 0, []
        self.slot = session.open()

    def step(self, length):
        chunk = self.clip[:, self.fed : self.fed + length]
        self.fed += length
        self.results.append(self.session.step({self.slot: chunk})[self.slot])

    def result(self):
        return torch.cat((*self.results, self.session.close(self.slot)), dim=1)


def test_sessions_do_not_disturb_each_other(make_model):
    model = make_model()
    codes = [random_codes(120, seed) for seed in range(3)]
    audio = [random_audio(120 * STEP, seed=seed) for seed in range(2)]
    decoders = [OneStream(model.decoder_stream(2, 1 + 3 * i), c) for i, c in enumerate(codes)]
    encoders = [OneStream(model.encoder_stream(1, 2), clip) for clip in audio]
    for turn in range(40):
        for row, stream in enumerate(decoders):
            if turn % (row + 1) == 0:
                stream.step(3 * (row + 1))
        for stream in encoders:
            stream.step(3 * STEP)
        if turn % 10 == 0:
            model.decode(codes[0], chunk_duration=0.05)
            model.encode(audio[0][:, :333])
            model.batch_decode([codes[0][:, :5]], streaming=True)
    for stream in decoders:
        fed = stream.clip[:, : stream.fed]
        assert_close(stream.result(), model.decode(fed).audio[0])
    for stream in encoders:
        expected = model.encode(stream.clip).audio_codes[:, 0]
        assert torch.equal(stream.result(), expected)
        assert min(len(set(layer)) for layer in expected.tolist()) >= 8  # they do vary


def attributes_of(modules):
    """The attributes that a forward could have set: all but parameters and settings."""
    return [
        {name: id(value) for name, value in vars(module).items() if name != "training"}
        for module in modules
    ]


def test_modules_hold_no_stream(make_model):
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = attributes_of(model.codec.modules())
    for stream in (
        OneStream(model.decoder_stream(2), random_codes(30)),
        OneStream(model.encoder_stream(2), random_audio(30 * STEP)),
    ):
        stream.step(20)
    model.batch_decode([random_codes(9)], streaming=True)
    model.encode(random_audio(300), chunk_duration=0.05)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert attributes_of(model.codec.modules()) == attributes
    for module in model.modules():
        held = [name for name, value in vars(module).items() if isinstance(value, torch.Tensor)]
        assert held == []


# Streams that run for long


def test_memory_does_not_grow(make_model):
    model = make_model()
    decoder, encoder = model.decoder_stream(2, 2), model.encoder_stream(2, 2)
    streams = [
        OneStream(decoder, random_codes(400)),
        OneStream(encoder, random_audio(400 * STEP)),
    ]
    shapes = [
        {name: tensor.shape for name, tensor in stream.session.engine.to_arrays().items()}
        for stream in streams
    ]
    sizes = [stream.session.engine.num_bytes() for stream in streams]
    for turn in range(100):
        streams[0].step(1)
        streams[1].step(STEP - 1)
        assert decoder.engine.positions.tolist() == [turn + 1, 0]
        assert sum(chunk.shape[-1] for chunk in encoder._pending.values()) < STEP
    for stream, shape, size in zip(streams, shapes, sizes, strict=True):
        tensors = stream.session.engine.to_arrays()
        assert {name: tensor.shape for name, tensor in tensors.items()} == shape
        assert stream.session.engine.num_bytes() == size
        assert size == sum(array.nbytes for array in tensors.values())


# Six weeks and half a year of 12.5 frames a second.
@pytest.mark.parametrize("position", [45_000_000, 200_000_003])
def test_far_from_the_start(make_model, position):
    """Scores depend on distances alone: refilled windows hide where a stream stands."""
    model = make_model()
    decoder, encoder = model.decoder_stream(2, 4), model.encoder_stream(2, 4)
    codes, audio = random_codes(180), random_audio(180 * STEP)
    late = [OneStream(decoder, codes), OneStream(encoder, audio)]
    fresh = [OneStream(decoder, codes), OneStream(encoder, audio)]
    for stream in late:
        stream.session.engine.positions[stream.slot.index] = position
    for stream in late + fresh:
        for _ in range(20):
            stream.step(9 if stream.session is decoder else 9 * STEP)
    assert decoder.engine.positions.tolist() == [position + 180, 180]
    # What all layers of all stages together can see is less than 20 frames.
    sound, expected = late[0].result(), fresh[0].result()
    assert_close(sound[:, 20 * STEP :], expected[:, 20 * STEP :])
    assert not torch.allclose(sound[:, :STEP], expected[:, :STEP], rtol=0.01)
    assert torch.equal(late[1].result()[:, 20:], fresh[1].result()[:, 20:])
    assert_close(expected, model.decode(codes).audio[0])


# Causality


@CHANNELS
@pytest.mark.parametrize("cut", [1, 4, 70])
def test_what_comes_later_changes_nothing(make_model, channels, cut):
    """Neither in the same chunk nor in a later one."""
    model = make_model(channels)
    codes, other = random_codes(90), random_codes(90, seed=1)
    audio, noise = random_audio(90 * STEP, channels), random_audio(90 * STEP, channels, seed=1)
    pairs = [
        (model.decoder_stream, codes, torch.cat((codes[:, :cut], other[:, cut:]), dim=1), 1),
        (
            model.encoder_stream,
            audio,
            torch.cat((audio[:, : cut * STEP], noise[:, cut * STEP :]), dim=1),
            STEP,
        ),
    ]
    for make, clip, changed, unit in pairs:
        for chunk in (90, 5):
            session = make(2, 50)
            slots = session.open(), session.open()
            results = [
                session.step({slots[0]: left, slots[1]: right})
                for left, right in zip(
                    clip.split(chunk * unit, dim=1), changed.split(chunk * unit, dim=1), strict=True
                )
            ]
            first, second = (torch.cat([r[slot] for r in results], dim=1) for slot in slots)
            end = cut * first.shape[1] // 90
            if unit == 1:
                assert_close(first[:, :end], second[:, :end])
            else:
                assert torch.equal(first[:, :end], second[:, :end])
            changed_part = (first[:, end:] - second[:, end:]).float()
            assert changed_part.abs().mean() > 0.1 * first.float().abs().mean()


# Threads


@pytest.mark.usefixtures("plain_steps")
def test_small_steps_run_on_one_thread(make_model, monkeypatch):
    """And the number that the caller has set is the same again afterwards, also after an error."""
    model = make_model()
    decoder, encoder = model.decoder_stream(2, 16), model.encoder_stream(2, 16)
    seen = []
    for name, session in (("decoder", decoder), ("encoder", encoder)):
        run = session.engine._run
        monkeypatch.setattr(
            session.engine,
            "_run",
            lambda *arguments, run=run, name=name: (
                seen.append((name, torch.get_num_threads())) or run(*arguments)
            ),
        )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        slots = decoder.open(), encoder.open()
        for frames in (8, 9):
            decoder.step({slots[0]: random_codes(frames)})
            encoder.step({slots[1]: random_audio(frames * STEP)})
        assert torch.get_num_threads() == 2

        def fail(*arguments):
            raise RuntimeError("out of memory")

        monkeypatch.setattr(decoder.engine, "_run", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            decoder.step({slots[0]: random_codes(1)})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [("decoder", 1), ("encoder", 1), ("decoder", 2), ("encoder", 2)]
