"""The codec in the manner of transformers: `MossAudioTokenizerModel`.

Owns loading, saving, and how `api.verbs`, which has encode, decode, batches and sessions, runs on
PyTorch; settings are in `model_settings`, the released streaming calls in `official_streaming`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.modeling_utils import PreTrainedAudioTokenizerBase, PreTrainedModel
from transformers.utils import ModelOutput

from ..api.continuous_batches import CallersBatches
from ..api.verbs import CodecVerbs
from ..checkpoint.codec_checkpoint import Checkpoint, load_codec, save_codec
from ..checkpoint.hub import find_checkpoint
from ..config import CodecConfig
from ..errors import CheckpointError, ConfigError, InputError
from ..model import inputs
from ..model.codec import Codec
from ..model.inputs import as_code_rows, as_waveform_rows, lengths_of, pad_rows, require_dtype
from ..runtime.offline import decode_rows, encode_rows
from ..runtime.onnx_steps import make_decoder_engine, make_encoder_engine
from ..runtime.stream_engine import DecoderEngine, EncoderEngine
from ..runtime.weight_cache import InferenceCache
from .configuration import MossAudioTokenizerConfig
from .loading_options import (
    check_saving_options,
    device_of,
    loading_info,
    plain_settings,
    read_options,
    with_weights,
)
from .model_outputs import (
    MossAudioTokenizerDecoderOutput,
    MossAudioTokenizerEncoderOutput,
    MossAudioTokenizerOutput,
    released_tuple,
)
from .model_settings import ModelSettings
from .official_streaming import OfficialStreaming


class MossAudioTokenizerPreTrainedModel(PreTrainedAudioTokenizerBase):
    """The base class by which transformers knows models that turn audio into codes."""

    config_class = MossAudioTokenizerConfig
    base_model_prefix = "codec"
    main_input_name = "input_values"
    input_modalities = "audio"


class MossAudioTokenizerModel(
    ModelSettings,
    OfficialStreaming,
    MossAudioTokenizerPreTrainedModel,
):
    """Audio to discrete codes and back.

    Args:
        config: what to build, with fresh weights; `from_pretrained` loads trained ones.
        parts: "all", "encoder" or "decoder"; the quantizer comes with each.
    """

    _arrays: ClassVar[Any] = inputs
    _encoder_output = MossAudioTokenizerEncoderOutput
    _decoder_output = MossAudioTokenizerDecoderOutput

    def __init__(self, config: MossAudioTokenizerConfig, parts: str = "all") -> None:
        super().__init__(config)
        self.codec = Codec(config.codec, parts)
        self.codec.initialize()
        self._apply_settings()

    def _apply_settings(self) -> None:
        self._prepared = InferenceCache()
        self._rows = None
        self._batches = CallersBatches()
        self.set_attention_implementation(self.config.attention_implementation)
        self.set_compute_dtype(self.config.compute_dtype)
        self.set_lengths(self.config.lengths)
        self.eval()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """`Codec.initialize` has done it."""

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: streams and what was prepared stay behind."""
        fresh = {"_prepared": InferenceCache(), "_batches": CallersBatches(), "_rows": None}
        return self.__dict__ | fresh

    # What `CodecVerbs` asks of a runtime. torch.compile leaves the verbs alone: they check values.

    encode = torch.compiler.disable(CodecVerbs.encode)
    batch_encode = torch.compiler.disable(CodecVerbs.batch_encode)
    decode = torch.compiler.disable(CodecVerbs.decode)
    batch_decode = torch.compiler.disable(CodecVerbs.batch_decode)

    def _codec_config(self) -> CodecConfig:
        return self.config.codec

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
        return list(encode_rows(encoder, clips, num_quantizers, chunk_frames, alone))

    @torch.no_grad()
    def _run_decoder(
        self, rows: list[Tensor], chunk_frames: int | None, alone: bool
    ) -> list[Tensor]:
        rows = [row.to(self.device) for row in rows]
        return list(decode_rows(self._inference_decoder(), rows, chunk_frames, alone))

    def _encoder_engine(
        self, max_slots: int, max_chunk_frames: int, num_quantizers: int
    ) -> EncoderEngine:
        encoder = self._inference_encoder()
        return make_encoder_engine(encoder, max_slots, max_chunk_frames, num_quantizers)

    def _decoder_engine(self, max_slots: int, max_chunk_frames: int) -> DecoderEngine:
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
            codes = as_code_rows(audio_codes, self.config.codec)[:num_quantizers]
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
        rows = as_waveform_rows(input_values, self.number_channels)
        given = lengths_of(padding_mask, rows.shape[0], rows.shape[2], "samples")
        counts = [int(count) for count in encoded.audio_codes_lengths]
        codes = [encoded.audio_codes[:, row, :count] for row, count in enumerate(counts)]
        audio = self.batch_decode(codes).audio
        lengths = [
            min(length, count * self.downsample_rate)
            for length, count in zip(given, counts, strict=True)
        ]
        clips = [clip[:, :length] for clip, length in zip(audio, lengths, strict=True)]
        return MossAudioTokenizerDecoderOutput(
            pad_rows(clips), torch.tensor(lengths, device=self.device)
        )

    # Loading and saving

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: MossAudioTokenizerConfig | None = None,
        parts: str = "all",
        device_map: Any = None,
        **options: Any,
    ) -> Any:
        """Load a checkpoint: a folder, a hub id, or "bundled" (the model in the package).

        Both released layouts, sharded or not. Weights are held in float32 unless an option says
        otherwise.

        Args:
            pretrained_model_name_or_path: where it is.
            config: overrides only how to compute (attention, compute dtype, lengths).
            parts: "encoder" or "decoder" loads that part and the quantizer.
            device_map: a device to move to, "auto" for the GPU if there is one, or a dict that
                names one device.
            **options: options of the hub (revision, cache_dir, subfolder, ...); settings
                (attn_implementation, compute_dtype, lengths); codec_weight_dtype or dtype, the
                type of the weights of encoder and decoder ("fp32", "bf16", "fp16");
                output_loading_info. An option that is None counts as not given.

        Returns:
            The model; with ``output_loading_info=True`` the model and a dict of lists of missing,
            unexpected and misshapen tensors, which are empty: such checkpoints are refused.

        Raises:
            CheckpointError: nothing is there, or tensors are missing, extra or misshapen.
            ConfigError: the configuration is not one of a released kind, or an option is unknown.
        """
        wanted = read_options(options)
        if config is not None and not isinstance(config, MossAudioTokenizerConfig):
            raise ConfigError(
                f"config is {type(config).__name__}; expected MossAudioTokenizerConfig"
            )
        device = device_of(device_map)
        folder = find_checkpoint(pretrained_model_name_or_path, wanted.hub) / wanted.subfolder
        with Checkpoint(folder) as checkpoint:
            codec = load_codec(checkpoint, parts)
            settings = checkpoint.released if config is None else config.to_dict()
        model: Any = cls._around(codec, {**plain_settings(settings), **wanted.settings})
        model.config._name_or_path = str(pretrained_model_name_or_path)
        if wanted.weight_dtype is not None:
            model.set_codec_weight_dtype(wanted.weight_dtype)
        model = model if device is None else model.to(device)
        return (model, loading_info()) if wanted.loading_info else model

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As every module of PyTorch; tensors of a released checkpoint have other names.

        Raises:
            CheckpointError: no tensor has a name of this model's.
        """
        if state_dict and not any(name.startswith("codec.") for name in state_dict):
            raise CheckpointError(
                f"no tensor has a name of this model's: the first is {next(iter(state_dict))!r}, "
                "and model.state_dict() shows those it has; a released checkpoint is loaded by "
                "MossAudioTokenizerModel.from_pretrained(FOLDER)"
            )
        return super().load_state_dict(state_dict, strict, assign)

    @classmethod
    def _around(cls, codec: Codec, settings: dict[str, Any]) -> "MossAudioTokenizerModel":
        """A model that wraps a loaded codec, without drawing weights first."""
        config = MossAudioTokenizerConfig.from_codec_config(codec.config, **settings)
        model = cls.__new__(cls)
        PreTrainedModel.__init__(model, config)
        model.codec = codec
        model._apply_settings()
        return model

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | Path,
        *,
        layout: str | None = None,
        max_shard_size: str = "5GB",
        weight_dtype: str | None = None,
        state_dict: Mapping[str, Tensor] | None = None,
        **options: Any,
    ) -> None:
        """Write config.json and safetensors weights with the names of a released layout.

        Args:
            save_directory: a folder; made if missing.
            layout: "v1" or "v2" (default: v1 if code for released v1 models can read it, else
                v2). A model whose stages project between equal dimensions (the v2 family) can
                be written as v1 too, but other engines' v1 code does not expect those tensors.
                Written as v2, a v1 model gets identity projections there.
                "hf" is the layout of the class inside transformers (docs/onnx.md).
            max_shard_size: larger checkpoints are split into shards with an index.
            weight_dtype: "fp32", or "bf16" / "fp16" for half the size: encoder and decoder are
                rounded, the quantizer is not (default: what `set_codec_weight_dtype` chose).
                "int8" stores their matrices in 8 bits with a scale for each row, for a quarter of
                the size; they are read back to float32. Other engines cannot read them.
            state_dict: weights to write in place of the model's, under the names of
                ``model.state_dict()``.
            **options: ``is_main_process=False`` writes nothing; ``safe_serialization`` changes
                nothing. An option that is None counts as not given.

        Raises:
            ConfigError: no such layout or dtype, the layout cannot describe the model, only its
                encoder or its decoder is loaded, or an option or ``state_dict`` does not fit.
        """
        if self.codec.encoder is None or self.codec.decoder is None:
            raise ConfigError(
                "only the encoder or only the decoder is loaded; load parts='all' to save it"
            )
        if not check_saving_options(options):
            return
        codec = self.codec if state_dict is None else with_weights(self.codec, state_dict)
        weight_dtype = weight_dtype or self.config.codec_weight_dtype
        folder = Path(save_directory)
        in_8_bits = weight_dtype == "int8"
        dtype = torch.int8 if in_8_bits else require_dtype(weight_dtype)
        settings = {
            "attention_implementation": self.config.attention_implementation,
            "compute_dtype": self.config.compute_dtype,
            "codec_weight_dtype": "fp32" if in_8_bits else weight_dtype,
        }
        if self.config.lengths != "ceil":
            settings["lengths"] = self.config.lengths
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_codec(codec, folder, layout, dtype, max_shard_size, settings)
        except OSError as error:
            raise CheckpointError(f"cannot write to {folder}: {error}") from error
