"""A small data set on disk, and runs small enough to be made by the dozen."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from moss_audio_tokenizer.config import (
    PRESETS,
    CodecConfig,
    PatchStage,
    QuantizerConfig,
    TransformerStage,
)
from moss_audio_tokenizer.training.codec.codec_config import (
    CodecOptimizerConfig,
    TrainingConfig,
    ValidationConfig,
    WarmStart,
)
from moss_audio_tokenizer.training.data.data_config import DataConfig

RATE = 24_000
# (file, domain, split, seconds)
CLIPS = (
    ("speech-0.wav", "speech", "train", 0.5),
    ("speech-1.wav", "speech", "train", 1.0),
    ("music-0.wav", "music", "train", 0.6),
    ("short.wav", "sound", "train", 0.05),
    ("speech-2.wav", "speech", "valid", 0.3),
    ("music-1.wav", "music", "valid", 0.3),
)


def make_sound(seed: int, seconds: float) -> np.ndarray:
    """A tone that glides under noise, as float32."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * (200 + 100 * seed) * time * (1 + time))
    return (0.2 * tone + 0.02 * random.standard_normal(len(time))).astype(np.float32)


def write_manifest(folder, lines) -> str:
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def manifest(tmp_path_factory) -> str:
    """A manifest of six sound files, the shortest shorter than a crop."""
    folder = tmp_path_factory.mktemp("data")
    for seed, (name, _, _, seconds) in enumerate(CLIPS):
        soundfile.write(folder / name, make_sound(seed, seconds), RATE, subtype="PCM_16")
    lines = [{"path": name, "domain": domain, "split": split} for name, domain, split, _ in CLIPS]
    return write_manifest(folder, lines)


@pytest.fixture(scope="session")
def spoken(manifest) -> str:
    """The same sound files, with texts where there is speech."""
    folder = Path(manifest).parent
    lines = [json.loads(line) for line in Path(manifest).read_text().splitlines()]
    for line in lines:
        line |= {"text": f"SAY {line['path'][7]}"} if line["domain"] == "speech" else {}
    path = folder / "spoken.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def toy_codec() -> CodecConfig:
    """The frame rate of the presets with two stages a side, and 4 quantizers of 16 entries."""
    return CodecConfig(
        RATE,
        1920,
        (PatchStage(240), _stage(240, 12), PatchStage(8), _stage(96, 24)),
        (_stage(24, 96), PatchStage(8), _stage(12, 240), PatchStage(240)),
        QuantizerConfig(24, 16, 24, num_quantizers=4, codebook_size=16),
    )


def _stage(inputs: int, outputs: int) -> TransformerStage:
    return TransformerStage(inputs, outputs, 16, 2, 1, 32, 1.28)


@pytest.fixture
def make_recipe(tmp_path, manifest, monkeypatch):
    """A recipe of six steps, two of them without the quantizer; keywords change its fields."""
    monkeypatch.setitem(PRESETS, "toy", toy_codec)

    def make(**changes) -> TrainingConfig:
        values = {
            "output": str(tmp_path / "run"),
            "model": "toy",
            "max_steps": 6,
            "precision": "fp32",
            "threads": 1,
            "peak_tflops": 1.0,
            "checkpoint_every": 3,
            "data": DataConfig(manifest=manifest, crop_seconds=0.16, batch_size=2),
            "optimizer": CodecOptimizerConfig(warmup_steps=2),
            "warm_start": WarmStart(steps=2, samples=16),
            "validation": ValidationConfig(every=100),
        }
        return TrainingConfig(**(values | changes))

    return make
