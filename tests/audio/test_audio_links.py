"""Files of several streams, joined: all of them are read, and nothing else is taken for one."""

import io
import struct

import numpy as np
import pytest
import soundfile
from tones import RATE, riff, tone

from moss_audio_tokenizer.audio import audio_info, encode_audio, load_audio, load_crop
from moss_audio_tokenizer.audio.mpeg import frame_length
from moss_audio_tokenizer.errors import AudioFileError

SECONDS = 1.5


def encoded(name: str, rate: int = RATE, channels: int = 1, frequency: float = 440.0) -> bytes:
    """A tone as one stream of a format."""
    layout = {
        "mp3": ("MP3", "MPEG_LAYER_III"),
        "opus": ("OGG", "OPUS"),
        "vorbis": ("OGG", "VORBIS"),
    }
    data = io.BytesIO()
    samples = tone(frequency, SECONDS, rate, channels).T
    soundfile.write(data, samples, rate, layout[name][1], format=layout[name][0])
    return data.getvalue()


def untagged(mp3: bytes) -> bytes:
    """The frames of an MP3 file behind the first, which holds the tag."""
    tag = max(mp3.find(b"Xing"), mp3.find(b"Info"))
    return mp3[mp3.index(mp3[:2], tag) :]


def id3(num_bytes: int) -> bytes:
    """An ID3v2 tag, such as one with a picture of so many bytes."""
    size = bytes(num_bytes >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\3\0\0" + size + bytes(num_bytes)


def read(tmp_path, data: bytes, name: str = "joined") -> np.ndarray:
    """The samples of a file, by path, by file object, and as many as `audio_info` says."""
    path = tmp_path / name
    path.write_bytes(data)
    samples = load_audio(path)
    assert audio_info(path).num_samples == samples.shape[1]
    np.testing.assert_array_equal(load_audio(io.BytesIO(data)), samples)
    return samples


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", ["mp3", "opus", "vorbis"])
def test_joined_streams_are_read_one_behind_the_other(tmp_path, name, count):
    one, other = encoded(name), encoded(name, frequency=700.0)
    alone = [load_audio(io.BytesIO(data)) for data in (one, other)]
    parts = [alone[number % 2] for number in range(count)]
    joined = read(tmp_path, b"".join((one, other)[number % 2] for number in range(count)))
    np.testing.assert_array_equal(joined, np.concatenate(parts, axis=1))


@pytest.mark.parametrize("between", [b"", id3(20), id3(50_000), b"TAG" + bytes(125), bytes(300)])
def test_tags_between_joined_mp3_files_do_not_count(tmp_path, between):
    one = encoded("mp3")
    alone = load_audio(io.BytesIO(one))
    joined = read(tmp_path, id3(10) + one + between + one)
    np.testing.assert_array_equal(joined, np.concatenate([alone, alone], axis=1))


def test_a_stream_with_a_tag_and_one_without(tmp_path):
    one = encoded("mp3")
    alone, rest = load_audio(io.BytesIO(one)), load_audio(io.BytesIO(untagged(one)))
    joined = read(tmp_path, one + untagged(one))
    np.testing.assert_array_equal(joined, np.concatenate([alone, rest], axis=1))
    assert read(tmp_path, untagged(one) + untagged(one)).shape[1] > 1.9 * SECONDS * RATE
    assert read(tmp_path, untagged(one) + one).shape[1] > 1.9 * SECONDS * RATE


def ape() -> bytes:
    """An APE tag: header, one item, footer."""
    item = struct.pack("<II", 1, 0) + b"Title\0x"
    frame = b"APETAGEX" + struct.pack("<IIII", 2000, len(item) + 32, 1, 0xA0000000) + bytes(8)
    return frame + item + frame


@pytest.mark.parametrize(
    "behind", [b"TAG" + bytes(125), ape(), ape() + b"TAG" + bytes(125), bytes(5000), b"\xff" * 3000]
)
def test_what_lies_behind_a_stream_is_not_sound(tmp_path, behind):
    one = encoded("mp3")
    alone = load_audio(io.BytesIO(one))
    np.testing.assert_array_equal(read(tmp_path, one + behind), alone)
    np.testing.assert_array_equal(
        read(tmp_path, untagged(one) + b""), load_audio(io.BytesIO(untagged(one)))
    )


@pytest.mark.parametrize("name", ["mp3", "opus", "vorbis"])
@pytest.mark.parametrize("changes", [{"rate": 48_000}, {"channels": 2}])
def test_joined_streams_that_differ_are_refused(tmp_path, name, changes):
    path = tmp_path / "joined"
    path.write_bytes(encoded(name) + encoded(name, **changes))
    with pytest.raises(AudioFileError, match=r"joined' holds 2 streams, joined; stream 2 has"):
        load_audio(path)


@pytest.mark.parametrize("name", ["mp3", "opus", "vorbis"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.8, 0.97])
def test_joined_streams_that_are_cut_are_refused(tmp_path, name, kept):
    data = encoded(name) * 2
    path = tmp_path / "cut"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(AudioFileError):
        load_audio(path)


@pytest.mark.parametrize("name", ["opus", "vorbis"])
def test_a_first_stream_that_is_cut_is_refused(tmp_path, name):
    data = encoded(name)
    (tmp_path / "cut").write_bytes(data[: data.rindex(b"OggS")] + data)
    with pytest.raises(AudioFileError, match="where another file begins"):
        load_audio(tmp_path / "cut")


@pytest.mark.parametrize("name", ["mp3", "opus", "vorbis"])
def test_crops_reach_into_every_stream(tmp_path, name):
    path = tmp_path / "joined"
    path.write_bytes(encoded(name) * 2)
    whole = load_audio(path, RATE, 1)
    np.testing.assert_array_equal(load_crop(path, 1.0, 4_000, RATE, 1), whole[:, -4_000:])


def test_joined_wav_and_flac_are_refused(tmp_path):
    flac = encode_audio(tone(), RATE, ".flac")
    path = tmp_path / "joined"
    for data in (flac + flac, riff(bytes(2000)) * 2):
        path.write_bytes(data)
        with pytest.raises(AudioFileError):
            load_audio(path)


@pytest.mark.parametrize("behind", [b"", b"TAG" + bytes(125)])
def test_a_tag_that_does_not_count_its_own_frame_loses_nothing(tmp_path, behind):
    data = bytearray(encoded("mp3"))
    expected = load_audio(io.BytesIO(data))
    tag = max(data.find(b"Xing"), data.find(b"Info"))
    (flags,) = struct.unpack(">I", data[tag + 4 : tag + 8])
    place = tag + 8 + 4 * (flags & 1)
    assert flags & 2
    stated = int.from_bytes(data[place : place + 4], "big")
    frame = frame_length(bytes(data[:4]))
    data[place : place + 4] = (stated - frame).to_bytes(4, "big")
    np.testing.assert_array_equal(read(tmp_path, bytes(data) + behind), expected)
