"""Neural codecs to compare with: from transformers, from packages of their own, and plug-ins.

One adapter, and for every codec a few lines with its calls. Bits are counted by the paper's rule:
those of the layers that are used, times the frame rate. A package, and the checkpoint in whatever
format it reads, is the user's to install and to trust; its calls follow its documentation and are
tested with stand-ins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ...audio import resample
from ...errors import CheckpointError, InputError, MossAudioError, one_line
from ..codecs import CodedClip, EvaluatedCodec
from ..loading import (
    call_function,
    fingerprint,
    import_package,
    load_feature_extractor,
    load_pretrained,
)

Run = Callable[[np.ndarray, int], tuple[Any, Any]]
"""(audio, layers) -> decoded audio (channels, samples) and codes (num_quantizers, frames)."""


@dataclass(frozen=True)
class CodecRates:
    """Frames a second and codebook sizes of a codec, layer by layer.

    Attributes:
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
"""Of the codecs outside transformers, by the names that stand after `--codec`."""


@dataclass
class NeuralCodec:
    """A neural codec at one number of quantizers, as an `EvaluatedCodec`."""

    name: str
    identity: str
    rates: CodecRates
    num_quantizers: int
    run: Run
    num_channels: int = 1

    def __post_init__(self) -> None:
        self.sampling_rate = self.rates.sampling_rate
        self.quantizer_counts: tuple[int | None, ...] = (self.num_quantizers,)
        # Layers may differ; statistics of codes count entries up to the largest.
        self.codebook_size = max(self.rates.codebook_sizes)

    def code(self, audio: Float[np.ndarray, "channels samples"]) -> Sequence[CodedClip]:
        """The clip through the codec, at the rate that went in and of the same length."""
        with torch.inference_mode():
            decoded, codes = self.run(np.ascontiguousarray(audio), self.num_quantizers)
            decoded, codes = np.asarray(decoded, np.float32), np.asarray(codes)
        if len(codes) != self.num_quantizers:
            raise InputError(
                f"{self.name} gave codes of shape {codes.shape}; expected {self.num_quantizers} "
                "layers (num_quantizers, frames)"
            )
        rate = self.rates.output_rate or self.sampling_rate
        decoded = resample(decoded.reshape(self.num_channels, -1), rate, self.sampling_rate)
        kbps = self.rates.bitrate(self.num_quantizers) / 1000
        num_bits = self.rates.bits(self.num_quantizers) * codes.shape[1]
        return [CodedClip(self.num_quantizers, kbps, num_bits, decoded[:, : audio.shape[1]], codes)]


def open_neural_codec(kind: str, name: str, path: str, setting: str) -> EvaluatedCodec:
    """A codec from a folder, the hub or a plug-in.

    Args:
        kind: a key of `RATES`, or "encodec", "dac", "mimi", "xcodec2" or "higgs".
        name: as the user gave it.
        path: folder or hub id, or MODULE:FUNCTION of a plug-in for a codec without a package.
        setting: kbps of EnCodec and Higgs, layers of the others; "" for the most.

    Raises:
        CheckpointError: nothing usable is at the path.
        InputError: the codec does not have this setting.
        MissingDependencyError: a package is not installed, or too old.
    """
    if not path:
        raise InputError(f"--codec {name!r}: expected a folder or a hub id, as in {kind}:PATH")
    try:
        return _OPENERS[kind](name, path, setting)
    except MossAudioError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"--codec {name!r} cannot be opened ({one_line(error, 300)})"
        ) from error


def _chosen(name: str, setting: str, choices: Sequence[float]) -> float:
    """The setting as one of the choices; without a setting the last, which is the most."""
    if not setting:
        return choices[-1]
    for choice in choices:
        if setting in (str(choice), f"{choice:g}"):
            return choice
    shown = ", ".join(f"{choice:g}" for choice in choices)
    raise InputError(f"--codec {name!r}: got {setting!r} after the @; expected one of {shown}")


def _encodec(name: str, path: str, setting: str) -> NeuralCodec:
    model = load_pretrained("EncodecModel", path)
    config = model.config
    kbps = _chosen(name, setting, [float(rate) for rate in config.target_bandwidths])
    layers = int(model.quantizer.get_num_quantizers_for_bandwidth(kbps))

    def run(audio: np.ndarray, count: int) -> tuple[Any, Any]:
        coded = model.encode(torch.from_numpy(audio)[None], bandwidth=kbps)
        decoded = model.decode(
            coded.audio_codes, coded.audio_scales, last_frame_pad_length=coded.last_frame_pad_length
        )
        # (chunks, batch, layers, frames): chunks follow each other in time.
        codes = torch.cat(list(coded.audio_codes[:, 0]), dim=-1)
        return decoded.audio_values[0], codes[:count]

    rates = _rates(model, float(config.frame_rate), config.codebook_size, layers)
    return NeuralCodec(name, fingerprint(model), rates, layers, run, config.audio_channels)


def _higgs(name: str, path: str, setting: str) -> NeuralCodec:
    model = load_pretrained("HiggsAudioV2TokenizerModel", path)
    config = model.config
    frame_rate = config.sample_rate / config.hop_length
    kbps = _chosen(name, setting, [float(rate) for rate in config.target_bandwidths])
    # The model's own rule: as many layers as fit the bandwidth.
    per_layer = (config.codebook_size - 1).bit_length() * frame_rate / 1000
    layers = max(1, int(kbps / per_layer + 1e-6))
    return _layered(name, model, frame_rate, layers, bandwidth=kbps)


