"""A manifest of little clips: two of speech, one of music, one that is no sound file."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

# Toy codecs are named MODULE:FUNCTION in tests, in this process and in its workers.
sys.path.append(str(Path(__file__).parent))

RATE = 16_000


def write_manifest(folder: Path, items) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(json.dumps(item) for item in items), encoding="utf-8")
    return path


def voice(seed: int, seconds: float = 1.0) -> np.ndarray:
    """A buzz with the rhythm of syllables, and a little noise."""
    time = np.arange(round(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * (110 + 30 * seed) * k * time) / k for k in range(1, 20))
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return 0.1 * buzz * np.clip(np.sin(2 * np.pi * 3 * time), 0, 1) + 0.002 * noise


def write_clips(folder: Path) -> Path:
    """Clips of a second, and the manifest of them that is returned."""
    items = []
    for index, (domain, language) in enumerate([("speech", "en"), ("speech", "de"), ("music", "")]):
        name = f"{domain}{index}.wav"
        soundfile.write(folder / name, voice(index), RATE)
        text = "One, two, three." if domain == "speech" else None
        item = {"path": name, "domain": domain, "split": "valid", "text": text}
        items.append(item | {"language": language or None})
    (folder / "broken.wav").write_bytes(b"RIFF, or so it says")
    items.append({"path": "broken.wav", "domain": "speech", "split": "valid"})
    items.append({"path": "absent.wav", "domain": "speech", "split": "train"})
    return write_manifest(folder, items)


@pytest.fixture
def manifest(tmp_path):
    return write_clips(tmp_path)


@pytest.fixture(scope="session")
def shared_manifest(tmp_path_factory):
    """The same, which is not to be changed."""
    return write_clips(tmp_path_factory.mktemp("clips"))
