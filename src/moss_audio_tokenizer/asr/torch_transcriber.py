"""The transcriber of `speech` with a CatAsr of PyTorch."""

from pathlib import Path
from typing import Any

from ..codes.codec import Codec
from ..hf.torch_codec import TorchCodec
from ..model.inputs import require_device
from ..speech.transcriber import Transcriber as SpeechTranscriber
from .cat_asr import CatAsr


class Transcriber(SpeechTranscriber):
    """A `speech.transcriber.Transcriber` that loads models of PyTorch."""

    @classmethod
    def from_pretrained(
        cls, path: str | Path, codec: str | Path | Codec = "bundled", device: str = "cpu"
    ) -> "Transcriber":
        """Load a model folder, and a codec by folder, hub id or "bundled".

        Raises:
            CheckpointError: one of them is missing or damaged.
            ModelMismatchError: the model was trained on another codec.
        """
        model: Any = CatAsr.from_pretrained(path)
        if isinstance(codec, str | Path):
            codec = TorchCodec.from_pretrained(codec, parts="encoder", device=device)
        return cls(model.to(require_device(device)), codec)
