"""Draws docs/images/reading.png: spectrograms of samples/reading.flac before and after the codec.

Run from the repository's root, with the eval extra: python samples/make_picture.py
"""

import subprocess
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from moss_audio_tokenizer import load_audio
from moss_audio_tokenizer.evaluation.pictures import frequency_height, log_mel, shared_scale

SAMPLE = Path("samples/reading.flac")
KBPS = (1, 2, 4)
SECONDS = 3.0
RATE = 24_000


def versions(folder: Path) -> dict[str, np.ndarray]:
    """The original and its reconstructions, by title."""
    bitrates = ",".join(map(str, KBPS))
    command = ["moss-audio", "reconstruct", SAMPLE, "-o", folder / "out.wav", "--kbps", bitrates]
    subprocess.run(list(map(str, command)), check=True)
    files = [folder / f"out-{8 * kbps}.wav" for kbps in KBPS]
    titles = ["original (384 kbps)", *(f"{kbps} kbps" for kbps in KBPS)]
    clips = [load_audio(path, RATE, 1) for path in (SAMPLE, *files)]
    return dict(zip(titles, clips, strict=True))


def draw(clips: dict[str, np.ndarray], target: Path) -> None:
    """One panel a version, all on the scale of the original."""
    pictures = {
        title: log_mel(clip[:, : int(SECONDS * RATE)], RATE) for title, clip in clips.items()
    }
    lowest, highest = shared_scale(next(iter(pictures.values())))
    figure, axes = plt.subplots(1, len(pictures), figsize=(12, 2.6), sharey=True)
    for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
        extent = (0, SECONDS, 0, 1)
        axis.imshow(
            picture,
            origin="lower",
            aspect="auto",
            extent=extent,
            cmap="magma",
            vmin=lowest,
            vmax=highest,
        )
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("seconds")
        axis.set_xticks(range(int(SECONDS)))
        axis.set_yticks(*_ticks())
    axes[0].set_ylabel("kHz (mel scale)")
    figure.tight_layout()
    figure.savefig(target, dpi=90)


def _ticks() -> tuple[list[float], list[str]]:
    kilohertz = (0.5, 1, 2, 4, 8)
    return [frequency_height(1000 * k, RATE) for k in kilohertz], [f"{k:g}" for k in kilohertz]


if __name__ == "__main__":
    mpl.use("Agg")
    with tempfile.TemporaryDirectory() as temporary:
        draw(versions(Path(temporary)), Path("docs/images/reading.png"))
