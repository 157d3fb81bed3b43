"""Small data sets on disk, and the training data made of them."""

import json

import pytest
import soundfile
from small_sounds import FRAME, RATE, ramp

from moss_audio_tokenizer.training.data.audio_data import AudioData
from moss_audio_tokenizer.training.data.data_config import DataConfig


@pytest.fixture
def write_data(tmp_path):
    """Write clips, given as (name, seconds, other keys of the manifest); returns the manifest."""

    def write(*clips, folder="data", stated=True) -> str:
        home = tmp_path / folder
        home.mkdir(exist_ok=True)
        lines = []
        for seed, (name, seconds, keys) in enumerate(clips):
            soundfile.write(home / name, ramp(seed, seconds), RATE, subtype="PCM_16")
            length = {"seconds": seconds} if stated else {}
            lines.append(json.dumps({"path": name, **length, **keys}))
        (home / "manifest.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return str(home / "manifest.jsonl")

    return write


@pytest.fixture
def make_data(write_data):
    """AudioData of a manifest (three clips by default); keywords change the recipe."""

    def make(manifest=None, seed=3, rank=0, world=1, report=lambda _: None, **changes):
        if manifest is None and "sources" not in changes:
            manifest = write_data(
                ("a.wav", 3.0, {}), ("bb.wav", 1.0, {}), ("ccc.wav", 0.5, {"domain": "music"})
            )
        values = {"manifest": manifest or "", "crop_seconds": 0.2} | changes
        return AudioData(DataConfig(**values), RATE, 1, FRAME, seed, rank, world, report)

    return make
