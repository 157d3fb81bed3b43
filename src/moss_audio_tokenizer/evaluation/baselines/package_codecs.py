"""Neural codecs of the paper's Table 2 that have packages of their own, as evaluated codecs.

Owns their rates, by the paper's rule (bits of the layers that are used, times the frame rate), and
the calls of each package. A package, and the checkpoint in whatever format it reads, is the
user's to install and to trust; it is imported when its codec is asked for. The calls follow the
packages' documentation and are tested with stand-ins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ...errors import CheckpointError, InputError, MissingDependencyError
from ..codecs import CodedClip, EvaluatedCodec
from ..plugins import call_function

Coded = tuple[np.ndarray, np.ndarray]
"""Audio (channels, samples) and codes (num_quantizers, frames)."""


@dataclass(frozen=True)
class CodecRates:
    """Frames a second and codebook sizes of a codec, layer by layer.

    Attributes:
        frame_rate: frames a second.
        codebook_sizes: entries of each layer's codebook.
        sampling_rate: samples a second that it takes.
        output_rate: samples a second that it makes; 0 for the same.
    """

    frame_rate: float
    codebook_sizes: tuple[int, ...]
    sampling_rate: int
    output_rate: int = 0

    def bits(self, num_quantizers: int) -> int:
        """Bits of a frame with its first layers."""
        return sum((size - 1).bit_length() for size in self.codebook_sizes[:num_quantizers])

    def bitrate(self, num_quantizers: int) -> float:
        """Bits a second with the first layers."""
        return self.bits(num_quantizers) * self.frame_rate


RATES = {
    "speechtokenizer": CodecRates(50.0, (1024,) * 8, 16_000),
    "bigcodec": CodecRates(80.0, (8192,), 16_000),
    "xy-tokenizer": CodecRates(12.5, (1024,) * 8, 16_000, 24_000),
    "stable-codec": CodecRates(25.0, (15625, 15625), 16_000),
    "mimo": CodecRates(25.0, (1024, 1024) + (128,) * 18, 24_000),
    "qwen3-tts": CodecRates(12.5, (2048,) * 16, 24_000),
}
"""By the names that stand after `--codec`; Higgs comes with transformers."""


class PackageCodec:
    """A codec of another package at one number of quantizers.

    Args:
        name: as the user gave it.
        identity: which version and weights it is.
        rates: of the codec.
        num_quantizers: layers that are used.
        run: (audio, layers) -> decoded audio and codes.
    """

    num_channels = 1

    def __init__(
        self,
        name: str,
        identity: str,
        rates: CodecRates,
        num_quantizers: int,
        run: Callable[[Float[np.ndarray, "channels samples"], int], Coded],
    ) -> None:
        self.name, self.identity = name, identity
        self.sampling_rate = rates.sampling_rate
        self.quantizer_counts: tuple[int | None, ...] = (num_quantizers,)
        # Layers may differ; statistics of codes count entries up to the largest.
        self.codebook_size = max(rates.codebook_sizes)
        self._rates, self._num_quantizers, self._run = rates, num_quantizers, run

    def code(self, audio: Float[np.ndarray, "channels samples"]) -> Sequence[CodedClip]:
        """The clip through the codec, at the rate that went in and of the same length."""
        with torch.inference_mode():
            decoded, codes = self._run(audio, self._num_quantizers)
        if len(codes) != self._num_quantizers:
            raise InputError(
                f"{self.name} gave codes of shape {codes.shape}; expected {self._num_quantizers} "
                "layers (num_quantizers, frames)"
            )
        bits = self._rates.bits(self._num_quantizers)
        kbps = bits * self._rates.frame_rate / 1000
        decoded = _at_rate(decoded, self._rates)[:, : audio.shape[1]]
        return [CodedClip(self._num_quantizers, kbps, bits * codes.shape[1], decoded, codes)]


def _at_rate(audio: np.ndarray, rates: CodecRates) -> np.ndarray:
    from ...audio import resample

    audio = np.asarray(audio, np.float32).reshape(1, -1)
    return resample(audio, rates.output_rate or rates.sampling_rate, rates.sampling_rate)


def open_package_codec(kind: str, name: str, path: str, setting: str) -> EvaluatedCodec:
    """A codec of another package.

    Args:
        kind: a key of `RATES`.
        name: as the user gave it.
        path: of its weights, or MODULE:FUNCTION of a plug-in for a codec without a package.
        setting: number of quantizers; "" for all.

    Raises:
        CheckpointError: nothing usable is at the path.
        InputError: the setting is not one of this codec.
        MissingDependencyError: the package is not installed.
    """
    rates = RATES[kind]
    most = len(rates.codebook_sizes)
    if setting and not (setting.isdigit() and 1 <= int(setting) <= most):
        raise InputError(f"--codec {name!r}: got {setting!r} after the @; expected 1 to {most}")
    if not path:
        raise InputError(f"--codec {name!r}: expected weights, as in {kind}:PATH")
    try:
        identity, run = _OPENERS[kind](path, kind)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"--codec {name!r} cannot be opened ({reason})") from error
    return PackageCodec(name, f"{kind} {identity}", rates, int(setting or most), run)


Opened = tuple[str, Callable[[np.ndarray, int], Coded]]


def _package(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"this codec needs the package {package} ({error}): pip install {package}"
        ) from error


def _speechtokenizer(path: str, kind: str) -> Opened:
    del kind
    module = _package("speechtokenizer", "speechtokenizer")
    folder = Path(path)
    weights = next(iter(sorted(folder.glob("*.pt"))), folder / "SpeechTokenizer.pt")
    model = module.SpeechTokenizer.load_from_checkpoint(str(folder / "config.json"), str(weights))
    model.eval()

    def run(audio: np.ndarray, count: int) -> Coded:
        codes = model.encode(torch.from_numpy(audio)[None])[:count]
        return model.decode(codes).numpy(), codes[:, 0].numpy()

    return folder.name, run


def _stable_codec(path: str, kind: str) -> Opened:
    del kind
    module = _package("stable_codec", "stable-codec")
    folder = Path(path)
    model = module.StableCodec(
        model_config_path=str(folder / "model_config.json"),
        ckpt_path=str(folder / "model.ckpt"),
        device=torch.device("cpu"),
    )
    model.set_posthoc_bottleneck("2x15625_700bps")

    def run(audio: np.ndarray, count: int) -> Coded:
        _, tokens = model.encode(torch.from_numpy(audio)[None], posthoc_bottleneck=True)
        decoded = model.decode(tokens, posthoc_bottleneck=True)
        codes = torch.stack([layer.reshape(-1) for layer in tokens])
        return decoded.numpy(), codes[:count].numpy()

    return folder.name, run


def _qwen3_tts(path: str, kind: str) -> Opened:
    del kind
    module = _package("qwen_tts", "qwen-tts")
    model = module.Qwen3TTSTokenizer.from_pretrained(path, device_map="cpu")

    def run(audio: np.ndarray, count: int) -> Coded:
        coded = model.encode(audio[0], sr=RATES["qwen3-tts"].sampling_rate)
        (frames,) = coded.audio_codes
        if count < frames.shape[1]:
            raise InputError("Qwen3-TTS-Tokenizer decodes all of its layers only; leave @ out")
        waves, _ = model.decode(coded)
        return np.asarray(waves[0]), frames.numpy().T

    return Path(path).name, run


def _plug_in(path: str, kind: str) -> Opened:
    """A codec without a package: MODULE:FUNCTION makes (audio, layers) -> (audio, codes)."""
    if ":" not in path:
        raise InputError(
            f"{kind} has no package; give a plug-in, as in {kind}:MODULE:FUNCTION "
            "(docs/evaluation.md shows one)"
        )
    return path, call_function(path, f"--codec {kind}")


_OPENERS: dict[str, Callable[[str, str], Opened]] = {
    "speechtokenizer": _speechtokenizer,
    "bigcodec": _plug_in,
    "xy-tokenizer": _plug_in,
    "stable-codec": _stable_codec,
    "mimo": _plug_in,
    "qwen3-tts": _qwen3_tts,
}
