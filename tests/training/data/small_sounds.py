"""Small sounds at a tiny sampling rate, in which every place looks different."""

import numpy as np

RATE = 8000
FRAME = 80


def ramp(seed: int, seconds: float) -> np.ndarray:
    """A rising line under noise."""
    samples = round(seconds * RATE)
    noise = np.random.default_rng(seed).standard_normal(samples) * 0.05
    return np.clip(np.linspace(-0.3, 0.3, samples) + noise, -0.9, 0.9)


def spoken(count: int, shortest: float = 0.5, longest: float = 2.0) -> list[tuple]:
    """Utterances of many lengths, each with its number as its text."""
    lengths = np.linspace(shortest, longest, count).round(3)
    return [
        (f"{index}.wav", float(seconds), {"text": f"number {index}"})
        for index, seconds in enumerate(lengths)
    ]
