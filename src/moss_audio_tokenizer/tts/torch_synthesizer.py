"""The synthesizer of `speech` with a CatTts of PyTorch."""

from pathlib import Path
from typing import Any

from ..codes import StreamingCodec
from ..hf.torch_codec import TorchCodec
from ..model.inputs import require_device
from ..speech.synthesizer import Synthesizer as SpeechSynthesizer
from .cat_tts import CatTts


class Synthesizer(SpeechSynthesizer):
    """A `speech.synthesizer.Synthesizer` that loads models of PyTorch."""

    @classmethod
    def from_pretrained(
        cls, path: str | Path, codec: str | Path | StreamingCodec = "bundled", device: str = "cpu"
    ) -> "Synthesizer":
        """Load a model folder, and a codec by folder, hub id or "bundled".

        Raises:
            CheckpointError: one of them is missing or damaged.
            ModelMismatchError: the model was trained on another codec.
        """
        model: Any = CatTts.from_pretrained(path)
        if isinstance(codec, str | Path):
            codec = TorchCodec.from_pretrained(codec, device=device)
        return cls(model.to(require_device(device)), codec)
