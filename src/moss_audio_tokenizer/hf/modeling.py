"""The codec in the manner of transformers: `MossAudioTokenizerModel`.

Owns the public verbs (encode, decode, batches, saving, loading); how the model computes is
`model_settings`', the streams are `streaming_verbs`' and `official_streaming`'s, the checks
`model.inputs`', the files `checkpoint`'s.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.modeling_utils import PreTrainedAudioTokenizerBase, PreTrainedModel
from transformers.utils import ModelOutput

from ..api.validation import first_layers, only_row, require_equal_layers
from ..checkpoint.codec_checkpoint import Checkpoint, load_codec, save_codec
from ..checkpoint.hub import find_checkpoint
from ..config.arguments import (
    check_num_quantizers,
    frames_of_duration,
    kept_samples,
    require_list,
)
from ..errors import CheckpointError, CodesError, ConfigError, InputError
from ..model.codec import Codec
from ..model.devices import require_dtype
from ..model.inputs import as_code_rows, as_waveform_rows, check_clip, lengths_of, pad_rows
from ..runtime.offline import decode_rows, encode_rows
from ..runtime.weight_cache import InferenceCache
from ..streaming.batching import CallersBatches
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
from .streaming_verbs import StreamingVerbs


class MossAudioTokenizerPreTrainedModel(PreTrainedAudioTokenizerBase):
    """The base class by which transformers knows models that turn audio into codes."""

    config_class = MossAudioTokenizerConfig
    base_model_prefix = "codec"
    main_input_name = "input_values"
    input_modalities = "audio"


class MossAudioTokenizerModel(
    ModelSettings, StreamingVerbs, OfficialStreaming, MossAudioTokenizerPreTrainedModel
):
    """Audio to discrete codes and back.

    Args:
        config: what to build, with fresh weights; `from_pretrained` loads trained ones.
        parts: "all", "encoder" or "decoder"; the quantizer comes with each.
    """

    def __init__(self, config: MossAudioTokenizerConfig, parts: str = "all") -> None:
        super().__init__(config)
        self.codec = Codec(config.codec, parts)
        self.codec.initialize()
        self._apply_settings()

    def _apply_settings(self) -> None:
        self._prepared = InferenceCache()
        self._rows = None
        self._forget_streams()
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

    # Encoding

    @torch.compiler.disable
    def encode(
        self,
        input_values: Tensor | np.ndarray,
        padding_mask: Tensor | np.ndarray | None = None,
        num_quantizers: int | None = None,
        return_dict: bool | None = None,
        chunk_duration: float | None = None,
        *,
        deterministic: bool = False,
    ) -> MossAudioTokenizerEncoderOutput:
        """Audio to codes; a clip of n samples gives ceil(n / downsample_rate) frames.

        `set_lengths` chooses floor(n / downsample_rate) instead.

        Args:
            input_values: (batch, channels, samples), or (batch, samples) or (samples,) for mono,
                or (channels, samples) for stereo; floating point within +-1, int16 or int32.
            padding_mask: (batch, samples), 1 for samples and 0 for padding at the end.
            num_quantizers: use the first so many layers (default: all).
            return_dict: False for the tuple (audio_codes, audio_codes_lengths); None for what
                ``config.return_dict`` says.
            chunk_duration: seconds to work through at a time; the result is the same.
            deterministic: compute every row by itself, so that its codes do not depend, bit for
                bit, on the other rows (always so on a CPU).

        Raises:
            AudioError, CodesError, InputError: see each message.
        """
        rows = as_waveform_rows(input_values, self.config.codec.number_channels)
        lengths = lengths_of(padding_mask, rows.shape[0], rows.shape[2], "samples")
        clips = [row[:, :length] for row, length in zip(rows, lengths, strict=True)]
        return self._encode(clips, num_quantizers, return_dict, chunk_duration, deterministic)

    @torch.compiler.disable
    def batch_encode(
        self,
        wav_list: Sequence[Tensor | np.ndarray],
        num_quantizers: int | None = None,
        chunk_duration: float | None = None,
        streaming: bool = False,
        max_batch_size: int | None = None,
        finalize_indices: Sequence[int] | None = None,
        reset_stream: bool = False,
        *,
        deterministic: bool = False,
    ) -> MossAudioTokenizerEncoderOutput:
        """Encode clips of unequal lengths: a list of (channels, samples), or (samples,) for mono.

        The options are those of `encode`, and for streaming those of `batch_decode`: with
        ``streaming=True`` what does not fill a frame waits for the next call, a finalized row's
        last frame is zero-padded, and there are no hidden states.
        """
        channels = self.config.codec.number_channels
        items = require_list(wav_list, "clips", "encode")
        slots = (max_batch_size, finalize_indices, reset_stream)
        if streaming:
            frames_of_duration(chunk_duration, self.config.codec)
            return self._continue_encode(items, num_quantizers, *slots)
        self._batches.refuse("encode", *slots)
        clips = [_single(as_waveform_rows(clip, channels)) for clip in items]
        return self._encode(clips, num_quantizers, True, chunk_duration, deterministic)

    @torch.no_grad()
    def _encode(
        self,
        clips: list[Tensor],
        num_quantizers: int | None,
        return_dict: bool | None,
        chunk_duration: float | None,
        deterministic: bool,
    ) -> Any:
        config = self.config.codec
        layers = check_num_quantizers(num_quantizers, config)
        chunk = frames_of_duration(chunk_duration, config)
        clips = [self._whole(check_clip(clip)).to(self.device) for clip in clips]
        if self._rows is not None:
            return self._returned(self._encode_in_block(clips, num_quantizers), return_dict)
        alone = self._alone(deterministic)
        rows = list(encode_rows(self._encoder_half(), clips, layers, chunk, alone))
        lengths = [codes.shape[1] for codes, _ in rows]
        output = MossAudioTokenizerEncoderOutput(
            audio_codes=pad_rows([codes for codes, _ in rows]).transpose(0, 1),
            audio_codes_lengths=torch.tensor(lengths, device=self.device),
            encoder_hidden_states=pad_rows([hidden for _, hidden in rows]),
        )
        return self._returned(output, return_dict)

    @torch.no_grad()
    def encode_together(
        self, clips: Sequence[Tensor | np.ndarray], num_quantizers: int | None = None
    ) -> list[Tensor]:
        """Codes (num_quantizers, frames) of clips that are computed at once, also on a CPU.

        That is faster than `batch_encode` for short ones; sums are rounded another way, so that
        a few codes may depend on the other clips.
        """
        layers = check_num_quantizers(num_quantizers, self.config.codec)
        rows = [_single(as_waveform_rows(clip, self.number_channels)) for clip in clips]
        rows = [self._whole(check_clip(row)).to(self.device) for row in rows]
        encoded = encode_rows(self._encoder_half(), rows, layers, alone=False)
        return [codes for codes, _ in encoded]

    def _whole(self, clip: Tensor) -> Tensor:
        """The samples of a clip that are encoded: all, or with floor lengths whole frames."""
        if self._rows is not None:  # an unfinished frame waits there
            return clip
        unit = self.config.codec.downsample_rate
        return clip[..., : kept_samples(clip.shape[-1], unit, self.config.lengths)]

    def _returned(self, output: ModelOutput, return_dict: bool | None) -> Any:
        """The output, or the tuple that the released code returns."""
        if self.config.return_dict if return_dict is None else return_dict:
            return output
        return released_tuple(output)

    def _alone(self, deterministic: bool) -> bool:
        """Whether rows are computed one by one.

        On a CPU always: a row then cannot depend on the others, and nothing is lost, for one
        row already keeps the processor busy.
        """
        return deterministic or self.device.type == "cpu"

    # Decoding

    @torch.compiler.disable
    def decode(
        self,
        audio_codes: Tensor | np.ndarray,
        padding_mask: Tensor | np.ndarray | None = None,
        return_dict: bool | None = None,
        chunk_duration: float | None = None,
        num_quantizers: int | None = None,
        *,
        deterministic: bool = False,
    ) -> MossAudioTokenizerDecoderOutput:
        """Codes to audio, downsample_rate samples a frame.

        Args:
            audio_codes: (num_quantizers, batch, frames) or (num_quantizers, frames); fewer
                layers than the model has are fine.
            padding_mask: (batch, frames), 1 for frames and 0 for padding at the end.
            return_dict: False for the tuple (audio,); None for what ``config.return_dict`` says.
            chunk_duration: seconds to work through at a time; the result is the same.
            num_quantizers: use only the first so many of the layers given.
            deterministic: compute every row by itself (always so on a CPU).

        Raises:
            CodesError, InputError: see each message.
        """
        codes = as_code_rows(audio_codes, self.config.codec)
        lengths = lengths_of(padding_mask, codes.shape[1], codes.shape[2], "frames")
        rows = [codes[:, row, :length] for row, length in enumerate(lengths)]
        return self._decode(rows, num_quantizers, return_dict, chunk_duration, deterministic)

    @torch.compiler.disable
    def batch_decode(
        self,
        codes_list: Sequence[Tensor | np.ndarray],
        num_quantizers: int | None = None,
        chunk_duration: float | None = None,
        streaming: bool = False,
        max_batch_size: int | None = None,
        finalize_indices: Sequence[int] | None = None,
        reset_stream: bool = False,
        use_cuda_graph: bool | None = None,
        *,
        deterministic: bool = False,
    ) -> MossAudioTokenizerDecoderOutput:
        """Decode a list of (num_quantizers, frames) of unequal lengths; see `decode`.

        Args:
            codes_list: one item a row.
            num_quantizers: use only the first so many of the layers given.
            chunk_duration: seconds to work through at a time; the result is the same.
            streaming: continue where the last such call ended: row i is the same stream again.
                More rows than before admit streams at the tail; codes of 0 frames pause a row.
            max_batch_size: rows to make room for; counts in the first call (default: its rows).
            finalize_indices: rows that end with this call and then leave; the others keep their
                order.
            reset_stream: drop the streams of earlier calls first.
            use_cuda_graph: accepted for code that passes it; streams on a GPU always use CUDA
                graphs, which change no result.
            deterministic: compute every row by itself (always so on a CPU).

        Raises:
            CodesError, InputError: see each message; the streams are then as they were.
        """
        del use_cuda_graph
        config = self.config.codec
        items = require_list(codes_list, "codes", "decode")
        slots = (max_batch_size, finalize_indices, reset_stream)
        if streaming:
            frames_of_duration(chunk_duration, config)
            return self._continue_decode(items, num_quantizers, *slots)
        self._batches.refuse("decode", *slots)
        rows = [_single(as_code_rows(codes, config).movedim(1, 0)) for codes in items]
        require_equal_layers(rows, num_quantizers)
        return self._decode(rows, num_quantizers, True, chunk_duration, deterministic)

    @torch.no_grad()
    def _decode(
        self,
        rows: list[Tensor],
        num_quantizers: int | None,
        return_dict: bool | None,
        chunk_duration: float | None,
        deterministic: bool,
    ) -> Any:
        config = self.config.codec
        rows = first_layers(rows, num_quantizers, config)
        if min(row.shape[1] for row in rows) == 0:
            raise CodesError("a row of codes has no frames; expected at least one")
        chunk = frames_of_duration(chunk_duration, config)
        rows = [row.to(self.device) for row in rows]
        if self._rows is not None:
            return self._returned(self._decode_in_block(rows), return_dict)
        alone = self._alone(deterministic)
        clips = list(decode_rows(self._decoder_half(), rows, chunk, alone))
        lengths = [clip.shape[1] for clip in clips]
        output = MossAudioTokenizerDecoderOutput(
            audio=pad_rows(clips), audio_lengths=torch.tensor(lengths, device=self.device)
        )
        return self._returned(output, return_dict)

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
            state_dict: weights to write in place of the model's, under the names of
                ``model.state_dict()``.
            **options: ``is_main_process=False`` writes nothing; ``safe_serialization`` changes
                nothing. An option that is None counts as not given.

        Raises:
            ConfigError: no such layout or dtype, the layout cannot describe the model, only its
                encoder or its decoder is loaded, or an option or ``state_dict`` does not fit.
        """
        if self.codec.encoder is None or self.codec.decoder is None:
            raise ConfigError("only half of the model is loaded; load parts='all' to save it")
        if not check_saving_options(options):
            return
        codec = self.codec if state_dict is None else with_weights(self.codec, state_dict)
        weight_dtype = weight_dtype or self.config.codec_weight_dtype
        folder = Path(save_directory)
        dtype = require_dtype(weight_dtype)
        settings = {
            "attention_implementation": self.config.attention_implementation,
            "compute_dtype": self.config.compute_dtype,
            "codec_weight_dtype": weight_dtype,
        }
        if self.config.lengths != "ceil":
            settings["lengths"] = self.config.lengths
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_codec(codec, folder, layout, dtype, max_shard_size, settings)
        except OSError as error:
            raise CheckpointError(f"cannot write to {folder}: {error}") from error


def _single(rows: Tensor) -> Tensor:
    """The only row of a batch of one."""
    row: Tensor = only_row(rows, "each item of a list is one clip", InputError)
    return row
