"""The model class of a repository that transformers loads with ``trust_remote_code=True``.

Owns the methods encode, decode, batch_encode, batch_decode and from_pretrained of that class,
around the reference codec in `model/`. `export.remote_code` copies this module and the reference
into the repository, so it imports nothing that cannot be copied along. Streaming and prepared
weights are not part of it: install moss-audio-tokenizer for those.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from ..checkpoint.key_names import canonical_name, equal_projections, released_slots
from ..config import codec_config_from_released
from ..errors import CheckpointError, CodesError, ConfigError, InputError
from ..hf.configuration import MossAudioTokenizerConfig
from ..hf.model_outputs import (
    MossAudioTokenizerDecoderOutput,
    MossAudioTokenizerEncoderOutput,
    MossAudioTokenizerOutput,
)
from ..model.codec import Codec

_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token")


class MossAudioTokenizerModel(PreTrainedModel):
    """Audio to discrete codes and back, for whole clips."""

    config_class = MossAudioTokenizerConfig
    base_model_prefix = "codec"
    main_input_name = "input_values"

    def __init__(self, config: MossAudioTokenizerConfig) -> None:
        super().__init__(config)
        # From plain values: transformers may load the configuration's module a second time, and
        # its classes are then not the ones that this module compares with.
        self.codec = Codec(codec_config_from_released(config.to_dict(), config.always_project))

    @property
    def sampling_rate(self) -> int:
        """Samples a second of the audio that goes in and comes out."""
        return int(self.config.sampling_rate)

    @property
    def downsample_rate(self) -> int:
        """Samples of a channel that make a frame of codes."""
        return int(self.config.downsample_rate)

    @torch.no_grad()
    def encode(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        num_quantizers: int | None = None,
        return_dict: bool | None = None,
        chunk_duration: float | None = None,
    ) -> Any:
        """Encode a batch of clips.

        Args:
            input_values: samples of shape (samples,), (batch, samples) or
                (batch, channels, samples).
            padding_mask: 1 for samples of a clip, 0 for padding at its end: (batch, samples).
            num_quantizers: how many layers of codes are wanted; all by default.
            return_dict: False for the tuple (audio_codes, audio_codes_lengths).
            chunk_duration: accepted and without effect: clips are encoded in one pass, and the
                codes do not depend on chunks.

        Returns:
            codes of shape (num_quantizers, batch, frames), 0 past the end of a clip.

        Raises:
            InputError: the samples have another shape or type.
        """
        del chunk_duration
        audio, lengths = self._audio(input_values, padding_mask)
        hidden = self.codec.require_encoder()(audio)
        codes = self.codec.quantizer.encode(hidden, self._layers(num_quantizers))
        frames = -(-lengths // self.downsample_rate)
        valid = _mask(frames, codes.shape[-1])
        output = MossAudioTokenizerEncoderOutput(
            audio_codes=codes * valid,
            audio_codes_lengths=frames,
            encoder_hidden_states=(hidden * valid[..., None]).transpose(1, 2),
        )
        return output if self._wants_dict(return_dict) else (codes * valid, frames)

    @torch.no_grad()
    def decode(
        self,
        audio_codes: Tensor,
        padding_mask: Tensor | None = None,
        return_dict: bool | None = None,
        chunk_duration: float | None = None,
        num_quantizers: int | None = None,
    ) -> Any:
        """Decode a batch of codes.

        Args:
            audio_codes: integers of shape (num_quantizers, batch, frames), or
                (num_quantizers, frames) for one clip.
            padding_mask: 1 for frames of a clip, 0 for padding at its end: (batch, frames).
            return_dict: False for the tuple (audio,).
            chunk_duration: accepted and without effect, as in `encode`.
            num_quantizers: use only the first layers.

        Returns:
            audio of shape (batch, channels, samples), 0 past the end of a clip.

        Raises:
            CodesError: the codes have another shape, or values that are in no codebook.
        """
        del chunk_duration
        codes = self._codes(audio_codes)[: self._layers(num_quantizers)]
        frames = _lengths(padding_mask, codes.shape[1], codes.shape[2], codes.device)
        audio = self.codec.require_decoder()(self.codec.quantizer.decode(codes))
        lengths = frames * self.downsample_rate
        audio = (audio * _mask(lengths, audio.shape[-1])[:, None]).contiguous()
        output = MossAudioTokenizerDecoderOutput(audio=audio, audio_lengths=lengths)
        return output if self._wants_dict(return_dict) else (audio,)

    def batch_encode(self, wav_list: Sequence[Tensor], num_quantizers: int | None = None) -> Any:
        """Encode clips of different lengths, each of shape (samples,) or (channels, samples)."""
        channels = self.config.number_channels
        rows = [torch.as_tensor(wav).reshape(channels, -1).T for wav in wav_list]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).transpose(1, 2)
        mask = _mask(torch.tensor([len(row) for row in rows]), padded.shape[-1])
        return self.encode(padded, mask, num_quantizers, return_dict=True)

    def batch_decode(self, codes_list: Sequence[Tensor], num_quantizers: int | None = None) -> Any:
        """Decode clips of different lengths, each of shape (num_quantizers, frames)."""
        rows = [torch.as_tensor(codes).T for codes in codes_list]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).permute(2, 0, 1)
        mask = _mask(torch.tensor([len(row) for row in rows]), padded.shape[-1])
        return self.decode(padded, mask, return_dict=True, num_quantizers=num_quantizers)

    def forward(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        num_quantizers: int | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Encode and decode; as a tuple (audio_codes, audio, audio_lengths)."""
        encoded = self.encode(input_values, padding_mask, num_quantizers, return_dict=True)
        frames = encoded.audio_codes_lengths
        mask = _mask(frames, encoded.audio_codes.shape[-1])
        decoded = self.decode(encoded.audio_codes, mask, return_dict=True)
        output = MossAudioTokenizerOutput(
            audio=decoded.audio,
            audio_lengths=decoded.audio_lengths,
            audio_codes=encoded.audio_codes,
            audio_codes_lengths=frames,
        )
        if self._wants_dict(return_dict):
            return output
        return output.audio_codes, output.audio, output.audio_lengths

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *_: Any,
        config: MossAudioTokenizerConfig | None = None,
        device_map: Any = None,
        **options: Any,
    ) -> "MossAudioTokenizerModel":
        """Load config.json and safetensors weights from a folder or the hub, in float32.

        Raises:
            ConfigError: another weight type is asked for; the quantizer needs float32.
            CheckpointError: weights are missing or do not fit the configuration.
        """
        for name in ("dtype", "torch_dtype"):
            if options.get(name) not in (None, "auto", torch.float32, "float32"):
                raise ConfigError(f"{name} is {options[name]}; this model is loaded in float32")
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            hub = {key: options[key] for key in _HUB_OPTIONS if options.get(key) is not None}
            folder = Path(snapshot_download(str(pretrained_model_name_or_path), **hub))
        if config is None:
            config = MossAudioTokenizerConfig.from_pretrained(folder)
        with torch.device("meta"):
            model: Any = cls(config)
        model.codec.load_state_dict(_state(model.codec, folder), assign=True)
        model.requires_grad_(requires_grad=True).eval()
        return model if device_map in (None, "auto") else model.to(device_map)

    def _wants_dict(self, return_dict: bool | None) -> bool:
        return bool(self.config.return_dict if return_dict is None else return_dict)

    def _layers(self, num_quantizers: int | None) -> int:
        most = self.codec.config.quantizer.num_quantizers
        layers = most if num_quantizers is None else num_quantizers
        if not 1 <= layers <= most:
            raise CodesError(f"num_quantizers is {layers}; expected 1 to {most}")
        return layers

    def _audio(self, values: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Samples as (batch, channels, samples), zero-padded to whole frames, and lengths."""
        channels = self.config.number_channels
        values = torch.as_tensor(values, device=self.device)
        if values.ndim < 3 and channels == 1:
            values = values.reshape(-1, 1, values.shape[-1])
        if values.ndim != 3 or values.shape[1] != channels or not values.is_floating_point():
            raise InputError(
                f"input_values are {values.dtype} of shape {list(values.shape)}; expected floats "
                f"of shape (batch, {channels}, samples)"
            )
        batch, _, samples = values.shape
        lengths = _lengths(padding_mask, batch, samples, self.device)
        values = values.float() * _mask(lengths, samples)[:, None]
        return torch.nn.functional.pad(values, (0, -samples % self.downsample_rate)), lengths

    def _codes(self, codes: Tensor) -> Tensor:
        """Checked codes of shape (num_quantizers, batch, frames)."""
        codes = torch.as_tensor(codes, device=self.device)
        codes = codes[:, None] if codes.ndim == 2 else codes
        size = self.codec.config.quantizer.codebook_size
        whole = not codes.is_floating_point() and codes.dtype != torch.bool
        if codes.ndim != 3 or not whole or not 1 <= len(codes) <= self._layers(None):
            raise CodesError(
                f"audio_codes are {codes.dtype} of shape {list(codes.shape)}; expected integers "
                f"of shape (num_quantizers, batch, frames)"
            )
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < size:
            raise CodesError(f"audio_codes are not all in 0 to {size - 1}")
        return codes.long()


def _mask(lengths: Tensor, steps: int) -> Tensor:
    """True for the steps before each row's length: (batch, steps)."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def _lengths(mask: Tensor | None, batch: int, steps: int, device: torch.device) -> Tensor:
    """The length of each row: all steps, or those that its mask marks."""
    if mask is None:
        return torch.full((batch,), steps, device=device)
    mask = torch.as_tensor(mask, device=device).bool()
    if mask.shape != (batch, steps):
        raise InputError(f"padding_mask is {list(mask.shape)}; expected [{batch}, {steps}]")
    lengths = mask.sum(-1)
    if not torch.equal(mask, _mask(lengths, steps)):
        raise InputError("padding_mask has gaps; expected ones for each clip, then zeros")
    return lengths


def _state(codec: Codec, folder: Path) -> dict[str, Tensor]:
    """The codec's parameters, read from the released names in ``folder``."""
    released: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        released.update({canonical_name(name): value for name, value in load_file(path).items()})
    state = codec.state_dict()
    rows: dict[str, list[Tensor]] = {name: [] for name in state}
    wanted = dict(released_slots(state, codec.config.quantizer.num_quantizers, "v1"))
    missing = sorted(set(wanted) - set(released))
    extra = sorted(set(released) - set(wanted) - set(equal_projections(codec.config)))
    if missing or extra:
        raise CheckpointError(f"{folder} lacks tensors {missing[:5]} or has others {extra[:5]}")
    for name, slot in wanted.items():
        rows[slot.parameter].append(released[name].float())
    return {name: torch.stack(values).reshape(state[name].shape) for name, values in rows.items()}
