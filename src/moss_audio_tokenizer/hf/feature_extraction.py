"""Audio in the manner of transformers' feature extractors: padded rows and their mask.

Owns what `AutoFeatureExtractor` loads for this codec. `export.remote_code` copies this module
into repositories, so it imports nothing that cannot be copied along.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor

from ..errors import InputError


class MossAudioTokenizerFeatureExtractor(SequenceFeatureExtractor):
    """Raw audio as `MossAudioTokenizerModel.encode` takes it.

    Args:
        feature_size: channels of the model's audio.
        sampling_rate: samples a second and channel of the model's audio.
        padding_value: what stands after the end of a clip.
        hop_length: rows are padded to a multiple of this, the samples of one frame of codes.
        **kwargs: settings that every feature extractor of transformers has.
    """

    model_input_names = ["input_values", "padding_mask"]  # noqa: RUF012 (as transformers has it)

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 24_000,
        padding_value: float = 0.0,
        hop_length: int = 1920,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)
        self.hop_length = hop_length

    def __call__(
        self,
        raw_audio: Any,
        padding: bool | str = True,
        truncation: bool = False,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        sampling_rate: int | None = None,
    ) -> BatchFeature:
        """Pad clips to one length.

        Args:
            raw_audio: floats within +-1: one clip of shape (samples,) for mono or
                (channels, samples), or a list of clips.
            padding: True or "longest" for the longest clip, "max_length" for ``max_length``
                samples, False for clips that have one length already.
            truncation: cut clips to ``max_length`` samples.
            max_length: samples, for the two options above.
            pad_to_multiple_of: samples; ``hop_length`` by default.
            return_tensors: "pt" or "np" for the type of the arrays; lists by default.
            sampling_rate: the rate of ``raw_audio``, to be checked against the model's.

        Returns:
            ``input_values`` (batch, channels, samples) and ``padding_mask`` (batch, samples),
            1 for samples of a clip and 0 for padding.

        Raises:
            InputError: the rate, the shape or the type is another one, or options contradict.
        """
        if sampling_rate not in (None, self.sampling_rate):
            raise InputError(
                f"the audio has {sampling_rate} samples a second, but the model takes "
                f"{self.sampling_rate}; resample it first"
            )
        clips = [self._clip(clip) for clip in _clips(raw_audio, self.feature_size)]
        if truncation:
            clips = [clip[:, : _required(max_length)] for clip in clips]
        length = self._length(clips, padding, max_length, pad_to_multiple_of or self.hop_length)
        lengths = np.array([clip.shape[1] for clip in clips])
        if (lengths > length).any() or (not padding and (lengths != length).any()):
            raise InputError(
                f"the clips have {lengths.tolist()} samples, which is not one length of {length}; "
                "pad them, or cut them with truncation=True"
            )
        rows = [
            np.pad(clip, ((0, 0), (0, length - clip.shape[1])), constant_values=self.padding_value)
            for clip in clips
        ]
        mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
        values = {"input_values": np.stack(rows), "padding_mask": mask}
        return BatchFeature(values, tensor_type=return_tensors)

    def _length(
        self, clips: list[np.ndarray], padding: bool | str, max_length: int | None, unit: int
    ) -> int:
        """Samples of every row."""
        if padding not in (True, False, "longest", "max_length", "do_not_pad"):
            raise InputError(
                f"padding is {padding!r}; expected True, False, 'longest' or 'max_length'"
            )
        if padding in (False, "do_not_pad"):
            return clips[0].shape[1]
        longest = max(clip.shape[1] for clip in clips)
        samples = _required(max_length) if padding == "max_length" else longest
        return -(-samples // unit) * unit

    def _clip(self, clip: Any) -> np.ndarray:
        """A clip as float32 (channels, samples)."""
        values = np.asarray(clip)
        rows = values[None] if values.ndim == 1 and self.feature_size == 1 else values
        if values.dtype.kind != "f" or rows.ndim != 2 or len(rows) != self.feature_size:
            raise InputError(
                f"a clip is {values.dtype} of shape {list(values.shape)}; expected floats of shape "
                f"({self.feature_size}, samples){' or (samples,)' * (self.feature_size == 1)}"
            )
        if not rows.size:
            raise InputError("a clip has no samples; expected at least one")
        return rows.astype(np.float32)


def _clips(audio: Any, channels: int) -> Sequence[Any]:
    """A list of clips from one clip or several."""
    if isinstance(audio, list | tuple):
        first = audio[0] if audio else None
        if first is None:
            raise InputError("there is no clip; expected at least one")
        return [np.array(audio, np.float32)] if isinstance(first, float | int) else audio
    values = np.asarray(audio)
    return list(values) if values.ndim == (2 if channels == 1 else 3) else [values]


def _required(max_length: int | None) -> int:
    if max_length is None or max_length < 1:
        raise InputError(f"max_length is {max_length}; expected a number of samples above 0")
    return max_length
