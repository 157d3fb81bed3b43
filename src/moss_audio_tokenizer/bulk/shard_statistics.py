"""What is in shards of codes: hours, lengths, bits, and how the codebooks are used.

Owns the sums; how they look is the command line's.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..codes.shards import CodeShards, read_shards
from ..errors import CodesFileError
from .codec_choice import file_digest

_SHARES = (0, 5, 50, 95, 100)


def shard_statistics(
    source: str | Path,
    splits: Sequence[str] = (),
    verify: bool = False,
    advance: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """The statistics of a folder that `tokenize` wrote, as plain values.

    Args:
        source: the folder.
        splits: the splits to count; empty for all.
        verify: compare every shard with the hash in its manifest first.
        advance: called with clips done and clips in all.

    Raises:
        InputError: there are no shards, or nothing of these splits.
        CodesFileError: a shard is damaged.
    """
    shards = read_shards(source, splits)
    if verify:
        _verify(Path(source), shards)
    counts = np.zeros((shards.head.num_quantizers, shards.head.codebook_size), np.int64)
    seconds, groups = [], dict[tuple[str, str, str], list[float]]()
    for number, clip in enumerate(shards, 1):
        count_codes(clip.codes.codes, counts)
        seconds.append(clip.codes.duration_seconds)
        group = (clip.split, clip.domain, clip.language)
        groups.setdefault(group, []).append(seconds[-1])
        if advance is not None:
            advance(number, len(shards))
    return {
        "clips": len(seconds),
        "hours": sum(seconds) / 3600,
        "shards": len(shards.manifests),
        "frames": int(counts[0].sum()),
        "groups": _groups(groups),
        "seconds": _percentiles(seconds),
        **_bits(shards, counts, sum(seconds)),
        "model": shards.head.identity,
        "num_quantizers": shards.head.num_quantizers,
        "layers": layer_use(counts),
    }


def count_codes(
    codes: Int[np.ndarray, "num_quantizers frames"],
    counts: Int[np.ndarray, "num_quantizers entries"],
) -> None:
    """Add how often every entry of every codebook is used."""
    size = counts.shape[1]
    flat = codes + np.arange(len(codes))[:, None] * size
    counts += np.bincount(flat.reshape(-1), minlength=counts.size).reshape(counts.shape)


def layer_use(counts: Int[np.ndarray, "num_quantizers entries"]) -> list[dict[str, float]]:
    """For every layer, the share of codebook entries in use, and the entropy of a code in bits."""
    used = (counts > 0).mean(axis=1)
    return [
        {"used": round(float(share), 4), "bits": round(float(bits), 3)}
        for share, bits in zip(used, entropy_bits(counts), strict=True)
    ]


def entropy_bits(
    counts: Int[np.ndarray, "num_quantizers entries"],
) -> Float[np.ndarray, "num_quantizers"]:
    """The entropy of every layer's codes, each taken by itself, in bits a code."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    logarithms = np.log2(share, out=np.zeros_like(share), where=share > 0)
    return np.asarray(-(share * logarithms).sum(axis=1) + 0.0)


def _bits(shards: CodeShards, counts: np.ndarray, seconds: float) -> dict[str, float]:
    """Bitrates in kbps: what codes take at whole bits each, in the files, and by their entropy."""
    head = shards.head
    frame_rate = head.sampling_rate / head.downsample_rate
    nominal = head.num_quantizers * (head.codebook_size - 1).bit_length() * frame_rate
    stored = 8 * sum(item["bytes"] for item in shards.manifests) / max(seconds, 1e-9)
    entropy = float(entropy_bits(counts).sum()) * frame_rate
    named = {"kbps": nominal, "stored_kbps": stored, "entropy_kbps": entropy}
    return {key: round(value / 1000, 4) for key, value in named.items()}


def _groups(groups: dict[tuple[str, str, str], list[float]]) -> list[dict[str, Any]]:
    return [
        {
            "split": split,
            "domain": domain,
            "language": language or None,
            "clips": len(seconds),
            "hours": sum(seconds) / 3600,
        }
        for (split, domain, language), seconds in sorted(groups.items())
    ]


def _percentiles(seconds: list[float]) -> dict[str, float]:
    values = np.percentile(seconds, _SHARES) if seconds else np.zeros(len(_SHARES))
    return {f"p{share}": round(float(v), 3) for share, v in zip(_SHARES, values, strict=True)}


def _verify(source: Path, shards: CodeShards) -> None:
    folder = source / "shards" if (source / "shards").is_dir() else source
    for manifest in shards.manifests:
        path = folder / manifest["file"]
        if file_digest(path) != manifest["sha256"]:
            raise CodesFileError(
                f"{path} was altered: its hash is not that of its manifest; remove both and "
                "tokenize with --resume"
            )
