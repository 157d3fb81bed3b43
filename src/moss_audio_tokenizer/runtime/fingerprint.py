"""Hashes that tell apart the codes of different codecs, and the streams of different weights."""

import hashlib
import json

import torch
from torch import nn

from ..config import CodecConfig
from ..model.quantizer import ResidualQuantizer


def fingerprint(quantizer: ResidualQuantizer, config: CodecConfig) -> str:
    """16 hexadecimal digits of SHA-256 over the quantizer's tensors and the rates.

    The decoder does not enter: one that was fine-tuned still reads the same codes.
    """
    rates = {
        "sampling_rate": config.sampling_rate,
        "downsample_rate": config.downsample_rate,
        "number_channels": config.number_channels,
        "quantizer": vars(config.quantizer),
    }
    digest = hashlib.sha256(json.dumps(rates, sort_keys=True).encode())
    for name, tensor in sorted(quantizer.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def stream_fingerprint(config: CodecConfig, dtype: torch.dtype, *parts: nn.Module) -> str:
    """16 hexadecimal digits that differ where a saved stream's KV caches would be wrong.

    Only the first values of each weight are read: training changes them too.
    """
    digest = hashlib.sha256(f"{config} {dtype}".encode())
    for part in parts:
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.flatten()[:256].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
