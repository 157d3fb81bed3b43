"""`AudioCodes`, the container that users hold: codes of one clip that can be saved and loaded."""

from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np

from ..errors import CodesError
from .clip_codes import ClipCodes, require_integer
from .codec import CodecInfo
from .formats import load_codes, save_codes


class AudioCodes(ClipCodes):
    """Codes of one clip, with their files.

    ``AudioCodes(codes, sampling_rate, num_samples, downsample_rate=..., ...)``: see `ClipCodes`
    for every attribute.
    """

    def first(self, num_quantizers: int) -> "AudioCodes":
        """The same clip at a lower bitrate: its first ``num_quantizers`` layers.

        Raises:
            CodesError: there are fewer.
        """
        count = require_integer("num_quantizers", num_quantizers, 1, self.num_quantizers)
        return replace(self, codes=self.codes[:count])

    @classmethod
    def of_codec(cls, info: CodecInfo, codes: Any, num_samples: int) -> "AudioCodes":
        """Codes of one clip with all the facts of the codec that made them.

        Args:
            info: the codec's facts.
            codes: (num_quantizers, frames).
            num_samples: samples a channel of the original.

        Raises:
            CodesError: the parts do not fit together.
        """
        return cls(
            codes,
            info.sampling_rate,
            num_samples,
            downsample_rate=info.downsample_rate,
            num_channels=info.num_channels,
            codebook_size=info.codebook_size,
            model=info.identity,
        )

    @classmethod
    def from_batch_first(
        cls, codes: Any, sampling_rate: int, num_samples: int, **rest: Any
    ) -> "AudioCodes":
        """Codes of one clip in the axis order (1, num_quantizers, frames) of other programs.

        Args:
            codes: a batch of one, batch first, as transformers' own audio codecs return it.
            sampling_rate: samples a second and channel of the audio.
            num_samples: samples a channel of the original.
            **rest: the other attributes of `ClipCodes`.

        Raises:
            CodesError: it is not a batch of one, or the parts do not fit together.
        """
        array = np.asarray(codes)
        if array.ndim != 3 or len(array) != 1:
            raise CodesError(
                f"codes have shape {list(array.shape)}; expected (1, num_quantizers, frames): pass "
                "each clip of a batch by itself, codes[i : i + 1]"
            )
        return cls(array[0], sampling_rate, num_samples, **rest)

    def save(self, path: str | PathLike[str]) -> None:
        """Write to .moss, .safetensors or .npz, by the extension; whole or not at all.

        Raises:
            CodesError: the array was changed since and is no longer valid.
            CodesFileError: the extension is unknown, or the place cannot be written to.
        """
        save_codes(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "AudioCodes":
        """Read .moss, .safetensors or .npz.

        Raises:
            CodesFileError: missing, truncated, altered, or of another format.
        """
        loaded = load_codes(path)
        return cls(loaded.codes, **loaded.metadata)
