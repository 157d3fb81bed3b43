"""Shards after tokenizing: their statistics, and back to sound."""

import json

import numpy as np
import pytest
from bulk_codec import FRAME, RATE, ToyChoice

from moss_audio_tokenizer.audio import load_audio
from moss_audio_tokenizer.bulk import detokenize, shard_statistics
from moss_audio_tokenizer.bulk.shard_statistics import entropy_bits, layer_use
from moss_audio_tokenizer.codes.shards import read_shards
from moss_audio_tokenizer.errors import CodesError, CodesFileError, InputError, ModelMismatchError


def test_entropy_of_known_distributions():
    counts = np.array([[4, 4, 4, 4], [8, 8, 0, 0], [5, 0, 0, 0]])
    assert entropy_bits(counts).tolist() == [2.0, 1.0, 0.0]
    assert [layer["used"] for layer in layer_use(counts)] == [1.0, 0.5, 0.25]


def test_statistics_add_up(finished):
    found = shard_statistics(finished, verify=True)
    clips = list(read_shards(finished))
    assert found["clips"] == len(clips) == sum(group["clips"] for group in found["groups"])
    assert found["hours"] == pytest.approx(sum(c.codes.duration_seconds for c in clips) / 3600)
    assert found["frames"] == sum(clip.codes.num_frames for clip in clips)
    assert found["kbps"] == pytest.approx(3 * 4 * RATE / FRAME / 1000)
    first = np.concatenate([clip.codes.codes[0] for clip in clips])
    assert found["layers"][0]["used"] == round(len(set(first.tolist())) / 16, 4)
    assert shard_statistics(finished, ["valid"])["clips"] == 3


def test_an_altered_shard_does_not_verify(clean):
    path = clean / "shards" / "train-000000.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CodesFileError, match="altered"):
        shard_statistics(clean, verify=True)


def test_sound_comes_back_with_a_manifest(finished, tmp_path):
    output = tmp_path / "sound"
    summary = detokenize(finished, output, ToyChoice(), workers=1, splits=["valid"])
    items = [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]
    clips = list(read_shards(finished, ["valid"]))
    assert summary["clips"] == len(items) == len(clips) == 3
    for item, clip in zip(items, clips, strict=True):
        audio = load_audio(output / item["path"])
        made = ToyChoice().open("decoder").decode(clip.codes.codes)
        assert audio.shape == (1, clip.codes.num_samples)
        assert np.allclose(audio, made[:, : audio.shape[1]], atol=2**-15)
        assert (item["original"], item["text"]) == (clip.name, clip.text)
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*.flac")}
    detokenize(finished, output, ToyChoice(), workers=1, splits=["valid"], resume=True)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.flac")} == times


def test_what_would_be_noise_is_refused(finished, tmp_path):
    with pytest.raises(ModelMismatchError, match="made by model"):
        detokenize(finished, tmp_path / "a", ToyChoice(identity="fedcba9876543210"))
    with pytest.raises(CodesError, match="expected 1 to 3"):
        detokenize(finished, tmp_path / "a", ToyChoice(), num_quantizers=4)
    with pytest.raises(InputError, match="expected flac, wav"):
        detokenize(finished, tmp_path / "a", ToyChoice(), audio_format="mp3")
    (tmp_path / "x").write_text("")
    with pytest.raises(InputError, match="not empty"):
        detokenize(finished, tmp_path, ToyChoice())
