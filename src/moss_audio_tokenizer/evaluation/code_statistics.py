"""How a codec uses its codebooks: use, perplexity, entropy, and the bitrate that they allow.

Counts codes, layer by layer; knows nothing of what they sound like. The entropy is that of the
counted frequencies, which is too low where there are few frames for each row of a codebook.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer


@dataclass(frozen=True)
class CodeStatistics:
    """Codes of one model, counted.

    Attributes:
        num_frames: frames that were counted.
        codebook_size: entries of each codebook.
        used: share of the entries that occur, for each layer.
        perplexity: 2 to the entropy, for each layer: the entries that would do if all were equal.
        entropy_bits: bits a code and layer.
        nominal_kbps: at which every code is stored whole.
        achievable_kbps: at which an ideal coder would store them, layers taken one by one.
    """

    num_frames: int
    codebook_size: int
    used: tuple[float, ...]
    perplexity: tuple[float, ...]
    entropy_bits: tuple[float, ...]
    nominal_kbps: float
    achievable_kbps: float

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def code_statistics(
    clips: Iterable[Integer[np.ndarray, "num_quantizers frames"]],
    codebook_size: int,
    frame_rate: float,
) -> CodeStatistics:
    """Statistics of the codes of one or more clips, all with the same number of layers."""
    codes = np.concatenate(list(clips), axis=1)
    counts = np.stack([np.bincount(layer, minlength=codebook_size) for layer in codes])
    shares = counts / codes.shape[1]
    logs = np.log2(shares, where=shares > 0, out=np.zeros_like(shares))
    entropy = np.abs((shares * logs).sum(1))
    bits = (codebook_size - 1).bit_length()
    return CodeStatistics(
        num_frames=codes.shape[1],
        codebook_size=codebook_size,
        used=tuple((counts > 0).mean(1).tolist()),
        perplexity=tuple((2.0**entropy).tolist()),
        entropy_bits=tuple(entropy.tolist()),
        nominal_kbps=len(codes) * bits * frame_rate / 1000,
        achievable_kbps=float(entropy.sum()) * frame_rate / 1000,
    )


def read_codes(paths: Iterable[Path]) -> list[np.ndarray]:
    """The stored codes of one model; clips that failed have none."""
    return [np.load(path, allow_pickle=False) for path in paths if path.is_file()]


def statistics_table(statistics: dict[str, CodeStatistics]) -> str:
    """Markdown: a line for some layers of every model."""
    heads = ("model", "layer", "used", "perplexity", "entropy, bits", "of")
    lines = [heads, ("---", *["---:"] * (len(heads) - 1))]
    for name, one in statistics.items():
        bits = f"{(one.codebook_size - 1).bit_length()}"
        for layer in _shown_layers(len(one.used)):
            numbers = one.used[layer], one.perplexity[layer], one.entropy_bits[layer]
            used, perplexity, entropy = numbers
            cells = f"{used:.1%}", f"{perplexity:.0f}", f"{entropy:.2f}", bits
            lines.append((name, f"{layer + 1}", *cells))
    totals = [
        f"{name}: {one.achievable_kbps:.2f} kbps by the entropy of {one.num_frames} frames, "
        f"layer by layer; {one.nominal_kbps:.2f} kbps as stored."
        for name, one in statistics.items()
    ]
    return "\n".join([f"| {' | '.join(line)} |" for line in lines] + ["", *totals])


def _shown_layers(count: int) -> list[int]:
    """The first, second, fourth, eighth ... and the last layer."""
    return sorted({2**power - 1 for power in range(count.bit_length())} | {count - 1})
