"""An encoder graph and a decoder graph for whole clips, from any public repository of this codec.

Owns the verbs of the class `OnnxAudioTokenizer` of OpenMOSS/MOSS-Audio-Tokenizer (read at commit
56df9ee, May 2026): codes of one clip are (frames, num_quantizers), audio is (samples,). What the
graphs take and give is read from the graphs; no onnx.json is needed. A folder that
`moss-audio export onnx` wrote has step graphs too, and then chunks carry their state.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..api.arrays import ARRAYS
from ..api.validation import require_count
from ..errors import AudioError, CheckpointError, CodesError
from .engines import OnnxDecoderEngine, open_step_graph
from .folder import OnnxFolder
from .manifest import CONFIG_NAME, MANIFEST_NAME
from .runtime import Runtime

_NUMBERS = {"tensor(int32)": np.int32, "tensor(int64)": np.int64}


class GraphPair:
    """Audio to codes and back, one clip at a time.

    Args:
        encoder_path: the encoder's graph.
        decoder_path: the decoder's graph.
        n_quantizers: layers of codes (default: all that the encoder gives).
        use_gpu: prefer a GPU where onnxruntime has one.

    Attributes:
        n_quantizers: layers of codes.
        sample_rate: samples a second, as config.json beside the encoder has it, else 24000.
        downsample_rate: samples of a frame.

    Raises:
        CheckpointError: a graph is missing, or is not one of this codec.
    """

    def __init__(
        self,
        encoder_path: str | Path,
        decoder_path: str | Path,
        n_quantizers: int | None = None,
        use_gpu: bool = True,
    ) -> None:
        runtime = Runtime(_device(use_gpu))
        self._folder = Path(decoder_path).parent
        self._runtime = runtime
        self._encoder = _session(runtime, Path(encoder_path), "input_values")
        self._decoder = _session(runtime, Path(decoder_path), "audio_codes")
        layers = self._encoder.get_outputs()[0].shape[0]
        self._layers = layers if isinstance(layers, int) else None
        self.n_quantizers = n_quantizers or self._layers or 32
        self.sample_rate = _sampling_rate(Path(encoder_path).parent)
        self.downsample_rate = self._run_decoder(np.zeros((self.n_quantizers, 1, 1))).shape[-1]

    def encode(
        self, waveform: Float[np.ndarray, "*shape"], n_quantizers: int | None = None
    ) -> Int[np.ndarray, "frames num_quantizers"]:
        """Codes (int64) of a clip: (samples,), (channels, samples) or (1, channels, samples).

        Raises:
            AudioError: the shape is another one, or the samples are not finite floats.
        """
        audio = np.asarray(waveform, np.float32)
        audio = audio.reshape((1,) * (3 - audio.ndim) + audio.shape) if audio.ndim < 3 else audio
        if audio.ndim != 3 or len(audio) != 1:
            raise AudioError(
                f"audio has shape {list(np.shape(waveform))}; expected one clip: (samples,) or "
                "(channels, samples)"
            )
        ARRAYS.check_clip(audio[0])
        missing = -audio.shape[2] % self.downsample_rate
        audio = np.pad(audio, ((0, 0), (0, 0), (0, missing)))
        wanted = n_quantizers or self.n_quantizers
        found = self._encoder.run(None, self._feeds(self._encoder, audio, wanted))
        frames = int(found[1][0]) if len(found) > 1 else found[0].shape[2]
        return found[0][:wanted, 0, :frames].T.astype(np.int64)

    def decode(
        self, audio_codes: Int[np.ndarray, "*shape"], n_quantizers: int | None = None
    ) -> Float[np.ndarray, "*channels samples"]:
        """Audio (samples,) of codes; of stereo (channels, samples).

        Args:
            audio_codes: (frames, num_quantizers), (num_quantizers, frames), or
                (num_quantizers, 1, frames).
            n_quantizers: use only the first so many layers.

        Raises:
            CodesError: the shape is another one.
        """
        return self._run_decoder(self._rows(audio_codes), n_quantizers)

    def decode_chunked(
        self, audio_codes: Int[np.ndarray, "*shape"], chunk_size: int = 200
    ) -> Float[np.ndarray, "*channels samples"]:
        """Audio of codes, computed in chunks of so many frames; the result is that of `decode`.

        Chunks carry the decoder's state, for which the folder must have the step graphs that
        `moss-audio export onnx` writes. Without them everything is decoded at once.
        """
        codes = self._rows(audio_codes)
        if not (self._folder / MANIFEST_NAME).is_file():
            return self._run_decoder(codes)
        size = require_count(chunk_size, "chunk_size")
        graph = open_step_graph(OnnxFolder(self._folder), self._runtime, "decoder")
        engine = OnnxDecoderEngine(graph, 1, size)
        row = engine.check(codes[:, 0])
        starts = range(0, row.shape[1], size)
        chunks = [engine.step({0: row[:, at : at + size]})[0] for at in starts]
        return _without_channel(np.concatenate(chunks, axis=-1))

    def _rows(self, audio_codes: Any) -> np.ndarray:
        """Codes as (num_quantizers, 1, frames)."""
        codes = np.asarray(audio_codes)
        if codes.dtype.kind not in "iu" or codes.ndim not in (2, 3) or not codes.size:
            raise CodesError(
                f"codes are {codes.dtype} of shape {list(codes.shape)}; expected integers of shape "
                "(frames, num_quantizers) or (num_quantizers, 1, frames)"
            )
        if codes.ndim == 2:
            time_first = codes.shape[1] == self.n_quantizers != codes.shape[0]
            codes = codes.T[:, None] if time_first else codes[:, None]
        if codes.shape[0] == 1 and codes.shape[1] > 1:
            warnings.warn(
                f"codes of shape {list(codes.shape)} are one layer of {codes.shape[1]} clips; one "
                f"clip of {codes.shape[1]} layers has the shape ({codes.shape[1]}, 1, frames)",
                stacklevel=3,
            )
        if codes.shape[1] != 1:
            raise CodesError(
                f"codes have shape {list(codes.shape)}, a batch of {codes.shape[1]} clips; "
                "expected one clip: (num_quantizers, 1, frames)"
            )
        return codes

    def _run_decoder(self, codes: np.ndarray, n_quantizers: int | None = None) -> np.ndarray:
        wanted = n_quantizers or min(self.n_quantizers, len(codes))
        takes = self._decoder.get_inputs()
        codes = codes if len(takes) > 1 else codes[:wanted]
        codes = codes.astype(_NUMBERS[takes[0].type])
        found = self._decoder.run(None, self._feeds(self._decoder, codes, wanted))
        audio = found[0][0]
        return _without_channel(audio[..., : int(found[1][0])] if len(found) > 1 else audio)

    @staticmethod
    def _feeds(session: Any, first: np.ndarray, n_quantizers: int) -> dict[str, np.ndarray]:
        names = [value.name for value in session.get_inputs()]
        values = (first, np.array(n_quantizers, np.int64))
        return dict(zip(names, values, strict=False))


def _without_channel(audio: np.ndarray) -> np.ndarray:
    """Mono audio without its axis of channels."""
    return audio[0] if audio.ndim == 2 and len(audio) == 1 else audio


def _device(use_gpu: bool) -> str:
    import onnxruntime

    there = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    return "cuda" if use_gpu and there else "cpu"


def _session(runtime: Runtime, path: Path, first: str) -> Any:
    if not path.is_file():
        raise CheckpointError(f"there is no graph {path}; expected encoder.onnx and decoder.onnx")
    session = runtime.session(path)
    names = [value.name for value in session.get_inputs()]
    if names[:1] != [first] or len(names) > 2:
        raise CheckpointError(
            f"{path} takes {', '.join(names)}; expected {first} and perhaps n_quantizers, as a "
            "graph for whole clips does"
        )
    return session


def _sampling_rate(folder: Path) -> int:
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        return int(config.get("sampling_rate") or config["sample_rate"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 24_000
