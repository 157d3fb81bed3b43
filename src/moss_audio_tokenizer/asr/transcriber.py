"""From sound to text: a CAT-ASR model with the codec whose codes it reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from ..audio import check_audio, convert_channels, resample
from ..codes.codec import Codec
from ..hf.torch_codec import TorchCodec
from ..llm.folder import check_codec
from ..model.devices import require_device
from .model import CatAsr

# Clips of about one length are read together; so many at once.
_BATCH = 16


class Transcriber:
    """Reads recordings, or codes.

    Args:
        model: CAT-ASR.
        codec: the one it was trained on.

    Raises:
        ModelMismatchError: the model reads the codes of another codec.
    """

    def __init__(self, model: CatAsr, codec: Codec) -> None:
        self.model, self.codec = model, codec
        check_codec(model.config, codec.info)

    @classmethod
    def from_pretrained(
        cls, path: str | Path, codec: str | Path | Codec = "bundled", device: str = "cpu"
    ) -> "Transcriber":
        """Load a model folder, and a codec by folder, hub id or "bundled".

        Raises:
            CheckpointError: one of them is not there or damaged.
            ModelMismatchError: they do not belong together.
        """
        model: Any = CatAsr.from_pretrained(path)
        if isinstance(codec, str | Path):
            codec = TorchCodec.from_pretrained(codec, parts="encoder", device=device)
        return cls(model.to(require_device(device)), codec)

    def transcribe(
        self,
        clips: Sequence[tuple[Float[np.ndarray, "..."], int]],
        num_quantizers: int | None = None,
        num_beams: int = 1,
    ) -> list[str]:
        """What is said in recordings.

        Args:
            clips: (samples, sampling rate) of each.
            num_quantizers: layers of codes to look at (default: all).
            num_beams: 1 decodes greedily, 0 reads by the frames alone.

        Raises:
            AudioError: samples that cannot be encoded.
            CodesError, InputError: see `CatAsr.transcribe_codes`.
        """
        codes = [self.encode(samples, rate, num_quantizers) for samples, rate in clips]
        return self.transcribe_codes(codes, num_quantizers, num_beams)

    def encode(
        self, samples: Float[np.ndarray, "..."], sampling_rate: int, num_quantizers: int | None
    ) -> Integer[np.ndarray, "num_quantizers frames"]:
        """Codes of one recording, of any rate and channels."""
        info = self.codec.info
        audio = resample(check_audio(samples), sampling_rate, info.sampling_rate)
        fitting = convert_channels(audio, info.num_channels)
        return self.codec.encode(fitting, num_quantizers=num_quantizers)

    def transcribe_codes(
        self,
        clips: Sequence[Integer[np.ndarray, "num_quantizers _"]],
        num_quantizers: int | None = None,
        num_beams: int = 1,
    ) -> list[str]:
        """What is said in clips of codes; those of like lengths are read together."""
        clips = [np.asarray(clip) for clip in clips]
        order = sorted(range(len(clips)), key=lambda index: clips[index].shape[-1])
        texts = [""] * len(clips)
        for first in range(0, len(order), _BATCH):
            own = order[first : first + _BATCH]
            batch = [clips[index] for index in own]
            read = self.model.transcribe_codes(batch, num_quantizers, num_beams)
            for index, text in zip(own, read, strict=True):
                texts[index] = text
        return texts
