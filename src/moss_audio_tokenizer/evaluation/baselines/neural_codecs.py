"""EnCodec, DAC, Mimi, X-Codec 2 and Higgs through transformers, as evaluated codecs.

Their bits are those of the codes. Each has its own habits of shape, which end here.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ...errors import InputError
from ..codecs import CodedClip, EvaluatedCodec
from ..pretrained import fingerprint, load_feature_extractor, load_pretrained

Reconstruction = tuple[torch.Tensor, torch.Tensor]
"""Audio (channels, samples) and codes (num_quantizers, frames)."""


class NeuralCodec:
    """A codec of transformers with a fixed number of layers.

    Args:
        name: as the user gave it.
        model: of transformers, in evaluation mode.
        num_quantizers: layers that are used.
        codebook_size: entries of each codebook.
        frame_rate: frames a second.
        reconstruct: (model, (1, channels, samples), layers) -> audio and codes.
        num_channels: of the audio.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        num_quantizers: int,
        codebook_size: int,
        frame_rate: float,
        reconstruct: Callable[[Any, torch.Tensor, int], Reconstruction],
        num_channels: int = 1,
    ) -> None:
        self.name, self.identity = name, fingerprint(model)
        rate = getattr(model.config, "sampling_rate", None) or model.config.sample_rate
        self.sampling_rate, self.num_channels = int(rate), num_channels
        self.quantizer_counts: tuple[int | None, ...] = (num_quantizers,)
        self.codebook_size = codebook_size
        self._model, self._reconstruct = model, reconstruct
        self._num_quantizers, self._frame_rate = num_quantizers, frame_rate

    @torch.inference_mode()
    def code(self, audio: Float[np.ndarray, "channels samples"]) -> Sequence[CodedClip]:
        """The clip with the first layers of its codes."""
        sound = torch.from_numpy(np.ascontiguousarray(audio))[None]
        decoded, codes = self._reconstruct(self._model, sound, self._num_quantizers)
        bits = (self.codebook_size - 1).bit_length()
        kbps = self._num_quantizers * bits * self._frame_rate / 1000
        num_bits = codes.numel() * bits
        return [CodedClip(self._num_quantizers, kbps, num_bits, decoded.numpy(), codes.numpy())]


def open_neural_codec(kind: str, name: str, path: str, setting: str) -> EvaluatedCodec:
    """A codec from a folder or the hub.

    Args:
        kind: "encodec", "dac", "mimi", "xcodec2" or "higgs".
        name: as the user gave it.
        path: folder or hub id.
        setting: kbps of EnCodec, layers of DAC and Mimi; "" for the most.

    Raises:
        CheckpointError: nothing usable is at the path.
        InputError: the setting is none of this codec's.
        MissingDependencyError: transformers is not installed, or too old.
    """
    if not path:
        raise InputError(f"--codec {name!r}: expected a folder or a hub id, as in {kind}:PATH")
    return _OPENERS[kind](name, path, setting)


def _encodec(name: str, path: str, setting: str) -> EvaluatedCodec:
    model = load_pretrained("EncodecModel", path)
    config = model.config
    rates = [float(rate) for rate in config.target_bandwidths]
    kbps = _chosen(name, setting, rates)
    layers = int(model.quantizer.get_num_quantizers_for_bandwidth(kbps))

    def reconstruct(model: Any, audio: torch.Tensor, count: int) -> Reconstruction:
        coded = model.encode(audio, bandwidth=kbps)
        decoded = model.decode(
            coded.audio_codes, coded.audio_scales, last_frame_pad_length=coded.last_frame_pad_length
        )
        # (chunks, batch, layers, frames): chunks follow each other in time.
        codes = torch.cat(list(coded.audio_codes[:, 0]), dim=-1)
        return decoded.audio_values[0][:, : audio.shape[-1]], codes[:count]

    return NeuralCodec(
        *(name, model, layers, config.codebook_size, float(config.frame_rate), reconstruct),
        num_channels=config.audio_channels,
    )


