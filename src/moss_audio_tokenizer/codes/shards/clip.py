"""A clip of a shard: its codes and what its manifest said of it; and what all clips share.

Owns names and types of these; knows no file.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Integer

from ...errors import CodesFileError
from ..codec import CodecInfo
from ..container import AudioCodes

# Of every array of codes, inside shards and out.
AXIS_ORDER = ("num_quantizers", "frames")
TEXT_KEYS = ("name", "text", "task", "speaker", "language", "domain", "split", "extra")


@dataclass(frozen=True)
class CodedClip:
    """A clip.

    Attributes:
        codes: with rates, number of samples and identity of the model.
        name: what its data set calls it: a path, or a place in an archive.
        text: what is said or heard; empty where that is not known.
        task: what the text is: "asr", "ms_asr", "caption"; empty without a text.
        speaker: whose voice it is; empty where that is not known.
        language: empty where it is not known.
        domain: "speech", "sound", "music", ...
        split: "train", "valid", ...
        extra: whatever else its manifest had, as a JSON object; empty where that is nothing.
    """

    codes: AudioCodes
    name: str
    text: str = ""
    task: str = ""
    speaker: str = ""
    language: str = ""
    domain: str = "speech"
    split: str = "train"
    extra: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """Everything but the codes, as plain values."""
        sizes = {"num_samples": self.codes.num_samples, "num_frames": self.codes.num_frames}
        return {key: getattr(self, key) for key in TEXT_KEYS} | sizes


# The largest number that a shard's head may hold.
_MAX_NUMBER = 2**31 - 1


@dataclass(frozen=True)
class ShardHead:
    """What all clips of a shard share.

    Attributes:
        model: identity of the model (`CodecInfo.identity`).
        sampling_rate: samples a second and channel.
        num_channels: channels of the audio.
        downsample_rate: samples a frame and channel.
        num_quantizers: layers of codes in the shard, which may be fewer than the model has.
        codebook_size: entries of each codebook.
    """

    model: str
    sampling_rate: int
    num_channels: int
    downsample_rate: int
    num_quantizers: int
    codebook_size: int

    @classmethod
    def of(cls, info: CodecInfo, num_quantizers: int | None = None) -> "ShardHead":
        """The head of shards that a codec fills."""
        layers = num_quantizers or info.num_quantizers
        rates = (info.sampling_rate, info.num_channels, info.downsample_rate)
        return cls(info.identity, *rates, layers, info.codebook_size)

    @property
    def values(self) -> dict[str, Any]:
        """As plain values, with the order of axes."""
        return asdict(self) | {"axis_order": list(AXIS_ORDER)}

    @classmethod
    def from_values(cls, values: Any, where: str) -> "ShardHead":
        """The inverse of `values`.

        Raises:
            CodesFileError: they are those of another format.
        """
        try:
            found = dict(values)
            if tuple(found.pop("axis_order")) != AXIS_ORDER:
                raise ValueError(f"its axes are not {', '.join(AXIS_ORDER)}")
            head = cls(**found)
            head._check_values()
            return head
        except (TypeError, ValueError, KeyError) as error:
            raise CodesFileError(f"{where} does not describe codes ({error})") from error

    def _check_values(self) -> None:
        for name, value in asdict(self).items():
            if name == "model":
                if not isinstance(value, str):
                    raise ValueError("model is not a text")
            elif type(value) is not int or not 0 < value <= _MAX_NUMBER:
                raise ValueError(f"{name} is not a number from 1 to {_MAX_NUMBER}")

    def codes(
        self, codes: Integer[np.ndarray, "num_quantizers frames"], num_samples: int
    ) -> AudioCodes:
        """Codes of a clip with all that decoding them takes.

        Raises:
            CodesError: the parts do not fit together.
        """
        return AudioCodes(
            codes,
            self.sampling_rate,
            num_samples,
            downsample_rate=self.downsample_rate,
            num_channels=self.num_channels,
            codebook_size=self.codebook_size,
            model=self.model,
        )
