"""Verifying codecs with golden vectors: what is equal passes, and what is not is found."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from moss_audio_tokenizer.codes import CodecInfo
from moss_audio_tokenizer.errors import CheckpointError, InputError
from moss_audio_tokenizer.evaluation.golden import make_vectors, num_checks, verify
from moss_audio_tokenizer.evaluation.golden_vectors import read_vectors, write_vectors

INFO = CodecInfo("0123456789abcdef", 800, 2, 64, 4, 16)


class Subject:
    """Frames to digits of their level; every way in may be given a fault."""

    audio_step = 0.0

    def __init__(self, info=INFO, **faults):
        self.info, self.faults = info, faults

    def encode(self, audio, *, num_quantizers=None):
        frames = -(-audio.shape[1] // 64)
        padded = np.pad(audio, ((0, 0), (0, frames * 64 - audio.shape[1])))
        level = np.abs(padded).sum(0).reshape(frames, 64).sum(1) * 100
        codes = np.stack([level.astype(np.int64) // 16**power % 16 for power in range(4)])
        return self.faults.get("encode", lambda c: c)(codes)[: num_quantizers or 4]

    def decode(self, codes):
        level = (16.0 ** -np.arange(1, len(codes) + 1)) @ codes
        audio = np.repeat(level, 64) * np.array([[1], [-0.5]])
        return self.faults.get("decode", lambda a: a)(audio.astype(np.float32))

    def encode_live(self, audio):
        return self.faults.get("encode_live", lambda c: c)(Subject().encode(audio))

    def decode_live(self, codes):
        return self.faults.get("decode_live", lambda a: a)(Subject().decode(codes))


def failed(**faults):
    vectors = make_vectors(Subject(), "here")
    subject = Subject(**faults)
    # Positional, as a subject's verb; the codec's is by name.
    subject.encode = lambda audio, layers: Subject.encode(subject, audio, num_quantizers=layers)
    checks = list(verify(subject, vectors))
    assert len(checks) == num_checks(vectors)
    return [check.name for check in checks if not check.passed]


def one_off(codes):
    return codes + (np.arange(codes.shape[1]) == 1)


def test_what_is_equal_passes():
    assert failed() == []


@pytest.mark.parametrize(
    ("faults", "names"),
    [
        ({"encode": one_off}, ["codes of clip 1", "codes of clip 2", "codes of clip 1, 3 layers"]),
        ({"encode_live": one_off}, ["codes of clip 1, streamed"]),
        ({"encode_live": lambda codes: codes[:, :-1]}, ["codes of clip 1, streamed"]),
        ({"encode_live": lambda codes: codes[:2]}, ["codes of clip 1, streamed"]),
        ({"encode_live": lambda codes: np.tile(codes, 2)}, ["codes of clip 1, streamed"]),
        ({"decode_live": lambda audio: audio * np.nan}, ["audio of codes 1, streamed"]),
        ({"decode_live": lambda audio: audio + np.inf}, ["audio of codes 1, streamed"]),
        ({"decode_live": lambda audio: audio * 1.0002}, ["audio of codes 1, streamed"]),
        ({"decode_live": lambda audio: audio * 1.00001}, []),
        ({"decode_live": lambda audio: audio[:, 1:]}, ["audio of codes 1, streamed"]),
        (
            {"decode": lambda audio: np.roll(audio, 1, 1)},
            ["audio of codes 1", "audio of codes 2", "audio of codes 1, 3 layers"],
        ),
    ],
)
def test_what_differs_is_found(faults, names):
    assert failed(**faults) == names


def test_audio_of_16_bits_may_be_off_by_its_steps_and_no_more():
    def rounded(by):
        return lambda audio: np.round(np.clip(audio, -1, 1) / by) * by

    def names(by):
        subject = Subject(decode=rounded(by))
        subject.audio_step = 1 / 32768
        vectors = make_vectors(Subject(), "here")
        found = [check.name for check in verify(_positional(subject), vectors) if not check.passed]
        return [name for name in found if name.startswith("audio")]

    assert names(1 / 32768) == []
    assert len(names(1 / 1024)) == 3


def _positional(subject):
    subject.encode = lambda audio, layers: Subject.encode(subject, audio, num_quantizers=layers)
    return subject


@pytest.mark.parametrize("change", [{"num_quantizers": 5}, {"num_channels": 1}])
def test_vectors_of_another_codec_are_refused(change):
    subject = Subject(replace(INFO, **change))
    with pytest.raises(InputError, match="they are of another codec"):
        list(verify(subject, make_vectors(Subject(), "here")))


def test_a_file_brings_them_back(tmp_path):
    vectors = make_vectors(Subject(), "here")
    write_vectors(tmp_path / "io.safetensors", vectors, INFO)
    for found in (read_vectors(tmp_path), read_vectors(tmp_path / "io.safetensors")):
        for before, after in zip(vectors.encodings, found.encodings, strict=True):
            np.testing.assert_array_equal(before.codes, after.codes)
        assert found.encodings[1].audio.shape == vectors.encodings[1].audio.shape
        assert [check.passed for check in verify(_positional(Subject()), found)] == [True] * 8


def shorter(tensor):
    return tensor[..., :-1]


CHANGES = {
    "no audio": ("audio", None),
    "a clip that is not a number": ("wav", lambda t: t * np.nan),
    "endless audio": ("audio", lambda t: t + np.inf),
    "codes that are floats": ("codes", lambda t: t.astype(np.float32)),
    "audio that is whole numbers": ("audio", lambda t: t.astype(np.int16)),
    "no rows": ("wav", lambda t: t[:0]),
    "no frames": ("codes", lambda t: t[..., :0]),
    "lengths of nothing": ("codes_lengths", lambda t: t * 0),
    "lengths below nothing": ("lengths", lambda t: -t),
    "lengths beyond the clip": ("lengths", lambda t: t + 10**6),
    "lengths that are floats": ("lengths", lambda t: t + 0.5),
    "lengths of fewer rows": ("lengths", shorter),
    "codes of fewer rows": ("codes", lambda t: t[:, :1]),
    "audio of fewer rows": ("audio", lambda t: t[:1]),
    "audio of broken frames": ("audio", shorter),
    "a start of broken frames": ("audio_first3", shorter),
    "four axes": ("codes", lambda t: t[None]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_vectors_that_cannot_be_are_refused_before_anything_runs(change, tmp_path):
    file = tmp_path / "io.safetensors"
    write_vectors(file, make_vectors(Subject(), "here"), INFO)
    tensors = load_file(file)
    name, make = CHANGES[change]
    if make is None:
        del tensors[name]
    else:
        tensors[name] = np.ascontiguousarray(make(tensors[name]))
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=f"{file} holds no golden vectors.*"):
        read_vectors(tmp_path)


def test_files_that_are_no_tensors_are_refused(tmp_path):
    file = tmp_path / "io.safetensors"
    with pytest.raises(CheckpointError, match="no such file"):
        read_vectors(file)
    file.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="cannot be read as golden vectors"):
        read_vectors(tmp_path)
    header = b'{"wav":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(CheckpointError, match=r"as golden vectors|wav is bfloat16"):
        read_vectors(tmp_path)


def test_vectors_too_quiet_for_16_bits_are_refused():
    quiet = Subject(decode=lambda audio: audio * 1e-4)
    subject = _positional(Subject())
    subject.audio_step = 1 / 32768
    with pytest.raises(InputError, match="RMS of"):
        list(verify(subject, make_vectors(quiet, "here")))
