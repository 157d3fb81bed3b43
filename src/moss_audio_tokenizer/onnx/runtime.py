"""onnxruntime: which devices there are, and sessions for graphs.

The only place that imports it. Owns names of devices and threads; knows no codec.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..api.validation import require_count
from ..errors import CheckpointError, ConfigError, MissingDependencyError
from ..workers import usable_cores

_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
# Names of types that onnxruntime has otherwise than NumPy.
_TYPES = {"float": "float32", "double": "float64"}


class Runtime:
    """Where and how graphs run.

    Args:
        device: "cpu", "cuda" or "tensorrt", the last two with an index if need be ("cuda:1").
        num_threads: on a CPU; default: onnxruntime's, one a core.

    Raises:
        ConfigError: there is no such device here.
        InputError: the number of threads is wrong.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(self, device: str = "cpu", num_threads: int | None = None) -> None:
        self._library: Any = _import_onnxruntime()
        kind, _, index = str(device).partition(":")
        if kind not in _PROVIDERS or not (index.isdigit() or index == ""):
            raise ConfigError(f"no device {device!r}; expected cpu, cuda, cuda:1, or tensorrt")
        self.num_threads = None if num_threads is None else require_count(num_threads, "threads")
        self.device = str(device)
        self.device_id = int(index or 0)
        self.on_gpu = kind != "cpu"
        self.place = ("cuda", self.device_id) if self.on_gpu else ("cpu", 0)
        self._providers = self._available(kind)

    def _available(self, kind: str) -> list[tuple[str, dict[str, Any]]]:
        there = self._library.get_available_providers()
        wanted = _PROVIDERS[kind]
        if wanted[0] not in there:
            raise ConfigError(
                f"onnxruntime has no {wanted[0]} here, only {', '.join(there)}; use device cpu, or "
                "install onnxruntime-gpu in place of onnxruntime"
            )
        options = {"device_id": self.device_id}
        return [(name, {} if name.startswith("CPU") else options) for name in wanted]

    def session(self, graph: Path | bytes) -> Any:
        """A session for a graph: a file, or what one would hold.

        Raises:
            CheckpointError: onnxruntime cannot load it.
        """
        options = self._library.SessionOptions()
        options.intra_op_num_threads = self.num_threads or _cores()
        options.inter_op_num_threads = 1
        # Threads that spin while they wait take the cores of whatever runs beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # errors are raised too; nothing else may write to stderr
        model = graph if isinstance(graph, bytes) else str(graph)
        try:
            # Without its fallback, which prints on stdout and tries the same once more.
            return self._library.InferenceSession(
                model, options, providers=self._providers, enable_fallback=0
            )
        except Exception as problem:  # onnxruntime's exceptions have no common base of their own
            name = "a graph made here" if isinstance(graph, bytes) else graph
            remedy = "report it" if isinstance(graph, bytes) else _remedy(graph)
            raise CheckpointError(
                f"onnxruntime {self._library.__version__} cannot load {name} "
                f"({_innermost(problem)}); {remedy}"
            ) from problem

    def empty(self, shape: tuple[int, ...]) -> Any:
        """Zeros on the device, as an OrtValue."""
        zeros = np.zeros(shape, np.float32)
        return self._library.OrtValue.ortvalue_from_numpy(zeros, *self.place)


def _innermost(problem: Exception) -> str:
    """What went wrong, in one line and without the places in onnxruntime that it passed through."""
    return " ".join(str(problem).rpartition("[ONNXRuntimeError]")[2].split()).lstrip(": ")[:300]


def _remedy(graph: Path) -> str:
    """What to do about a graph that cannot be loaded."""
    home = graph.resolve().parent
    for weights in sorted(graph.parent.glob("*.safetensors")):
        if weights.resolve().parent != home:
            return (
                f"{weights.name} is a symbolic link out of the folder of its graphs, which "
                "onnxruntime may not follow: copy the file in its place, or link the graphs to "
                "where it is too"
            )
    return "export the model again, or copy the whole folder again"


def session_facts(session: Any) -> dict[str, Any]:
    """Inputs and outputs of a session's graph, and what its metadata says, by key."""
    metadata = session.get_modelmeta().custom_metadata_map
    facts = {key: _parsed(value) for key, value in metadata.items()}
    ports = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    return facts | {key: [_port_facts(port) for port in found] for key, found in ports.items()}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # another program's note
        return text


def _port_facts(port: Any) -> dict[str, Any]:
    kind = port.type.removeprefix("tensor(").removesuffix(")")
    return {"name": port.name, "type": _TYPES.get(kind, kind), "shape": list(port.shape)}


def _cores() -> int:
    """Processors that this process may use, as OMP_NUM_THREADS and its affinity say."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if limit.isdigit() and int(limit) > 0:
        return int(limit)
    return usable_cores()


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as problem:
        raise MissingDependencyError(
            "running a model without PyTorch needs onnxruntime, which cannot be imported "
            f"({problem}); pip install onnxruntime"
        ) from problem
    return onnxruntime