def _higgs(name: str, path: str, setting: str) -> EvaluatedCodec:
    model = load_pretrained("HiggsAudioV2TokenizerModel", path)
    config = model.config
    frame_rate = config.sample_rate / config.hop_length
    per_layer = (config.codebook_size - 1).bit_length() * frame_rate / 1000
    kbps = _chosen(name, setting, [float(rate) for rate in config.target_bandwidths])
    # The model's own rule: as many layers as fit the bandwidth.
    layers = max(1, int(kbps / per_layer + 1e-6))

    def reconstruct(model: Any, audio: torch.Tensor, count: int) -> Reconstruction:
        codes = model.encode(audio, bandwidth=kbps).audio_codes[:, :count]
        decoded = model.decode(codes).audio_values
        return decoded.reshape(1, -1)[:, : audio.shape[-1]], codes[0]

    return NeuralCodec(name, model, layers, config.codebook_size, frame_rate, reconstruct)


def _dac(name: str, path: str, setting: str) -> EvaluatedCodec:
    model = load_pretrained("DacModel", path)
    config = model.config
    layers = int(_chosen(name, setting, range(1, config.n_codebooks + 1)))

    def reconstruct(model: Any, audio: torch.Tensor, count: int) -> Reconstruction:
        codes = model.encode(audio, n_quantizers=count).audio_codes[:, :count]
        decoded = model.decode(audio_codes=codes).audio_values
        return decoded.reshape(1, -1)[:, : audio.shape[-1]], codes[0]

    frame_rate = config.sampling_rate / int(np.prod(config.downsampling_ratios))
    return NeuralCodec(name, model, layers, config.codebook_size, frame_rate, reconstruct)


def _mimi(name: str, path: str, setting: str) -> EvaluatedCodec:
    model = load_pretrained("MimiModel", path)
    config = model.config
    layers = int(_chosen(name, setting, range(1, config.num_quantizers + 1)))

    def reconstruct(model: Any, audio: torch.Tensor, count: int) -> Reconstruction:
        codes = model.encode(audio, num_quantizers=count).audio_codes
        decoded = model.decode(codes).audio_values
        return decoded[0][:, : audio.shape[-1]], codes[0]

    return NeuralCodec(
        name, model, layers, config.codebook_size, float(config.frame_rate), reconstruct
    )


def _xcodec2(name: str, path: str, setting: str) -> EvaluatedCodec:
    if setting:
        raise InputError(f"--codec {name!r}: X-Codec 2 has one bitrate; leave @{setting} out")
    model = load_pretrained("Xcodec2Model", path)
    features = load_feature_extractor(path)
    config = model.config

    def reconstruct(model: Any, audio: torch.Tensor, count: int) -> Reconstruction:
        sound = audio[0, 0].numpy()
        prepared = features(sound, sampling_rate=config.sampling_rate, return_tensors="pt")
        codes = model.encode(**prepared).audio_codes
        decoded = model.decode(codes).audio_values
        return decoded.reshape(1, -1)[:, : audio.shape[-1]], codes.reshape(count, -1)

    frame_rate = config.sampling_rate / int(np.prod(config.downsampling_ratios))
    size = int(np.prod(config.quantization_levels))
    return NeuralCodec(name, model, 1, size, frame_rate, reconstruct)


def _chosen(name: str, setting: str, choices: Sequence[float]) -> float:
    """The setting as one of the choices; without a setting the last, which is the most."""
    if not setting:
        return choices[-1]
    for choice in choices:
        if setting in (str(choice), f"{choice:g}"):
            return choice
    shown = ", ".join(f"{choice:g}" for choice in choices)
    raise InputError(f"--codec {name!r}: got {setting!r} after the @; expected one of {shown}")


_OPENERS: dict[str, Callable[[str, str, str], EvaluatedCodec]] = {
    "encodec": _encodec,
    "dac": _dac,
    "mimi": _mimi,
    "xcodec2": _xcodec2,
    "higgs": _higgs,
}
