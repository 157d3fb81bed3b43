"""What a checkpoint is, by its config.json and the headers of its weights; no PyTorch."""

import math
from pathlib import Path
from typing import Any

from ..config import CodecConfig, Stage, TransformerStage
from ..errors import CheckpointError
from .hub import find_checkpoint
from .stored_weights import StoredWeights


def describe_model(path: str | Path) -> dict[str, Any]:
    """Sizes, rates, parameters and windows of a model folder, a hub id, or "bundled".

    Raises:
        CheckpointError: there is none, or it cannot be read.
        ConfigError: its configuration is not one of a released kind.
    """
    weights = StoredWeights(find_checkpoint(path, {}))
    config = weights.config
    return {
        "model": str(path),
        "sampling_rate": config.sampling_rate,
        "channels": config.number_channels,
        "frame_rate": config.frame_rate,
        "samples_per_frame": config.downsample_rate,
        "num_quantizers": config.quantizer.num_quantizers,
        "codebook_size": config.quantizer.codebook_size,
        "quantizer_type": config.quantizer.quantizer_type,
        "kbps": _bitrates(config),
        "parameters": _parameters(weights),
        "encoder": _stages(config.encoder, config.encoder_rates),
        "decoder": _stages(config.decoder, config.decoder_rates),
        "layout": weights.layout,
        "files": {file.name: file.stat().st_size for file in weights.files},
    }


def _bitrates(config: CodecConfig) -> dict[str, float]:
    """Bitrates in kbps at 1, 2, 4, ... layers and at all of them."""
    layers, bits = (
        config.quantizer.num_quantizers,
        (config.quantizer.codebook_size - 1).bit_length(),
    )
    counts = {2**power for power in range(layers.bit_length())} | {layers}
    return {str(count): count * bits * config.frame_rate / 1000 for count in sorted(counts)}


def _parameters(weights: StoredWeights) -> dict[str, int]:
    counts = {"encoder": 0, "quantizer": 0, "decoder": 0}
    counted = [item for item in weights.shapes().items() if not item[0].endswith(".scales")]
    extra = [name for name, _ in counted if name.split(".")[0] not in counts]
    if extra:
        raise CheckpointError(
            f"{weights.files[0].parent} has extra {len(extra)} tensors ({', '.join(extra[:3])}); "
            "expected those of encoder, quantizer and decoder: get the checkpoint again"
        )
    for name, shape in counted:
        counts[name.split(".")[0]] += math.prod(shape)
    return counts | {"total": sum(counts.values())}


def _stages(stages: tuple[Stage, ...], rates: tuple[float, ...]) -> list[str]:
    return [
        f"{stage.num_layers} layer{'s' if stage.num_layers > 1 else ''} of width {stage.d_model} "
        f"at {rate:g} Hz, "
        f"{stage.num_heads} heads, {stage.context_seconds:g} s of context"
        for stage, rate in zip(stages, rates, strict=True)
        if isinstance(stage, TransformerStage)
    ]
