"""The weights of an export, as stored or in another precision, and how far it is from its model.

Owns what is written into the export's safetensors, in which the quantizer is never touched; the
codes that change and the distance of the audio; and the refusal of graphs that do not compute what
PyTorch does.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from ..checkpoint.stored_weights import INDEX_NAME, StoredWeights
from ..codes import Codec
from ..config import CodecConfig, TransformerStage
from ..errors import CheckpointError, ConfigError
from ..graphs.transformer_nodes import BLOCK, head_rows, int8_names

PRECISIONS = ("stored", "fp32", "fp16", "int8")
_LAYER = re.compile(r"(encoder|decoder)\.(\d+)\.transformer\.layers\.\d+\.")
_SCALED = {
    "self_attn.out_projs.0.weight": "layer_scale_1.scale",
    "linear2.weight": "layer_scale_2.scale",
}
# Beyond rounding, what differs is a mistake.
_LARGEST_AUDIO_ERROR = 1e-4
_MOST_ROUNDED_CODES = 0.002
_PROBE_SECONDS = 6.0


def write_weights(
    weights: StoredWeights, folder: Path, precisions: dict[str, str]
) -> StoredWeights:
    """Write a checkpoint's weights into another folder; returns them as they are there.

    Args:
        weights: the checkpoint's.
        folder: has config.json already.
        precisions: of "encoder" and "decoder"; one of `PRECISIONS`.

    Raises:
        ConfigError: there is no such precision.
        CheckpointError: a weight does not fit into float16.
    """
    unknown = sorted(set(precisions.values()) - set(PRECISIONS))
    if unknown:
        raise ConfigError(f"no precision {unknown[0]!r}; there are {', '.join(PRECISIONS)}")
    if weights.in_8_bits:  # graphs know 8 bits by blocks, not by rows
        precisions = {
            part: "fp32" if precision == "stored" else precision
            for part, precision in precisions.items()
        }
    for file in weights.files:
        if set(precisions.values()) == {"stored"}:
            shutil.copyfile(file, folder / file.name)
            continue
        tensors: dict[str, np.ndarray] = {}
        for name in weights.names_in(file):
            tensors |= _converted(weights, name, precisions.get(name.split(".")[0], "stored"))
        save_file(tensors, folder / file.name, {"format": "np"})
        (folder / file.name).chmod(0o644)  # safetensors leaves files that only their owner may read
    index = weights.folder / INDEX_NAME
    if index.is_file():
        shutil.copyfile(index, folder / INDEX_NAME)
    return StoredWeights(folder, weights.config)


def _converted(weights: StoredWeights, name: str, precision: str) -> dict[str, np.ndarray]:
    """A tensor in another precision: under its own name, or in 8 bits under two."""
    values = weights.tensor(name).read()
    if precision == "fp16":
        return {name: as_float16(name, values)}
    if precision == "int8" and values.ndim == 2:
        blocks, scales = to_int8(_prepared(weights, name))
        return dict(zip(int8_names(name), (blocks, scales), strict=True))
    return {name: values.astype(np.float32) if precision == "fp32" else values}


def as_float16(name: str, values: np.ndarray) -> np.ndarray:
    """Weights rounded to float16.

    Raises:
        CheckpointError: one of them is too large for it.
    """
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16)
    if not np.isfinite(rounded).all():
        raise CheckpointError(f"{name} has weights that float16 cannot hold; choose another type")
    return rounded


def _prepared(weights: StoredWeights, name: str) -> np.ndarray:
    """A matrix as `linear.Linears` would fold it."""
    matrix = weights.tensor(name).read().astype(np.float32)
    layer = _LAYER.match(name)
    if layer is None:
        return matrix
    rest = name[layer.end() :]
    if rest in _SCALED:
        scale = weights.tensor(layer[0] + _SCALED[rest]).read().astype(np.float32)
        return scale[:, None] * matrix
    if rest.startswith("self_attn.in_projs"):
        stages = weights.config.encoder if layer[1] == "encoder" else weights.config.decoder
        stage = stages[int(layer[2])]
        assert isinstance(stage, TransformerStage)  # noqa: S101
        order, scale = head_rows(stage.d_model, stage.num_heads)
        return matrix[order] * scale[:, None]
    return matrix


def to_int8(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(outputs, blocks, BLOCK) of 8 bits about 128, and (outputs, blocks) of scales.

    The last block of a row is padded with zeros.
    """
    outputs, inputs = matrix.shape
    padded = np.pad(matrix, ((0, 0), (0, -inputs % BLOCK))).reshape(outputs, -1, BLOCK)
    scales = np.abs(padded).max(-1, keepdims=True) / 127
    steps = np.divide(padded, scales, out=np.zeros_like(padded), where=scales > 0)
    return (np.rint(steps) + 128).astype(np.uint8), scales[..., 0].astype(np.float32)


