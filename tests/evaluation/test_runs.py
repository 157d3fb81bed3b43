"""Evaluating many clips with a codec that is exact arithmetic, and the table of it."""

import json
import math

import numpy as np
import pytest
import soundfile

from moss_audio_tokenizer.codes.codec import CodecInfo
from moss_audio_tokenizer.errors import CodesError, InputError
from moss_audio_tokenizer.evaluation import (
    evaluate_clips,
    markdown_table,
    summarise,
)
from moss_audio_tokenizer.manifest import read_manifest

pytest.importorskip("pystoi")
pytest.importorskip("scipy")

RATE, STEP = 16_000, 160


class FakeCodec:
    """Layer k of the codes holds a sample's k-th byte: two layers are 16-bit audio."""

    info = CodecInfo("0" * 16, RATE, 1, 1, 2, 256)

    def __init__(self):
        self.encoded = []

    def encode(self, audio, *, num_quantizers=None, chunk_duration=None):
        self.encoded.append(num_quantizers)
        values = np.clip(np.rint(audio[0] * 32768), -32768, 32767).astype(np.int64) + 32768
        return np.stack([values >> 8, values & 255])[:num_quantizers]

    def decode(self, codes, *, chunk_duration=None):
        low = codes[1] if len(codes) > 1 else 128
        return (((codes[0] << 8) + low - 32768) / 32768).astype(np.float32)[None]


@pytest.fixture
def manifest(tmp_path):
    rng = np.random.default_rng(0)
    items = []
    for index, domain in enumerate(["speech", "speech", "music"]):
        name = f"{domain}{index}.wav"
        rhythm = np.clip(np.sin(np.arange(RATE) / 900), 0, 1)
        soundfile.write(tmp_path / name, 0.3 * rhythm * rng.standard_normal(RATE), RATE)
        items.append({"path": name, "domain": domain, "split": "valid"})
    (tmp_path / "broken.wav").write_bytes(b"RIFF, or so it says")
    items.append({"path": "broken.wav", "domain": "speech", "split": "valid"})
    items.append({"path": "absent.wav", "domain": "speech", "split": "train"})
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(json.dumps(item) for item in items), encoding="utf-8")
    return path


@pytest.fixture
def rows(manifest):
    return evaluate_clips(FakeCodec(), read_manifest(manifest, split="valid"), [1, 2])


def test_a_row_for_every_clip_and_depth(rows):
    kept = [(row.name, row.num_quantizers, row.kbps) for row in rows if not row.error]
    assert len(kept) == 6
    assert kept[0] == ("speech0.wav", 1, 128.0)
    assert kept[1] == ("speech0.wav", 2, 256.0)


def test_a_corrupt_clip_costs_itself_only_and_is_listed(rows):
    failed = [row for row in rows if row.error]
    assert {row.name for row in failed} == {"broken.wav"}
    assert json.loads(json.dumps(failed[0].as_json()))["error"]


def test_every_clip_is_encoded_once_at_the_greatest_depth(manifest):
    codec = FakeCodec()
    evaluate_clips(codec, read_manifest(manifest, split="valid", domain="music"), [1, 2])
    assert codec.encoded == [2]


def test_more_layers_are_better_and_stoi_is_of_speech_alone(rows):
    one, two = (row.metrics for row in rows[:2])
    assert two["mel_distance"] < one["mel_distance"]
    assert two["si_sdr"] > one["si_sdr"] > 20
    assert two["stoi"] > 0.99
    assert all("stoi" not in row.metrics for row in rows if row.domain == "music")


def test_rows_are_json_without_nan(rows):
    json.dumps([row.as_json() for row in rows], allow_nan=False)


@pytest.mark.parametrize("depth", [0, 3])
def test_a_depth_that_the_codec_lacks_is_refused(manifest, depth):
    with pytest.raises(CodesError, match=f"is {depth}"):
        evaluate_clips(FakeCodec(), read_manifest(manifest), [depth])


def test_summary_is_mean_and_students_interval(rows):
    speech = summarise(rows)[0]
    values = [row.metrics["si_sdr"] for row in rows if row.domain == "speech" and not row.error]
    first = values[0::2]
    average = speech.metrics["si_sdr"]
    assert (speech.domain, speech.num_quantizers, average.num_clips) == ("speech", 1, 2)
    assert average.mean == pytest.approx(np.mean(first))
    # Student's t with one degree of freedom at 97.5% is 12.706.
    half = 12.7062 * np.std(first, ddof=1) / math.sqrt(2)
    assert average.interval == pytest.approx(half, rel=1e-4)


def test_table_has_a_line_for_each_domain_and_depth(rows):
    lines = markdown_table(summarise(rows), ("stoi", "si_sdr")).splitlines()
    assert len(lines) == 2 + 4
    assert {line.count("|") for line in lines} == {7}
    assert "±" in lines[2]
    music = next(line for line in lines if "music" in line)
    assert "±" not in music


def test_a_manifest_without_such_clips_is_an_error(manifest):
    with pytest.raises(InputError, match="song"):
        read_manifest(manifest, domain="song")
