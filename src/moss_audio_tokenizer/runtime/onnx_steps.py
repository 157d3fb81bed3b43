"""Steps of streams in onnxruntime, for tensors: on a CPU they take less time than PyTorch's own.

Graphs are written from a codec's own weights; the memory of the streams and the steps are those of
`onnx.engines`, as for exported folders.
"""

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor

from ..checkpoint.codec_checkpoint import live_tensors
from ..errors import MissingDependencyError
from ..model.codec import Codec
from ..onnx.engines import OnnxDecoderEngine, OnnxEncoderEngine, StepGraph
from ..onnx.runtime import Runtime

# Rows times frames up to which a step on a CPU runs on one thread. Threads that share a small step
# wait for each other: beside busy programs PyTorch's, which spin, took seconds.
ONE_THREAD_FRAMES = 8
# Bytes of weights in one graph, which holds copies of them; far below the limit of the format.
_MOST_WEIGHTS = 1 << 30


class StepSessions:
    """onnxruntime sessions of one graph: small steps on one thread, others on PyTorch's number.

    A forked process has none of its parent's threads: it makes sessions of its own.

    Args:
        model: the graph with its weights, as a file would hold it.
    """

    def __init__(self, model: bytes) -> None:
        self._model = model
        self._sessions: dict[tuple[int, int], Any] = {}
        _ALL.add(self)

    def for_frames(self, num_frames: int) -> Any:
        """The session for a step of so many frames in all rows together."""
        threads = 1 if num_frames <= ONE_THREAD_FRAMES else torch.get_num_threads()
        key = (os.getpid(), threads)
        if key not in self._sessions:
            self._sessions[key] = Runtime(num_threads=threads).session(self._model)
        return self._sessions[key]

    def keep_forever(self) -> None:
        """Never end the sessions there are: that waits for threads, which only the parent has."""
        for session in self._sessions.values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


_ALL: WeakSet[StepSessions] = WeakSet()


def _keep_all() -> None:
    for sessions in _ALL:
        sessions.keep_forever()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_all)


def step_graph(codec: Codec, side: str, identity: str) -> StepGraph | None:
    """The graph of steps, with copies of the weights; None where it cannot be written or run.

    Args:
        codec: on a CPU, with the quantizer and that side in float32.
        side: "encoder" or "decoder".
        identity: identity of the streams of these weights.
    """
    tensors = live_tensors(codec, "v1", (f"{side}.", "quantizer."))
    if sum(tensor.nbytes for tensor in tensors.values()) > _MOST_WEIGHTS:
        return None
    try:
        from ..graphs.graph import ArrayWeights
        from ..graphs.onnx_models import build_model

        runtime = Runtime(num_threads=1)
    except (ImportError, MissingDependencyError):  # onnx, onnxruntime
        return None
    weights = ArrayWeights(codec.config, {name: item.numpy() for name, item in tensors.items()})
    # The graph lives in memory alone: it needs no version.
    model = build_model(weights, f"{side}_step", "int64", ("moss-audio-tokenizer", ""))
    sessions = StepSessions(model.SerializeToString())
    identity = f"{identity} onnxruntime"  # their rings are laid out in another way than PyTorch's
    return StepGraph(runtime, sessions.for_frames, codec.config, "int64", identity)


class TensorSteps:
    """A `streaming.StepEngine` of arrays whose chunks and results are tensors.

    Args:
        engine: steps the streams; whatever is not changed here is its.
        check: makes a tensor of what callers pass, or refuses it.
    """

    def __init__(
        self, engine: OnnxDecoderEngine | OnnxEncoderEngine, check: Callable[[Any], Tensor]
    ) -> None:
        self._engine = engine
        self._check = check
        self.results_device = torch.device("cpu")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def check(self, chunk: Any) -> np.ndarray:
        """Validate a chunk, and return it as an array."""
        return self._check(chunk).detach().cpu().numpy()

    def step(self, chunks: Mapping[int, np.ndarray]) -> dict[int, Tensor]:
        """Advance the streams of some slots, and return their results."""
        return {slot: self._result(found) for slot, found in self._engine.step(chunks).items()}

    def join_results(self, results: Sequence[Tensor]) -> Tensor:
        """Results of one stream in a row; an empty one if there are none."""
        if not results:
            return self._result(self._engine.join_results([]))
        return results[0] if len(results) == 1 else torch.cat(list(results), dim=-1)

    def _result(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.results_device)
