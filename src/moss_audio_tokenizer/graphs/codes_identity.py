"""The identity of a checkpoint's codes, without PyTorch; the same as `runtime.fingerprint`."""

import hashlib
import json

import numpy as np

from ..checkpoint.key_names import released_slots
from ..config import CodecConfig, QuantizerConfig
from .weights import Weights


def codes_identity(weights: Weights) -> str:
    """16 hexadecimal digits of SHA-256 over the quantizer's tensors and the rates."""
    config = weights.config
    rates = {
        "sampling_rate": config.sampling_rate,
        "downsample_rate": config.downsample_rate,
        "number_channels": config.number_channels,
        "quantizer": vars(config.quantizer),
    }
    digest = hashlib.sha256(json.dumps(rates, sort_keys=True).encode())
    for parameter in sorted(_parameters(config.quantizer)):
        digest.update(parameter.encode())
        for values in _values(weights, parameter, config):
            digest.update(values.astype("<f4").tobytes())
    return digest.hexdigest()[:16]


def _parameters(config: QuantizerConfig) -> list[str]:
    """Names of the quantizer's parameters."""
    modules = [
        *(["input_proj"] if config.input_dim != config.rvq_dim else []),
        *(["output_proj"] if config.rvq_dim != config.output_dim else []),
        *(["in_projs", "out_projs"] if config.codebook_dim != config.rvq_dim else []),
    ]
    kinds = ("bias", "direction", "gain")
    return ["codebooks", *(f"{module}.{kind}" for module in modules for kind in kinds)]


def _values(weights: Weights, parameter: str, config: CodecConfig) -> list[np.ndarray]:
    """The released tensors that make up a parameter, in order."""
    named = [f"quantizer.{parameter}"]
    slots = released_slots(named, config.quantizer.num_quantizers, "v1")
    return [weights.tensor(name).read() for name, _ in slots]
