"""The codec in the manner of transformers: `MossAudioTokenizerModel`.

Owns how `api.verbs`, which has encode, decode, batches and sessions, runs on PyTorch, the settings
of how it computes, and the attributes by which code for the released models knows it; `loading`
has from_pretrained and save_pretrained, `official_streaming` the released streaming calls.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from ..api.verbs import CodecVerbs
from ..checkpoint.codec_checkpoint import live_tensors
from ..checkpoint.key_names import codes_identity
from ..config import CodecConfig, TransformerStage
from ..errors import InputError
from ..model.attention import check_backend, usable_backend
from ..model.codec import Codec
from ..model.inputs import (
    DTYPES,
    TENSORS,
    require_dtype,
)
from ..runtime.inference_codec import InferenceDecoder, InferenceEncoder
from ..runtime.torch_steps import make_decoder_engine, make_encoder_engine
from ..runtime.weight_cache import InferenceCache
from ..streaming import StepEngine
from .configuration import MossAudioTokenizerConfig
from .loading import MossAudioTokenizerPreTrainedModel, dtype_name
from .model_outputs import (
    MossAudioTokenizerDecoderOutput,
    MossAudioTokenizerEncoderOutput,
    MossAudioTokenizerOutput,
    released_tuple,
)
from .official_streaming import OfficialStreaming


class MossAudioTokenizerModel(OfficialStreaming, MossAudioTokenizerPreTrainedModel):
    """Audio to discrete codes and back.

    Args:
        config: what to build, with fresh weights; `from_pretrained` loads trained ones.
        parts: "all", "encoder" or "decoder"; the quantizer comes with each.
    """

    _arrays = TENSORS
    _encoder_output = MossAudioTokenizerEncoderOutput
    _decoder_output = MossAudioTokenizerDecoderOutput

    def __init__(self, config: MossAudioTokenizerConfig, parts: str = "all") -> None:
        super().__init__(config)
        self.codec = Codec(config.codec, parts)
        self.codec.initialize()
        self._apply_settings()

    def _apply_settings(self) -> None:
        self._prepared = InferenceCache()
        self._drop_streams()
        self.set_attention_implementation(self.config.attention_implementation)
        self.set_compute_dtype(self.config.compute_dtype)
        self.set_lengths(self.config.lengths)
        self.eval()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """`Codec.initialize` has done it."""

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: streams and what was prepared stay behind."""
        fresh = {"_prepared": InferenceCache(), "_batches": {}, "_rows": None}
        return self.__dict__ | fresh

    # What `CodecVerbs` asks of a runtime. torch.compile leaves the verbs alone: they check values.

    encode = torch.compiler.disable(CodecVerbs.encode)
    batch_encode = torch.compiler.disable(CodecVerbs.batch_encode)
    decode = torch.compiler.disable(CodecVerbs.decode)
    batch_decode = torch.compiler.disable(CodecVerbs.batch_decode)

    def _codec_config(self) -> CodecConfig:
        return self.codec.config

    def _alone(self, deterministic: bool) -> bool:
        # On a CPU always: nothing is lost, for one row already keeps the processor busy.
        return deterministic or self.device.type == "cpu"

    def _returned(self, output: ModelOutput, return_dict: bool | None) -> Any:
        if self.config.return_dict if return_dict is None else return_dict:
            return output
        return released_tuple(output)

    @torch.no_grad()
    def _run_encoder(
        self, clips: list[Tensor], num_quantizers: int, chunk_frames: int | None, alone: bool
    ) -> list[tuple[Tensor, Tensor]]:
        clips = [clip.to(self.device) for clip in clips]
        encoder = self._inference_encoder()
        return list(encoder.encode_rows(clips, num_quantizers, chunk_frames, alone))

    @torch.no_grad()
    def _run_decoder(
        self, rows: list[Tensor], chunk_frames: int | None, alone: bool
    ) -> list[Tensor]:
        rows = [row.to(self.device) for row in rows]
        return list(self._inference_decoder().decode_rows(rows, chunk_frames, alone))

    def _encoder_engine(
        self, max_slots: int, max_chunk_frames: int, num_quantizers: int
    ) -> StepEngine:
        encoder = self._inference_encoder()
        return make_encoder_engine(encoder, max_slots, max_chunk_frames, num_quantizers)

    def _decoder_engine(self, max_slots: int, max_chunk_frames: int) -> StepEngine:
        return make_decoder_engine(self._inference_decoder(), max_slots, max_chunk_frames)

    def forward(
        self,
        input_values: Any = None,
        padding_mask: Any = None,
        audio_codes: Any = None,
        num_quantizers: int | None = None,
        return_dict: bool | None = None,
    ) -> MossAudioTokenizerOutput:
        """Audio through codes and back; with ``audio_codes`` alone, only back.

        The audio comes out at the input's lengths. With both given, the codes are those of
        ``input_values``, and the audio that of ``audio_codes``, as in the released code.
        ``padding_mask`` is that of ``input_values`` if they are given, else that of
        ``audio_codes``. Without gradients: training works on ``model.codec``.

        Returns:
            The output, or with ``return_dict=False`` the tuple (audio_codes, audio,
            audio_lengths).
        """
        if input_values is None and audio_codes is None:
            raise InputError("got neither input_values nor audio_codes; pass one of them")
        if input_values is None:
            decoded = self._decoded(audio_codes, padding_mask, num_quantizers)
            codes = TENSORS.as_code_rows(audio_codes, self.config.codec)[:num_quantizers]
            lengths = decoded.audio_lengths // self.downsample_rate
        else:
            encoded = self.encode(input_values, padding_mask, num_quantizers, return_dict=True)
            codes, lengths = encoded.audio_codes, encoded.audio_codes_lengths
            if audio_codes is None:
                decoded = self._decoded_as_long(encoded, input_values, padding_mask)
            else:
                decoded = self._decoded(audio_codes, None, num_quantizers)
        output = MossAudioTokenizerOutput(decoded.audio, decoded.audio_lengths, codes, lengths)
        return self._returned(output, return_dict)

    def _decoded(
        self, codes: Any, padding_mask: Any, num_quantizers: int | None
    ) -> MossAudioTokenizerDecoderOutput:
        return self.decode(codes, padding_mask, True, num_quantizers=num_quantizers)

    def _decoded_as_long(
        self, encoded: MossAudioTokenizerEncoderOutput, input_values: Any, padding_mask: Any
    ) -> MossAudioTokenizerDecoderOutput:
        """Audio of codes, no longer than what was encoded."""
        rows = TENSORS.as_waveform_rows(input_values, self.number_channels)
        given = TENSORS.lengths_of(padding_mask, rows.shape[0], rows.shape[2], "samples")
        counts = [int(count) for count in encoded.audio_codes_lengths]
        codes = [encoded.audio_codes[:, row, :count] for row, count in enumerate(counts)]
        audio = self.batch_decode(codes).audio
        lengths = [
            min(length, count * self.downsample_rate)
            for length, count in zip(given, counts, strict=True)
        ]
        clips = [clip[:, :length] for clip, length in zip(audio, lengths, strict=True)]
        return MossAudioTokenizerDecoderOutput(
            TENSORS.pad_rows(clips), torch.tensor(lengths, device=self.device)
        )

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
        self._chosen_attention: Any = None

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
        preferred, dtype = self.config.attention_implementation, DTYPES[self.config.compute_dtype]
        chosen = (self.codec, preferred, self.device, dtype)
        if chosen == self._chosen_attention:
            return
        self._chosen_attention = chosen
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
