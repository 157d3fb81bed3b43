"""An exported model behind the protocol `codes.StreamingCodec`.

Apart from `tokenizer`, so that programs import one light name for each runtime.
"""

from pathlib import Path

from ..api.array_codec import ArrayCodec
from .tokenizer import OnnxAudioTokenizer


class OnnxCodec(ArrayCodec):
    """`codes.StreamingCodec` on an `OnnxAudioTokenizer`."""

    @classmethod
    def from_pretrained(
        cls, path: str | Path, device: str = "cpu", num_threads: int | None = None
    ) -> "OnnxCodec":
        """Load an exported folder, or "bundled".

        Args:
            path: where the model is.
            device: "cpu", "cuda", "cuda:1" or "tensorrt".
            num_threads: to compute with on a CPU (default: OMP_NUM_THREADS, or one a core).

        Raises:
            CheckpointError, ConfigError: the model cannot be loaded, or there is no such device.
        """
        return cls(OnnxAudioTokenizer.from_pretrained(path, device, num_threads))
