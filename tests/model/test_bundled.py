"""The model in the package: what it is, what it weighs, and that it speaks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from moss_audio_tokenizer import MossAudioTokenizerModel, load_audio
from moss_audio_tokenizer.checkpoint.stored_weights import BUNDLED
from moss_audio_tokenizer.config import preset
from moss_audio_tokenizer.metrics import mel_distance, stoi

SAMPLE = Path(__file__).parents[2] / "samples" / "hello.flac"


@pytest.fixture(scope="module")
def model():
    return MossAudioTokenizerModel.from_pretrained("bundled")


def test_it_is_the_preset_and_small(model):
    assert model.config.codec == preset("bundled")
    assert (model.sampling_rate, model.config.frame_rate) == (24_000, 12.5)
    assert sum(file.stat().st_size for file in BUNDLED.iterdir()) < 25e6
    assert (BUNDLED / "README.md").is_file()


def test_speech_is_understandable_and_better_with_more_layers(model):
    audio = load_audio(SAMPLE, 24_000, 1)
    codes = model.encode(audio).audio_codes
    values = []
    for layers in (1, 4, 32):
        decoded = model.decode(codes[:layers]).audio[0, 0, : audio.shape[1]].numpy()
        pair = (audio[0], decoded, 24_000)
        values.append((stoi(*pair), mel_distance(*pair)))
    intelligibility, distance = zip(*values, strict=True)
    assert list(intelligibility) == sorted(intelligibility)
    assert list(distance) == sorted(distance, reverse=True)
    assert intelligibility[-1] > 0.7


def test_silence_stays_quiet(model):
    silence = model.encode(torch.zeros(24_000)).audio_codes
    assert model.decode(silence).audio.abs().max() < 0.01


def test_real_codes_do_not_depend_on_company(model):
    audio = load_audio(SAMPLE, 24_000, 1)
    clips = [
        audio[:, start : start + 9_000 + 7_000 * start // 20_000]
        for start in range(0, 160_000, 20_000)
    ]
    batch = model.batch_encode(clips)
    longest = max(clip.shape[1] for clip in clips) + 5_000
    padded = np.stack([np.pad(clip, ((0, 0), (0, longest - clip.shape[1]))) for clip in clips])
    mask = np.arange(longest) < np.array([[clip.shape[1]] for clip in clips])
    masked = model.encode(padded, mask)
    for row, clip in enumerate(clips):
        alone = model.encode(clip).audio_codes[:, 0]
        for other in (batch, masked):
            assert torch.equal(other.audio_codes[:, row, : alone.shape[1]], alone)
