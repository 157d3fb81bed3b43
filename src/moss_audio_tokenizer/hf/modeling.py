"""The Hugging Face face of the codec: `MossAudioTokenizerModel` and what it returns.

Owns the public verbs (encode, decode, batches, saving, loading); the arithmetic is
`codec.py`'s, the checks `inputs.py`'s, the files `checkpoint.py`'s.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from ..checkpoint.codec_checkpoint import Checkpoint, load_codec, save_codec
from ..checkpoint.hub import find_checkpoint
from ..config.arguments import check_num_quantizers, frames_of_duration, require_list
from ..errors import CheckpointError, CodesError, ConfigError, InputError
from ..model.attention import check_backend, usable_backend
from ..model.codec import Codec
from ..model.devices import DTYPES, require_device, require_dtype
from ..model.inputs import as_code_rows, as_waveform_rows, check_clip, lengths_of, pad_rows
from ..runtime.fingerprint import fingerprint
from ..runtime.inference_codec import InferenceDecoder, InferenceEncoder
from ..runtime.offline import decode_rows, encode_rows
from ..runtime.weight_cache import InferenceCache
from ..streaming.batching import CallersBatches
from .configuration import MossAudioTokenizerConfig
from .model_outputs import (
    MossAudioTokenizerDecoderOutput,
    MossAudioTokenizerEncoderOutput,
    MossAudioTokenizerOutput,
)
from .streaming_verbs import StreamingVerbs

_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token")
# Options that transformers' Auto classes pass along and that change nothing here.
_IGNORED_OPTIONS = (
    "_from_auto",
    "_commit_hash",
    "adapter_kwargs",
    "low_cpu_mem_usage",
    "proxies",
    "trust_remote_code",
    "use_safetensors",
)


class MossAudioTokenizerModel(StreamingVerbs, PreTrainedModel):
    """Audio to discrete codes and back.

    Args:
        config: what to build, with fresh weights; `from_pretrained` loads trained ones.
        parts: "all", "encoder" or "decoder"; a half comes with the quantizer.
    """

    config_class = MossAudioTokenizerConfig
    base_model_prefix = "codec"
    main_input_name = "input_values"

    def __init__(self, config: MossAudioTokenizerConfig, parts: str = "all") -> None:
        super().__init__(config)
        self.codec = Codec(config.codec, parts)
        self.codec.initialize()
        self._apply_settings()

    def _apply_settings(self) -> None:
        self._prepared = InferenceCache()
        self._forget_streams()
        self.set_attention_implementation(self.config.attention_implementation)
        self.set_compute_dtype(self.config.compute_dtype)
        self.eval()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """`Codec.initialize` has done it."""

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: streams and what was prepared stay behind."""
        return self.__dict__ | {"_prepared": InferenceCache(), "_batches": CallersBatches()}

    # Settings

    @property
    def sampling_rate(self) -> int:
        """Samples a second and channel."""
        return self.config.codec.sampling_rate

    @property
    def identity(self) -> str:
        """16 hexadecimal digits, equal for models whose codes mean the same."""
        return fingerprint(self.codec.quantizer, self.config.codec)

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

    def _choose_attention(self) -> None:
        """Let the stages compute by the preferred implementation, or by what there is instead."""
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

    def _encoder_half(self) -> InferenceEncoder:
        self._choose_attention()
        return self._prepared.encoder(self.codec, DTYPES[self.config.compute_dtype])

    def _decoder_half(self) -> InferenceDecoder:
        self._choose_attention()
        return self._prepared.decoder(self.codec, DTYPES[self.config.compute_dtype])

    # Encoding

    def encode(
        self,
        input_values: Tensor | np.ndarray,
        padding_mask: Tensor | np.ndarray | None = None,
        num_quantizers: int | None = None,
        return_dict: bool | None = None,
        chunk_duration: float | None = None,
        deterministic: bool = False,
    ) -> MossAudioTokenizerEncoderOutput:
        """Audio to codes; a clip of n samples gives ceil(n / downsample_rate) frames.

        Args:
            input_values: (batch, channels, samples), or (batch, samples) or (samples,) for mono,
                or (channels, samples) for stereo; floating point within +-1, int16 or int32.
            padding_mask: (batch, samples), 1 for samples and 0 for padding at the end.
            num_quantizers: use the first so many layers (default: all).
            return_dict: False for a plain tuple.
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

    def batch_encode(
        self,
        input_values: Sequence[Tensor | np.ndarray],
        num_quantizers: int | None = None,
        chunk_duration: float | None = None,
        deterministic: bool = False,
        streaming: bool = False,
        max_batch_size: int | None = None,
        finalize_indices: Sequence[int] | None = None,
        reset_stream: bool = False,
    ) -> MossAudioTokenizerEncoderOutput:
        """Encode clips of unequal lengths: a list of (channels, samples), or (samples,) for mono.

        See `encode`, and `batch_decode` for the streaming options: with ``streaming=True`` what
        does not fill a frame waits for the next call, a finalized row's last frame is
        zero-padded, and there are no hidden states.
        """
        channels = self.config.codec.number_channels
        items = require_list(input_values, "clips", "encode")
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
        clips = [check_clip(clip).to(self.device) for clip in clips]
        alone = self._alone(deterministic)
        rows = list(encode_rows(self._encoder_half(), clips, layers, chunk, alone))
        lengths = [codes.shape[1] for codes, _ in rows]
        output = MossAudioTokenizerEncoderOutput(
            audio_codes=pad_rows([codes for codes, _ in rows]).transpose(0, 1),
            audio_codes_lengths=torch.tensor(lengths, device=self.device),
            encoder_hidden_states=pad_rows([hidden for _, hidden in rows]),
        )
        return _returned(output, return_dict)

    def _alone(self, deterministic: bool) -> bool:
        """Whether rows are computed one by one.

        On a CPU always: a row then cannot depend on the others, and nothing is lost, for one
        row already keeps the processor busy.
        """
        return deterministic or self.device.type == "cpu"

    # Decoding

    def decode(
        self,
        audio_codes: Tensor | np.ndarray,
        padding_mask: Tensor | np.ndarray | None = None,
        return_dict: bool | None = None,
        chunk_duration: float | None = None,
        num_quantizers: int | None = None,
        deterministic: bool = False,
    ) -> MossAudioTokenizerDecoderOutput:
        """Codes to audio, downsample_rate samples a frame.

        Args:
            audio_codes: (num_quantizers, batch, frames) or (num_quantizers, frames); fewer
                layers than the model has are fine.
            padding_mask: (batch, frames), 1 for frames and 0 for padding at the end.
            return_dict: False for a plain tuple.
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

    def batch_decode(
        self,
        codes_list: Sequence[Tensor | np.ndarray],
        num_quantizers: int | None = None,
        chunk_duration: float | None = None,
        deterministic: bool = False,
        streaming: bool = False,
        max_batch_size: int | None = None,
        finalize_indices: Sequence[int] | None = None,
        reset_stream: bool = False,
    ) -> MossAudioTokenizerDecoderOutput:
        """Decode a list of (num_quantizers, frames) of unequal lengths; see `decode`.

        Args:
            codes_list: one item a row.
            num_quantizers: use only the first so many of the layers given.
            chunk_duration: see `decode`.
            deterministic: see `decode`.
            streaming: go on where the last such call ended: row i is the same stream again. More
                rows than before admit streams at the tail; codes of 0 frames pause a row.
            max_batch_size: rows to make room for; counts in the first call (default: its rows).
            finalize_indices: rows that end with this call and then leave; the others keep their
                order.
            reset_stream: drop the streams of earlier calls first.

        Raises:
            CodesError, InputError: see each message; the streams are then as they were.
        """
        config = self.config.codec
        items = require_list(codes_list, "codes", "decode")
        slots = (max_batch_size, finalize_indices, reset_stream)
        if streaming:
            frames_of_duration(chunk_duration, config)
            return self._continue_decode(items, num_quantizers, *slots)
        self._batches.refuse("decode", *slots)
        rows = [_single(as_code_rows(codes, config).movedim(1, 0)) for codes in items]
        depths = sorted({len(row) for row in rows})
        if num_quantizers is None and len(depths) > 1:
            raise CodesError(
                f"rows have {depths} layers; pass num_quantizers={depths[0]} or equal depths"
            )
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
        layers = check_num_quantizers(num_quantizers, config)
        shallowest = min(len(row) for row in rows)
        if num_quantizers is not None and layers > shallowest:
            raise CodesError(f"num_quantizers is {layers}, but the codes have {shallowest} layers")
        if min(row.shape[1] for row in rows) == 0:
            raise CodesError("a row of codes has no frames; expected at least one")
        chunk = frames_of_duration(chunk_duration, config)
        rows = [row[:layers].to(self.device) for row in rows]
        alone = self._alone(deterministic)
        clips = list(decode_rows(self._decoder_half(), rows, chunk, alone))
        lengths = [clip.shape[1] for clip in clips]
        output = MossAudioTokenizerDecoderOutput(
            audio=pad_rows(clips), audio_lengths=torch.tensor(lengths, device=self.device)
        )
        return _returned(output, return_dict)

    # Both

    def forward(
        self,
        input_values: Tensor | np.ndarray | None = None,
        padding_mask: Tensor | np.ndarray | None = None,
        audio_codes: Tensor | np.ndarray | None = None,
        num_quantizers: int | None = None,
        return_dict: bool | None = None,
    ) -> MossAudioTokenizerOutput:
        """Audio through codes and back; with ``audio_codes``, only back.

        The audio comes out at the input's lengths. ``padding_mask`` is that of what is given:
        samples of ``input_values``, or frames of ``audio_codes``. Without gradients: training
        works on ``model.codec``.
        """
        if audio_codes is not None:
            decoded = self.decode(audio_codes, padding_mask, num_quantizers=num_quantizers)
            codes = as_code_rows(audio_codes, self.config.codec)[:num_quantizers]
            frames = decoded.audio_lengths // self.config.codec.downsample_rate
            output = MossAudioTokenizerOutput(decoded.audio, decoded.audio_lengths, codes, frames)
            return _returned(output, return_dict)
        if input_values is None:
            raise InputError("got neither input_values nor audio_codes; pass one of them")
        return _returned(self._round_trip(input_values, padding_mask, num_quantizers), return_dict)

    def _round_trip(
        self, input_values: Any, padding_mask: Any, num_quantizers: int | None
    ) -> MossAudioTokenizerOutput:
        rows = as_waveform_rows(input_values, self.config.codec.number_channels)
        lengths = lengths_of(padding_mask, rows.shape[0], rows.shape[2], "samples")
        encoded = self.encode(rows, padding_mask, num_quantizers)
        counts = [int(count) for count in encoded.audio_codes_lengths]
        decoded = self.batch_decode(
            [encoded.audio_codes[:, row, :count] for row, count in enumerate(counts)]
        )
        clips = [clip[:, :length] for clip, length in zip(decoded.audio, lengths, strict=True)]
        return MossAudioTokenizerOutput(
            audio=pad_rows(clips),
            audio_lengths=torch.tensor(lengths, device=self.device),
            audio_codes=encoded.audio_codes,
            audio_codes_lengths=encoded.audio_codes_lengths,
        )

    # Loading and saving

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: MossAudioTokenizerConfig | None = None,
        parts: str = "all",
        device_map: str | torch.device | None = None,
        **options: Any,
    ) -> "MossAudioTokenizerModel":
        """Load a checkpoint: a folder, a hub id, or "bundled" (the model in the package).

        Both released layouts, sharded or not. Weights are held in float32.

        Args:
            pretrained_model_name_or_path: where it is.
            config: overrides only how to compute (attention, compute dtype).
            parts: "encoder" or "decoder" loads that half and the quantizer.
            device_map: a device to move to.
            **options: options of the hub (revision, cache_dir, ...).

        Raises:
            CheckpointError: nothing is there, or tensors are missing, extra or misshapen.
            ConfigError: the configuration is not one of a released kind.
        """
        unknown = sorted(set(options) - {*_HUB_OPTIONS, *_IGNORED_OPTIONS, "dtype", "torch_dtype"})
        if unknown:
            raise ConfigError(f"from_pretrained got unknown options {unknown}")
        hub = {key: options[key] for key in _HUB_OPTIONS if options.get(key) is not None}
        if config is not None and not isinstance(config, MossAudioTokenizerConfig):
            raise ConfigError(
                f"config is {type(config).__name__}; expected MossAudioTokenizerConfig"
            )
        device = None if device_map is None else require_device(device_map)
        with Checkpoint(find_checkpoint(pretrained_model_name_or_path, hub)) as checkpoint:
            codec = load_codec(checkpoint, parts)
            settings = checkpoint.released if config is None else config.to_dict()
        model: Any = cls._around(codec, settings)
        model.config._name_or_path = str(pretrained_model_name_or_path)
        return model if device is None else model.to(device)

    @classmethod
    def _around(cls, codec: Codec, settings: dict[str, Any]) -> "MossAudioTokenizerModel":
        """A model that wraps a loaded codec, without drawing weights first."""
        known = MossAudioTokenizerConfig(**_plain_settings(settings))
        config = MossAudioTokenizerConfig.from_codec_config(
            codec.config,
            attention_implementation=known.attention_implementation,
            compute_dtype=known.compute_dtype,
        )
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
        weight_dtype: str = "fp32",
        **_: Any,
    ) -> None:
        """Write config.json and safetensors weights with the names of a released layout.

        Args:
            save_directory: a folder; made if missing.
            layout: "v1" or "v2" (default: v1 if code for released v1 models can read it, else
                v2). A model whose stages project between equal dimensions (the v2 family) can
                be written as v1 too, but other engines' v1 code does not expect those tensors.
                Written as v2, a v1 model gets identity projections there.
            max_shard_size: larger checkpoints are split into shards with an index.
            weight_dtype: "fp32", or "bf16" / "fp16" for half the size: encoder and decoder are
                rounded, the quantizer is not.

        Raises:
            ConfigError: no such layout or dtype, the layout cannot describe the model, or only
                its encoder or its decoder is loaded.
        """
        if self.codec.encoder is None or self.codec.decoder is None:
            raise ConfigError("only half of the model is loaded; load parts='all' to save it")
        folder = Path(save_directory)
        dtype = require_dtype(weight_dtype)
        settings = {
            "attention_implementation": self.config.attention_implementation,
            "compute_dtype": self.config.compute_dtype,
            "codec_weight_dtype": weight_dtype,
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_codec(self.codec, folder, layout, dtype, max_shard_size, settings)
        except OSError as error:
            raise CheckpointError(f"cannot write to {folder}: {error}") from error


def _single(rows: Tensor) -> Tensor:
    """The only row of a batch of one."""
    if len(rows) != 1:
        raise InputError(f"each item of a list is one clip; got a batch of {len(rows)}")
    return rows[0]


def _returned(output: ModelOutput, return_dict: bool | None) -> Any:
    return output.to_tuple() if return_dict is False else output


def _plain_settings(released: dict[str, Any]) -> dict[str, Any]:
    """How to compute, from a config.json that may carry keys of other programs."""
    names = (
        ("attention_implementation", "attention_backend"),
        ("compute_dtype", "codec_compute_dtype"),
    )
    settings = {}
    for name, alias in names:
        value = released.get(name) or released.get(alias)
        if value is not None:
            settings[name] = str(value)
    return settings
