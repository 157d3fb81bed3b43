"""The identity of a codec's codes: a hash over everything that gives them their meaning."""

import hashlib
import json

from ..config import CodecConfig
from .quantizer import ResidualQuantizer


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