def _dac(name: str, path: str, setting: str) -> NeuralCodec:
    model = load_pretrained("DacModel", path)
    layers = int(_chosen(name, setting, range(1, model.config.n_codebooks + 1)))
    frame_rate = model.config.sampling_rate / int(np.prod(model.config.downsampling_ratios))
    return _layered(name, model, frame_rate, layers, n_quantizers=layers)


def _mimi(name: str, path: str, setting: str) -> NeuralCodec:
    model = load_pretrained("MimiModel", path)
    layers = int(_chosen(name, setting, range(1, model.config.num_quantizers + 1)))
    return _layered(name, model, float(model.config.frame_rate), layers, num_quantizers=layers)


def _layered(
    name: str, model: Any, frame_rate: float, layers: int, **settings: float
) -> NeuralCodec:
    """A codec whose codes are (batch, layers, frames), encoded with these settings."""

    def run(audio: np.ndarray, count: int) -> tuple[Any, Any]:
        codes = model.encode(torch.from_numpy(audio)[None], **settings).audio_codes[:, :count]
        return model.decode(audio_codes=codes).audio_values, codes[0]

    rates = _rates(model, frame_rate, model.config.codebook_size, layers)
    return NeuralCodec(name, fingerprint(model), rates, layers, run)


def _xcodec2(name: str, path: str, setting: str) -> NeuralCodec:
    _chosen(name, setting, (1,))
    model = load_pretrained("Xcodec2Model", path)
    features = load_feature_extractor(path)
    config = model.config

    def run(audio: np.ndarray, count: int) -> tuple[Any, Any]:
        prepared = features(audio[0], sampling_rate=config.sampling_rate, return_tensors="pt")
        codes = model.encode(**prepared).audio_codes
        return model.decode(codes).audio_values, codes.reshape(count, -1)

    frame_rate = config.sampling_rate / int(np.prod(config.downsampling_ratios))
    rates = _rates(model, frame_rate, int(np.prod(config.quantization_levels)), 1)
    return NeuralCodec(name, fingerprint(model), rates, 1, run)


def _rates(model: Any, frame_rate: float, codebook_size: int, layers: int) -> CodecRates:
    rate = getattr(model.config, "sampling_rate", None) or model.config.sample_rate
    return CodecRates(frame_rate, (codebook_size,) * layers, int(rate))


def _of_package(kind: str, name: str, path: str, setting: str) -> NeuralCodec:
    rates = RATES[kind]
    layers = int(_chosen(name, setting, range(1, len(rates.codebook_sizes) + 1)))
    identity, run = _PACKAGES.get(kind, _plug_in)(path, kind)
    return NeuralCodec(name, f"{kind} {identity}", rates, layers, run)


def _speechtokenizer(path: str, kind: str) -> tuple[str, Run]:
    module = import_package("speechtokenizer", "this codec", kind)
    folder = Path(path)
    weights = next(iter(sorted(folder.glob("*.pt"))), folder / "SpeechTokenizer.pt")
    model = module.SpeechTokenizer.load_from_checkpoint(str(folder / "config.json"), str(weights))
    model.eval()

    def run(audio: np.ndarray, count: int) -> tuple[Any, Any]:
        codes = model.encode(torch.from_numpy(audio)[None])[:count]
        return model.decode(codes), codes[:, 0]

    return folder.name, run


def _stable_codec(path: str, kind: str) -> tuple[str, Run]:
    module = import_package("stable_codec", "this codec", kind)
    folder = Path(path)
    model = module.StableCodec(
        model_config_path=str(folder / "model_config.json"),
        ckpt_path=str(folder / "model.ckpt"),
        device=torch.device("cpu"),
    )
    model.set_posthoc_bottleneck("2x15625_700bps")

    def run(audio: np.ndarray, count: int) -> tuple[Any, Any]:
        _, tokens = model.encode(torch.from_numpy(audio)[None], posthoc_bottleneck=True)
        decoded = model.decode(tokens, posthoc_bottleneck=True)
        return decoded, torch.stack([layer.reshape(-1) for layer in tokens])[:count]

    return folder.name, run


def _qwen3_tts(path: str, kind: str) -> tuple[str, Run]:
    module = import_package("qwen_tts", "this codec", "qwen-tts")
    model = module.Qwen3TTSTokenizer.from_pretrained(path, device_map="cpu")

    def run(audio: np.ndarray, count: int) -> tuple[Any, Any]:
        coded = model.encode(audio[0], sr=RATES[kind].sampling_rate)
        (frames,) = coded.audio_codes
        if count < frames.shape[1]:
            raise InputError("Qwen3-TTS-Tokenizer decodes all of its layers only; leave @ out")
        waves, _ = model.decode(coded)
        return waves[0], frames.T

    return Path(path).name, run


def _plug_in(path: str, kind: str) -> tuple[str, Run]:
    """A codec without a package: MODULE:FUNCTION makes (audio, layers) -> (audio, codes)."""
    if ":" not in path:
        raise InputError(
            f"{kind} has no package; give a plug-in, as in {kind}:MODULE:FUNCTION "
            "(docs/evaluation.md shows one)"
        )
    return path, call_function(path, f"--codec {kind}")


_PACKAGES: dict[str, Callable[[str, str], tuple[str, Run]]] = {
    "speechtokenizer": _speechtokenizer,
    "stable-codec": _stable_codec,
    "qwen3-tts": _qwen3_tts,
}
_OPENERS: dict[str, Callable[[str, str, str], NeuralCodec]] = {
    "encodec": _encodec,
    "dac": _dac,
    "mimi": _mimi,
    "xcodec2": _xcodec2,
    "higgs": _higgs,
    **{kind: partial(_of_package, kind) for kind in RATES},
}
