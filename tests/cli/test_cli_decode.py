"""`moss-audio decode`: back to the original length, and never with the wrong model unasked."""

import numpy as np
import pytest
import soundfile

from moss_audio_tokenizer.codes import AudioCodes


@pytest.mark.parametrize("name", ["out.wav", "out.flac"])
def test_audio_is_as_long_as_the_original(codec, moss_audio, write_codes, tmp_path, name):
    result = moss_audio("decode", write_codes(), "-o", tmp_path / name)
    assert result.exit_code == 0, result.output
    audio, rate = soundfile.read(tmp_path / name)
    assert (audio.shape, rate) == ((1500,), 8000)
    assert codec.loads == [("bundled", "decoder", "cpu", False)]


def test_encode_then_decode_gives_the_sound_back(codec, moss_audio, write_wav, tmp_path):
    moss_audio("encode", write_wav(), "-o", tmp_path / "a.moss")
    moss_audio("decode", tmp_path / "a.moss", "-o", tmp_path / "b.wav")
    original, decoded = (soundfile.read(tmp_path / name)[0] for name in ("clip.wav", "b.wav"))
    means = [audio[:1280].reshape(2, 640).mean(1) for audio in (original, decoded)]
    np.testing.assert_allclose(means[0], means[1], atol=1e-3)


def test_fewer_layers_and_chunks(codec, moss_audio, write_codes, tmp_path):
    options = ["--num-quantizers", 2, "--chunk-duration", 0.08]
    assert moss_audio("decode", write_codes(), "-o", tmp_path / "a.wav", *options).exit_code == 0
    assert codec.calls == [("decode", 2, 0.08)]


def test_several_inputs_and_formats(codec, json_of, write_codes, tmp_path, names_in):
    inputs = [write_codes(name) for name in ("a.moss", "b.npz", "c.safetensors")]
    document = json_of("decode", *inputs, "-o", tmp_path / "out", "--format", "flac")
    assert names_in(tmp_path / "out") == {"a.flac", "b.flac", "c.flac"}
    facts = document["files"][0]
    assert (facts["num_samples"], facts["sampling_rate"]) == (1500, 8000)
    assert facts["num_quantizers"] == 4


def test_a_folder_gets_wav(codec, moss_audio, write_codes, tmp_path, names_in):
    moss_audio("decode", write_codes(), "-o", f"{tmp_path}/out/")
    assert names_in(tmp_path / "out") == {"clip.wav"}


def test_codes_of_another_model(codec, refused, moss_audio, write_codes, tmp_path):
    path = write_codes(model="fedcba9876543210")
    line = refused("decode", path, "-o", tmp_path / "a.wav")
    assert "fedcba9876543210" in line
    assert "--force" in line
    assert not (tmp_path / "a.wav").exists()
    assert moss_audio("decode", path, "-o", tmp_path / "a.wav", "--force").exit_code == 0


def test_codes_of_no_known_model_decode_if_the_rates_agree(
    codec, refused, moss_audio, write_codes, tmp_path
):
    path = write_codes(model="")
    assert moss_audio("decode", path, "-o", tmp_path / "a.wav").exit_code == 0
    other = write_codes("other.moss", model="", rate=16_000)
    assert "16000 Hz" in refused("decode", other, "-o", tmp_path / "b.wav")


def test_a_bad_input_does_not_stop_the_others(codec, moss_audio, write_codes, tmp_path, names_in):
    bad, good = write_codes("bad.moss", model="other"), write_codes("good.moss")
    result = moss_audio("decode", bad, good, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert names_in(tmp_path / "out") == {"good.wav"}
    assert str(bad) in result.stderr


@pytest.mark.parametrize("suffix", [".moss", ".safetensors", ".npz"])
def test_truncated_codes(codec, refused, write_codes, tmp_path, names_in, suffix):
    path = write_codes(f"cut{suffix}")
    path.write_bytes(path.read_bytes()[:-3])
    assert str(path) in refused("decode", path, "-o", tmp_path / "a.wav")
    assert names_in(tmp_path) == {path.name}


@pytest.mark.parametrize("kind", ["missing.moss", "sound.wav", "folder"])
def test_unusable_input(codec, refused, write_wav, tmp_path, kind):
    write_wav("sound.wav")
    (tmp_path / "folder").mkdir()
    assert kind in refused("decode", tmp_path / kind, "-o", tmp_path / "a.wav")


def test_wrong_extension(codec, refused, write_codes, tmp_path):
    assert ".wav or .flac" in refused("decode", write_codes(), "-o", tmp_path / "a.mp3")


@pytest.mark.parametrize(("count", "available"), [(3, 2), (5, 4)])
def test_more_layers_than_there_are(codec, refused, write_codes, tmp_path, count, available):
    path = write_codes(layers=2)
    line = refused("decode", path, "-o", tmp_path / "a.wav", "--num-quantizers", count)
    assert f"expected 1 to {available}" in line


def test_codes_with_more_layers_than_the_model(codec, refused, write_codes, tmp_path):
    path = write_codes(layers=5)
    assert "expected at most 4" in refused("decode", path, "-o", tmp_path / "a.wav")
    assert AudioCodes.load(path).num_quantizers == 5
