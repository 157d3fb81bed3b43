"""Saved streams continue exactly; a file that is not what it was leaves the session alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from stream_checks import assert_decoded, assert_encoded, random_audio, random_codes

from moss_audio_tokenizer.errors import InputError, MossAudioError, SlotsFull, StreamFileError
from moss_audio_tokenizer.streaming.engine import write_stream_file

STEP = 8  # samples a frame
SIDES = pytest.mark.parametrize("side", ["decoder", "encoder"])


@pytest.fixture
def model(make_model):
    return make_model()


def begin(session, clip, cut):
    """Two streams that have been fed to ``cut``, at places 0 and 2; what came out of them."""
    slots = [session.open() for _ in range(3)]
    session.close(slots.pop(1))
    return session.step(dict.fromkeys(slots, clip[:, :cut]))


def finish(session, first, clip, cut):
    """Feed the rest, and return all that came out of each stream."""
    second = session.step(dict.fromkeys(first, clip[:, cut:]))
    return [
        torch.cat((first[slot], second[slot], session.close(slot)), dim=1) for slot in list(first)
    ]


@pytest.fixture(params=["decoder", "encoder"])
def case(request, model):
    """How to make a session, what to feed it (up to where), and how to check what came out."""
    if request.param == "decoder":
        clip, cut = random_codes(150), 100
        return lambda: model.decoder_stream(3, 4), clip, cut, assert_decoded
    clip, cut = random_audio(150 * STEP), 100 * STEP + 5  # in the middle of a frame
    return lambda: model.encoder_stream(3, 4), clip, cut, assert_encoded


@pytest.mark.usefixtures("path")
def test_saved_streams_go_on(case, model, tmp_path):
    make, clip, cut, check = case
    session = make()
    first = begin(session, clip, cut)
    session.save(tmp_path / "streams.safetensors")
    for result in finish(session, first, clip, cut):  # saving disturbs nothing
        check(model, clip, result)
    restored = make()
    restored.open()  # what was open before is open no more
    assert restored.load(str(tmp_path / "streams.safetensors")) == list(first)
    assert restored.open_slots == list(first)
    for result in finish(restored, first, clip, cut):
        check(model, clip, result)


def test_a_session_returns_to_what_it_saved(case, model, tmp_path):
    make, clip, cut, check = case
    session = make()
    first = begin(session, clip, cut)
    session.save(tmp_path / "streams")
    for _ in range(2):
        session.step(dict.fromkeys(first, clip[:, :77]))
        later = session.open()
        session.load(tmp_path / "streams")
        with pytest.raises(InputError, match="not open"):
            session.close(later)
    for result in finish(session, first, clip, cut):
        check(model, clip, result)


def test_new_streams_beside_restored_ones(case, model, tmp_path):
    make, clip, cut, check = case
    session = make()
    first = begin(session, clip, cut)
    session.save(tmp_path / "streams")
    restored = make()
    restored.load(tmp_path / "streams")
    new = restored.open()
    assert new.index == 1
    assert new not in first
    with pytest.raises(SlotsFull):
        restored.open()
    begun = restored.step({new: clip[:, :13]})[new]
    for result in finish(restored, first, clip, cut):
        check(model, clip, result)
    ended = restored.step({new: clip[:, 13:]})[new]
    check(model, clip, torch.cat((begun, ended, restored.close(new)), dim=1))


def test_a_fork_within_a_frame_is_saved_too(model, tmp_path):
    audio = random_audio(20 * STEP)
    session = model.encoder_stream(2, 4)
    slot = session.open()
    first = session.step({slot: audio[:, :37]})[slot]
    fork = session.fork(slot)
    session.save(tmp_path / "streams")
    restored = model.encoder_stream(2, 4)
    assert restored.load(tmp_path / "streams") == [slot, fork]
    for result in finish(restored, {slot: first, fork: first}, audio, 37):
        assert_encoded(model, audio, result)


def test_empty_sessions_are_saved_too(case, tmp_path):
    session = case[0]()
    session.save(tmp_path / "streams")
    session.open()
    assert session.load(tmp_path / "streams") == []


def test_other_precisions(make_model, tmp_path):
    model = make_model()
    model.set_compute_dtype("bf16")
    codes = random_codes(60)
    session = model.decoder_stream(1, 4)
    slot = session.open()
    session.step({slot: codes[:, :30]})
    session.save(tmp_path / "streams")
    restored = model.decoder_stream(1, 4)
    restored.load(tmp_path / "streams")
    rest = codes[:, 30:]
    assert torch.equal(restored.step({slot: rest})[slot], session.step({slot: rest})[slot])
    for dtype in ("fp32", "fp16"):
        model.set_compute_dtype(dtype)
        with pytest.raises(InputError, match="of another precision"):
            model.decoder_stream(1, 4).load(tmp_path / "streams")


# What cannot be restored


@pytest.fixture
def saved(case, tmp_path):
    """The file of a session whose streams have heard something else."""
    make, clip, cut, _ = case
    path = tmp_path / "streams.safetensors"
    session = make()
    begin(session, clip.roll(50, dims=1), cut)
    session.save(path)
    return path


@pytest.fixture
def refuses(case, model):
    """Holds that a session refuses a file, and that its own streams know nothing of it."""
    make, clip, cut, check = case

    def refuse(path, error, match, make=make):
        session = make()
        first = begin(session, clip, cut)
        with pytest.raises(error, match=match) as caught:
            session.load(path)
        assert isinstance(caught.value, MossAudioError)
        assert "\n" not in str(caught.value)
        assert session.open_slots == list(first)
        for result in finish(session, first, clip, cut):
            check(model, clip, result)

    return refuse


def test_missing_and_empty_files(refuses, tmp_path):
    refuses(tmp_path / "none", StreamFileError, "no such file")
    refuses(tmp_path, StreamFileError, "is a folder")
    (tmp_path / "empty").touch()
    refuses(tmp_path / "empty", StreamFileError, "is empty")


def test_foreign_files(refuses, model, tmp_path):
    (tmp_path / "text").write_text("These are no streams. " * 50)
    refuses(tmp_path / "text", StreamFileError, "cannot be read as streams")
    model.save_pretrained(tmp_path)
    refuses(tmp_path / "model.safetensors", StreamFileError, "holds no streams")


@pytest.mark.parametrize("part", [0.01, 0.3, 0.9, 0.9999])
def test_truncated_files(refuses, saved, part):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * part)])
    refuses(saved, StreamFileError, "cannot be read as streams")


@SIDES
def test_no_altered_byte_gives_other_streams(model, side, tmp_path):
    path = tmp_path / "streams"
    make = getattr(model, f"{side}_stream")
    session = make(1, 2)
    clip = random_codes(9) if side == "decoder" else random_audio(70)
    session.step({session.open(): clip})
    session.save(path)
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.integers(0, header) | st.integers(header, len(content) - 1), st.integers(1, 255))
    def alter(position, change):
        altered = bytearray(content)
        altered[position] ^= change
        path.write_bytes(altered)
        other = make(1, 2)
        try:
            other.load(path)
        except (StreamFileError, InputError):
            assert other.open_slots == []
            assert not any(array.any() for array in other.engine.to_arrays().values())
        else:  # white space of the header, of one kind or another
            assert other.open_slots == session.open_slots
            restored = other.engine.to_arrays()
            saved = session.engine.to_arrays()
            assert all(np.array_equal(restored[name], saved[name]) for name in saved)

    alter()


def test_streams_of_the_other_side(saved, case, model):
    other = model.encoder_stream if "Decoder" in type(case[0]()).__name__ else model.decoder_stream
    session = other(3, 4)
    with pytest.raises(StreamFileError, match=r"holds no (De|En)coderStream"):
        session.load(saved)
    assert session.open_slots == []


def retrained(model):
    """Whose codes mean the same, but whose decoder and encoder compute something else."""
    for side in (model.codec.encoder, model.codec.decoder):
        side.transformers()[-1].layers[0].attention_norm.bias.add_(0.1)
    return model


def requantized(model):
    model.codec.quantizer.codebooks.mul_(2)
    return model


@SIDES
def test_streams_of_another_model_or_session(make_model, side, tmp_path):
    model, path = make_model(), tmp_path / "streams"
    session = getattr(model, f"{side}_stream")(3, 4)
    session.open()
    session.save(path)
    for other, sizes, message in [
        (retrained(make_model()), (3, 4), "streams of another model"),
        (requantized(make_model()), (3, 4), "streams of another model"),
        (model, (2, 4), "number of slots"),
        (model, (3, 200), "chunk length"),
    ]:
        stranger = getattr(other, f"{side}_stream")(*sizes)
        slot = stranger.open()
        with pytest.raises(InputError, match=message):
            stranger.load(path)
        assert stranger.open_slots == [slot]
        assert int(stranger.engine.positions.sum()) == 0


def rewrite(path, tensors=(), **notes):
    """The same file with other contents, and a checksum that fits them."""
    with safe_open(path, "pt") as file:
        notes = file.metadata() | notes
    del notes["checksum"]
    tensors = load_file(path) | dict(tensors)
    write_stream_file(path, tensors, notes)


CANNOT_BE = "unfinished frames that cannot be"
IMPOSSIBLE = [
    ({"slots": "nonsense"}, "does not say which slots"),
    ({"slots": '[[7, 0, "a"]]'}, "names slots that cannot be"),
    ({"tensors": {"pending.0": torch.zeros(1, 8)}}, CANNOT_BE),  # it would have been encoded
    ({"tensors": {"pending.1": torch.zeros(1, 5)}}, CANNOT_BE),  # of no stream
    ({"tensors": {"pending.x": torch.zeros(1, 5)}}, CANNOT_BE),
    ({"tensors": {"pending.0": torch.zeros(2, 5)}}, "one stream's"),
    ({"tensors": {"pending.0": torch.full((1, 5), float("nan"))}}, "NaN"),
    ({"tensors": {"memory.more": torch.zeros(3)}}, "of another model, precision"),
    ({"tensors": {"memory.positions": torch.zeros(3)}}, "of another model, precision"),
]


@pytest.mark.parametrize(("contents", "message"), IMPOSSIBLE)
@pytest.mark.parametrize("case", ["encoder"], indirect=True)
def test_impossible_contents(refuses, saved, contents, message):
    rewrite(saved, **contents)
    refuses(saved, (StreamFileError, InputError), message)


# What cannot be written


def test_a_failed_save_leaves_what_was_there(case, tmp_path):
    resource = pytest.importorskip("resource")
    session = case[0]()
    path = tmp_path / "streams"
    path.write_text("before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as a full disk would
    try:
        with pytest.raises(StreamFileError, match=r"cannot write .*too large"):
            session.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [item.name for item in tmp_path.iterdir()] == ["streams"]
    assert path.read_text() == "before"


def test_places_that_cannot_be_written(case, tmp_path):
    session = case[0]()
    for path in (tmp_path / "none" / "streams", tmp_path, "a\0b"):
        with pytest.raises(StreamFileError, match="cannot write"):
            session.save(path)
    assert list(Path(tmp_path).iterdir()) == []