@dataclass(frozen=True)
class Distance:
    """One codec's results against another's.

    Attributes:
        codes: compared.
        codes_changed: share that differs.
        first_layer_changed: the same, of the first layer.
        audio_error: largest difference of the audio of the same codes, over its RMS.
        audio_snr_db: of that audio; the least of all clips, None if they are equal.
    """

    codes: int
    codes_changed: float
    first_layer_changed: float
    audio_error: float
    audio_snr_db: float | None


def compare(reference: Codec, other: Codec, clips: Sequence[np.ndarray]) -> Distance:
    """Encode clips with both, and decode the reference's codes with both."""
    changes, errors, ratios = [], [], []
    for clip in clips:
        codes = reference.encode(clip)
        changes.append(other.encode(clip) != codes)
        expected = reference.decode(codes).astype(np.float64)
        noise = other.decode(codes) - expected
        power = float(np.square(expected).mean())
        errors.append(float(np.abs(noise).max()) / max(power**0.5, 1e-12))
        if noise.any():
            ratios.append(10 * np.log10(max(power, 1e-20) / float(np.square(noise).mean())))
    changed = np.concatenate(changes, axis=1)
    return Distance(
        codes=changed.size,
        codes_changed=float(changed.mean()),
        first_layer_changed=float(changed[0].mean()),
        audio_error=max(errors),
        audio_snr_db=round(float(min(ratios)), 1) if ratios else None,
    )


def require_pytorch_results(
    model: Path, export: Codec, clips: Sequence[np.ndarray]
) -> dict[str, Any] | None:
    """The distance of an export from PyTorch; None where that is not installed.

    Raises:
        CheckpointError: the distance is more than rounding.
    """
    try:
        from ..hf.torch_codec import TorchCodec
    except ImportError:
        return None
    distance = compare(TorchCodec.from_pretrained(model), export, clips)
    if distance.audio_error > _LARGEST_AUDIO_ERROR or distance.codes_changed > _MOST_ROUNDED_CODES:
        raise CheckpointError(
            f"the graphs do not compute what PyTorch does ({distance}); this is a mistake of the "
            "export, please report it with the model's config.json"
        )
    return asdict(distance)


def probe(config: CodecConfig) -> np.ndarray:
    """A clip (channels, samples) to compare on where there is none: glides, noise and pauses."""
    rate = config.sampling_rate
    time = np.arange(round(_PROBE_SECONDS * rate)) / rate
    random = np.random.default_rng(0)
    pitch = 120 + 60 * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 20))
    noise = random.standard_normal(time.size)
    mixed = 0.15 * voice * (np.sin(2 * np.pi * 1.9 * time) > -0.5)
    mixed += 0.05 * noise * (np.sin(2 * np.pi * 1.3 * time) > 0.4)
    clip = np.repeat(mixed[None], config.number_channels, axis=0)
    return (clip + 0.003 * random.standard_normal(clip.shape)).astype(np.float32)
