import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from moss_audio_tokenizer.llm import ByteText, random_language_model
from moss_audio_tokenizer.manifest import ManifestEntry
from moss_audio_tokenizer.semantic import SemanticHead
from moss_audio_tokenizer.training.codec import validation
from moss_audio_tokenizer.training.codec.codec_config import ValidationConfig
from moss_audio_tokenizer.training.codec.validation import ValidationResult, measure, summarize
from moss_audio_tokenizer.training.data.audio_rows import Clip


def make_clip(domain: str, samples: int, channels: int = 1) -> Clip:
    random = np.random.default_rng(samples)
    values = random.integers(-9000, 9000, (channels, samples)).astype(np.int16)
    return Clip(ManifestEntry(Path("clip.wav"), domain), values)


def validate(codec, clips, depths, quantize: bool = True) -> ValidationResult:
    config = ValidationConfig(num_quantizers=depths)
    return summarize([measure(codec, clips, config, quantize)], codec.config, quantize)


@pytest.fixture
def measured(monkeypatch):
    """What the measures were asked: (name, samples of the reference, of the estimate, rate)."""
    calls = []

    def measure(name: str, value: float):
        def record(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
            calls.append((name, reference.shape, estimate.shape, rate))
            return value * len(calls)

        return record

    monkeypatch.setattr(validation, "mel_distance", measure("mel", 1.0))
    monkeypatch.setattr(validation, "stoi", measure("stoi", 1.0))
    monkeypatch.setattr(validation, "gross_pitch_error", lambda left, right, rate: 0.25)
    return calls


def test_every_domain_is_measured_at_every_num_quantizers_and_speech_by_more(make_codec, measured):
    clips = [make_clip("speech", 160), make_clip("music", 160)]
    scalars = validate(make_codec(), clips, (1, 4)).scalars
    assert {name for name in scalars if "/" in name and "perplexity" not in name} == {
        "speech/mel_distance/1",
        "speech/mel_distance/4",
        "speech/stoi/1",
        "speech/stoi/4",
        "speech/pitch_error/1",
        "speech/pitch_error/4",
        "music/mel_distance/1",
        "music/mel_distance/4",
    }


def test_values_are_means_over_clips(make_codec, measured):
    clips = [make_clip("music", 160), make_clip("music", 80)]
    scalars = validate(make_codec(), clips, (2,)).scalars
    assert scalars["music/mel_distance/2"] == 1.5


@pytest.mark.parametrize(
    ("samples", "seconds", "expected"), [(160, 1.0, 160), (161, 1.0, 168), (900, 0.1, 80)]
)
def test_clips_are_cut_or_padded_to_whole_frames(
    make_codec, measured, monkeypatch, samples, seconds, expected
):
    monkeypatch.setattr(validation, "_MOST_SECONDS", seconds)
    validate(make_codec(), [make_clip("music", samples)], (1,))
    assert measured == [("mel", (expected,), (expected,), 800)]


def test_less_than_a_frame_is_a_frame(make_codec, measured, monkeypatch):
    monkeypatch.setattr(validation, "_MOST_SECONDS", 0.001)
    validate(make_codec(), [make_clip("music", 160)], (1,))
    assert measured[0][1] == (8,)


def test_stereo_is_measured_as_mono(make_codec, measured):
    result = validate(make_codec(2), [make_clip("music", 160, 2)], (1,))
    assert measured == [("mel", (160,), (160,), 800)]
    assert result.reference.shape == (160,)


def test_more_quantizers_than_the_codec_has_are_all_of_its_quantizers(make_codec, measured):
    scalars = validate(make_codec(), [make_clip("music", 80)], (4, 8, 32)).scalars
    assert [name for name in scalars if "mel" in name] == ["music/mel_distance/4"]


def test_without_quantizing_there_is_one_measurement_and_no_use_of_codes(make_codec, measured):
    scalars = validate(make_codec(), [make_clip("music", 80)], (1, 4), quantize=False).scalars
    assert set(scalars) == {"music/mel_distance/0", "score"}


def test_undefined_values_are_left_out(make_codec, measured, monkeypatch):
    values = iter((math.nan, 0.5, math.nan))
    monkeypatch.setattr(validation, "stoi", lambda *_: next(values))
    clips = [make_clip("speech", 80), make_clip("speech", 80)]
    assert validate(make_codec(), clips, (1,)).scalars["speech/stoi/1"] == 0.5
    assert "speech/stoi/1" not in validate(make_codec(), clips[:1], (1,)).scalars


@pytest.mark.parametrize("training", [True, False])
def test_the_codec_is_left_in_its_mode(make_codec, measured, training):
    codec = make_codec().train(training)
    validate(codec, [make_clip("music", 80)], (1,), 1.0)
    assert codec.training is training


def test_use_of_codes_is_perplexity_over_what_can_be_reached():
    even, single = torch.arange(16), torch.zeros(16, dtype=torch.long)
    use = validation._codebook_use(torch.stack((even, even % 4, single)), codebook_size=16)
    assert use == pytest.approx(
        {
            "perplexity/first": 1.0,
            "perplexity/middle": 0.25,
            "perplexity/last": 1 / 16,
            "perplexity/lowest": 1 / 16,
        }
    )


def test_parts_of_several_processes_are_measured_as_one(make_codec, measured, monkeypatch):
    monkeypatch.setattr(validation, "mel_distance", lambda left, right, rate: float(len(left)))
    monkeypatch.setattr(validation, "stoi", lambda left, right, rate: 1 / len(left))
    codec = make_codec()
    clips = [make_clip("music", 80), make_clip("speech", 160), make_clip("music", 240)]
    config = ValidationConfig(num_quantizers=(1, 4))
    parts = [measure(codec, clips[rank::2], config) for rank in range(2)]
    together = summarize([measure(codec, clips, config)], codec.config).scalars
    apart = summarize(parts, codec.config).scalars
    assert apart == pytest.approx(together)
    # Domains count the same: (80 + 240) / 2 and 160.
    assert apart["score"] == 160.0


def test_the_language_model_reads_one_clip(make_codec, measured):
    clips = [make_clip("speech", 80), make_clip("speech", 160)]
    clips[1] = replace(clips[1], entry=replace(clips[1].entry, text="HELLO"))
    codec = make_codec()
    reader = SemanticHead(random_language_model(16, 1, 2, 257), ByteText(), 12)
    config = ValidationConfig(num_quantizers=(4,))
    result = summarize([measure(codec, clips, config, semantic=reader)], codec.config)
    assert result.text == "HELLO"
    hidden = codec.encoder(torch.from_numpy(clips[1].cut(0, 160))[None])
    expected = reader.read(codec.quantizer.decode(codec.quantizer.encode(hidden))[0])
    assert result.reading == expected
