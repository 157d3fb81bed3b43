"""`OnnxAudioTokenizer`: the model's methods on exported graphs, with NumPy arrays.

Owns the public interface; arguments are checked in `api`, steps computed in `engines.py`.
Whole clips are worked through in chunks by the same steps as streams, one row after the other, so
that a row's codes depend on nothing else and memory does not grow with the clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..api.arrays import ARRAYS
from ..api.verbs import CodecVerbs
from ..codes.codec import ArrayCodec, CodecInfo, reported
from ..config import CodecConfig
from .engines import OnnxDecoderEngine, OnnxEncoderEngine, StepGraph, open_step_graph
from .folder import OnnxFolder, find_folder
from .manifest import CHUNK_FRAMES
from .runtime import Runtime


@dataclass(frozen=True)
class EncoderOutput:
    """What `encode` returns.

    Attributes:
        audio_codes: int64; past a row's length they are 0.
        audio_codes_lengths: frames of each row.
        encoder_hidden_states: what the quantizer was given; past a row's length 0. None of streams.
    """

    audio_codes: Int[np.ndarray, "num_quantizers batch frames"]
    audio_codes_lengths: Int[np.ndarray, "batch"]
    encoder_hidden_states: Float[np.ndarray, "batch width frames"] | None = None


@dataclass(frozen=True)
class DecoderOutput:
    """What `decode` returns.

    Attributes:
        audio: float32; past a row's length it is 0.
        audio_lengths: samples (a channel) of each row.
    """

    audio: Float[np.ndarray, "batch channels samples"]
    audio_lengths: Int[np.ndarray, "batch"]


class OnnxAudioTokenizer(CodecVerbs[EncoderOutput, DecoderOutput]):
    """Audio to discrete codes and back, without PyTorch.

    Sessions for the encoder and the decoder are made when first needed; any number of streams
    and threads share them.

    Args:
        folder: the exported model.
        runtime: where it runs.
    """

    _arrays = ARRAYS
    _encoder_output = EncoderOutput
    _decoder_output = DecoderOutput

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Paths of two graphs instead of a folder give a `GraphPair`, whose verbs are theirs."""
        if options.keys() & {"encoder_path", "decoder_path"} or isinstance(
            (*args, None)[0], str | Path
        ):
            from .graph_pair import GraphPair

            return GraphPair(*args, **options)
        return super().__new__(cls)

    def __init__(self, folder: OnnxFolder, runtime: Runtime) -> None:
        self.folder = folder
        self.lengths = "ceil"
        self._runtime = runtime
        self._drop_streams()

    def __reduce__(self) -> tuple[Any, ...]:
        """For copies and pickles: the folder is opened again, and streams stay behind."""
        again = partial(
            type(self).from_pretrained,
            device=self._runtime.device,
            num_threads=self._runtime.num_threads,
            lengths=self.lengths,
        )
        return again, (self.folder.path,)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: str = "cpu",
        num_threads: int | None = None,
        verify: bool = False,
        lengths: str = "ceil",
    ) -> "OnnxAudioTokenizer":
        """Load an exported folder, or "bundled" (the model in the package).

        Args:
            path: where it is.
            device: "cpu", "cuda", "cuda:1" or "tensorrt", as onnxruntime has it.
            num_threads: on a CPU (default: OMP_NUM_THREADS, or one a core).
            verify: compare hashes of weights over 256 MB too, not only their sizes.
            lengths: frames of a clip of n samples; see `set_lengths`.

        Raises:
            CheckpointError: no export is there, or its files are not as exported.
            ConfigError, InputError: the device or the threads.
            MissingDependencyError: onnxruntime is not installed.
        """
        folder = find_folder(path)
        folder.check_weights(verify)
        codec = cls(folder, Runtime(device, num_threads))
        codec.set_lengths(lengths)
        return codec

    @property
    def config(self) -> CodecConfig:
        """What the codec is built like."""
        return self.folder.config

    @property
    def info(self) -> CodecInfo:
        """What the codec is, as far as its codes are concerned."""
        return self.folder.info

    @property
    def sampling_rate(self) -> int:
        """Samples a second and channel."""
        return self.config.sampling_rate

    @property
    def identity(self) -> str:
        """16 hexadecimal digits, equal for models whose codes are interchangeable."""
        return self.folder.identity

    @cached_property
    def _encoder_steps(self) -> StepGraph:
        return open_step_graph(self.folder, self._runtime, "encoder")

    @cached_property
    def _decoder_steps(self) -> StepGraph:
        return open_step_graph(self.folder, self._runtime, "decoder")

    # What `CodecVerbs` asks of a runtime

    def _codec_config(self) -> CodecConfig:
        return self.folder.config

    def _returned(self, output: Any, return_dict: bool | None) -> Any:
        if return_dict is not False:
            return output
        if isinstance(output, DecoderOutput):
            return (output.audio,)
        return output.audio_codes, output.audio_codes_lengths

    def _run_encoder(
        self,
        clips: Sequence[np.ndarray],
        num_quantizers: int,
        chunk_frames: int | None,
        alone: bool,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        groups = [[clip] for clip in clips] if alone else [clips]
        return [
            row
            for group in groups
            for row in self._encode_group(group, num_quantizers, chunk_frames)
        ]

    def _encode_group(
        self, clips: Sequence[np.ndarray], num_quantizers: int, chunk_frames: int | None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Codes and hidden states (width, frames) of clips that are computed at once."""
        unit = self.config.downsample_rate
        frames = [-(-clip.shape[1] // unit) for clip in clips]
        chunks = _chunks(max(frames), chunk_frames)
        engine = self._encoder_engine(len(clips), chunks[0].stop, num_quantizers)
        found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in clips]
        for chunk in reported(chunks, max(frames)):
            parts = {}
            for row, clip in enumerate(clips):
                stop = min(chunk.stop, frames[row])
                if stop > chunk.start:
                    part = clip[:, chunk.start * unit : stop * unit]
                    parts[row] = engine.pad(part, (stop - chunk.start) * unit)
            for row, result in engine.step_with_hidden(parts).items():
                found[row].append(result)
        return [(_joined(row, 0), _joined(row, 1)) for row in found]

    def _run_decoder(
        self, rows: Sequence[np.ndarray], chunk_frames: int | None, alone: bool
    ) -> list[np.ndarray]:
        del alone  # rows are decoded one by one
        return [self._decode_row(codes, chunk_frames) for codes in rows]

    def _decode_row(self, codes: np.ndarray, chunk_frames: int | None) -> np.ndarray:
        """Audio (channels, samples) of codes (num_quantizers, frames)."""
        chunks = _chunks(codes.shape[1], chunk_frames)
        engine = self._decoder_engine(1, chunks[0].stop)
        unit = self.config.downsample_rate
        audio = np.empty((self.config.number_channels, codes.shape[1] * unit), np.float32)
        for chunk in reported(chunks, codes.shape[1]):
            audio[:, chunk.start * unit : chunk.stop * unit] = engine.step({0: codes[:, chunk]})[0]
        return audio

    def _encoder_engine(self, slots: int, frames: int, layers: int) -> OnnxEncoderEngine:
        return OnnxEncoderEngine(self._encoder_steps, slots, frames, layers)

    def _decoder_engine(self, slots: int, frames: int) -> OnnxDecoderEngine:
        return OnnxDecoderEngine(self._decoder_steps, slots, frames)


def _chunks(frames: int, chunk_frames: int | None) -> list[slice]:
    size = chunk_frames or CHUNK_FRAMES
    return [slice(start, min(start + size, frames)) for start in range(0, frames, size)]


def _joined(results: Sequence[tuple[np.ndarray, ...]], index: int) -> np.ndarray:
    """One of the results of all chunks, along their frames."""
    return np.concatenate([result[index] for result in results], axis=1)


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
