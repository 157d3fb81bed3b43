"""How a `MossAudioTokenizerModel` computes, and the attributes by which other code knows it.

A mixin, so that the model's verbs stay readable. The names of the attributes are those that code
written for the released models reads.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint.codec_checkpoint import live_tensors
from ..checkpoint.key_names import codes_identity
from ..config import TransformerStage
from ..errors import InputError
from ..model.attention import check_backend, usable_backend
from ..model.codec import Codec
from ..model.inputs import DTYPES, require_dtype
from ..runtime.inference_codec import InferenceDecoder, InferenceEncoder
from ..runtime.weight_cache import InferenceCache
from .loading_options import dtype_name


class ModelSettings:
    """Settings and attributes of a model that wraps a codec."""

    config: Any
    codec: Codec
    device: torch.device
    _prepared: InferenceCache

    # Settings

    def set_attention_implementation(self, name: str) -> None:
        """Prefer "sdpa", "flash_attention_2" or "flex_attention".

        flash_attention_2 needs a CUDA GPU, the package flash-attn and a compute dtype of 16
        bits. Where one of them is missing, "sdpa" computes the same function, and the first
        computation warns once.

        Raises:
            ConfigError: there is no implementation of that name.
        """
        self.config.attention_implementation = check_backend(name)
        self._warned_of_attention = False

    def set_compute_dtype(self, name: str) -> None:
        """Compute encoder and decoder in "fp32", "bf16" or "fp16"; the quantizer stays fp32."""
        require_dtype(name)
        self.config.compute_dtype = name

    def set_codec_weight_dtype(self, name: str) -> None:
        """Hold the weights of encoder and decoder in "fp32", "bf16" or "fp16".

        The quantizer stays in fp32. A model that computes in fp32 then computes in the type of
        its weights, as the released v2 code does; `set_compute_dtype` chooses otherwise.

        Raises:
            ConfigError: there is no such type.
        """
        name = dtype_name(name)
        for part in (self.codec.encoder, self.codec.decoder):
            if part is not None:
                part.to(DTYPES[name])
        self.config.codec_weight_dtype = name
        if name != "fp32" and self.config.compute_dtype == "fp32":
            self.set_compute_dtype(name)

    def _choose_attention(self) -> None:
        """Let the stages compute by the preferred implementation, or by what there is instead.

        Raises:
            InputError: the model has no weights.
        """
        if self.device.type == "meta":
            raise InputError(
                "the model is on the device meta, without weights; load them with from_pretrained"
            )
        preferred = self.config.attention_implementation
        dtype = DTYPES[self.config.compute_dtype]
        name, reason = usable_backend(preferred, self.device, dtype)
        if reason and not self._warned_of_attention:
            self._warned_of_attention = True
            warnings.warn(
                f"{preferred} cannot be used here ({reason}); computing with {name}, which gives "
                f"the same result: set_attention_implementation({name!r}) chooses it silently",
                stacklevel=2,
            )
        for side in (self.codec.encoder, self.codec.decoder):
            for stage in side.transformers() if side is not None else ():
                stage.attention_backend = name

    def _inference_encoder(self) -> InferenceEncoder:
        """The encoder and the quantizer, ready to run."""
        self._choose_attention()
        return self._prepared.encoder(self.codec, DTYPES[self.config.compute_dtype])

    def _inference_decoder(self) -> InferenceDecoder:
        """The quantizer and the decoder, ready to run."""
        self._choose_attention()
        return self._prepared.decoder(self.codec, DTYPES[self.config.compute_dtype])

    # Attributes

    @property
    def lengths(self) -> str:
        """How many frames a clip gives: "ceil" or "floor" of its samples over downsample_rate."""
        return str(self.config.lengths)

    @lengths.setter
    def lengths(self, name: str) -> None:
        self.config.lengths = name

    @property
    def sampling_rate(self) -> int:
        """Samples a second and channel."""
        return self.config.codec.sampling_rate

    @property
    def downsample_rate(self) -> int:
        """Samples a frame and channel."""
        return self.config.codec.downsample_rate

    @property
    def number_channels(self) -> int:
        """Channels of the audio."""
        return self.config.codec.number_channels

    @property
    def enable_channel_interleave(self) -> bool:
        """Whether the channels of a stereo model are interleaved into one sequence."""
        return self.number_channels > 1

    @property
    def causal_transformer_context_duration(self) -> float:
        """The shortest attention window of the encoder, in seconds."""
        stages = [
            stage for stage in self.config.codec.encoder if isinstance(stage, TransformerStage)
        ]
        return min(stage.context_seconds for stage in stages)

    @property
    def encoder(self) -> nn.Module | None:
        """The encoder as a module, or None if only the decoder was loaded."""
        return self.codec.encoder

    @property
    def quantizer(self) -> nn.Module:
        """The residual quantizer as a module."""
        return self.codec.quantizer

    @property
    def decoder(self) -> nn.Module | None:
        """The decoder as a module, or None if only the encoder was loaded."""
        return self.codec.decoder

    @property
    def attention_implementation(self) -> str:
        """The preferred attention implementation."""
        return str(self.config.attention_implementation)

    @property
    def compute_dtype(self) -> torch.dtype | None:
        """What encoder and decoder compute in; None for float32."""
        name = self.config.compute_dtype
        return None if name == "fp32" else DTYPES[name]

    @property
    def compute_dtype_name(self) -> str:
        """What encoder and decoder compute in: "fp32", "bf16" or "fp16"."""
        return str(self.config.compute_dtype)

    @property
    def codec_weight_dtype_name(self) -> str:
        """The type that weights of encoder and decoder were set to, such as "bf16"."""
        return str(self.config.codec_weight_dtype)

    @property
    def identity(self) -> str:
        """16 hexadecimal digits, equal for models whose codes mean the same."""
        tensors = live_tensors(self.codec, "v1", ("quantizer.",))
        return codes_identity(self.codec.config, lambda name: tensors[name].float().cpu().numpy())

    def get_codec_dtype_summary(self) -> dict[str, str]:
        """Types of the weights of each part, and what encoder and decoder compute in."""
        return {
            "encoder": _dtype_of(self.codec.encoder),
            "decoder": _dtype_of(self.codec.decoder),
            "quantizer": _dtype_of(self.codec.quantizer),
            "compute_dtype": self.compute_dtype_name,
            "codec_weight_dtype": self.codec_weight_dtype_name,
        }


def _dtype_of(part: nn.Module | None) -> str:
    """The type of the first weight of a part."""
    weights: list[Tensor] = [] if part is None else list(part.parameters())
    return str(weights[0].dtype) if weights else "no_params"
