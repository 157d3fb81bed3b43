"""What CAT-TTS and CAT-ASR share by onnxruntime: weights outside the graphs, and KV caches.

The graphs are Transformers of `export.speech_export`; embeddings and projections are NumPy.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from ..checkpoint.stored_weights import CONFIG_NAME, WEIGHTS_NAME, read_header, with_scales
from ..errors import MALFORMED, CheckpointError, one_line
from ..onnx.runtime import Runtime
from .model_facts import ModelFacts, graphs_of
from .tokens import TextCodec, load_text

# Weights of the Transformers' blocks, which only the graphs read.
_BLOCKS = (
    *("temporal.layers.", "language_model.model.layers.", "depth.blocks.", "depth.entrance."),
    *("frame_encoder.encoder.", "frame_encoder.input_norm.", "text_encoder.encoder."),
)
# Projections by NumPy. They are stored by columns, which is faster for few rows.
_PROJECTIONS = (
    *("depth.exits.", "frame_head.", "text_encoder.durations.", "text_encoder.conditions."),
    *("language_model.lm_head.", "frame_encoder.letter_head."),
)
_LOWEST = np.finfo(np.float32).min
Rows = Float32[np.ndarray, "rows width"]


class OnnxModel:
    """Configuration, weights, text tokens and graphs of an exported folder.

    Args:
        folder: the folder.
        runtime: device and threads; by default a CPU.

    Attributes:
        config: its config.json.
        facts: its sizes.
        weights: the weights outside the graphs, in float32.
        text: tokens of texts.
        sessions: sessions of its graphs.

    Raises:
        CheckpointError: a file is missing or damaged, or the model is of another kind.
    """

    kind = ""

    def __init__(self, folder: str | Path, runtime: Runtime | None = None) -> None:
        self.folder, runtime = Path(folder), runtime or Runtime()
        self.config, self.facts = _read_config(self.folder, self.kind)
        self.weights = _weights_outside_graphs(self.folder)
        self.text: TextCodec = load_text(self.folder)
        # More threads only wait for each other in a graph that takes one position of a few rows.
        single = Runtime(runtime.device, 1)
        self.sessions = [
            (single if name == "depth.onnx" else runtime).session(self.folder / name)
            for name in graphs_of(self.config)
        ]

    def rotations(
        self, positions: Int64[np.ndarray, "rows steps"]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and sines of rotary positions."""
        config = self.config["text_config"]
        width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        base = np.float32((config.get("rope_parameters") or {}).get("rope_theta", 10_000.0))
        exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
        angles = positions[..., None].astype(np.float32) * (np.float32(1.0) / base**exponents)
        angles = np.concatenate((angles, angles), -1)
        return np.cos(angles), np.sin(angles)

    def embedded_codes(self, codes: Int64[np.ndarray, "num_quantizers frames"]) -> Rows:
        """The sum of the embeddings of each frame's codes."""
        return sum(self.embedded_code(row, index) for index, row in enumerate(codes))  # type: ignore[return-value]

    def embedded_code(self, codes: Int64[np.ndarray, "rows"], index: int) -> Rows:
        """Embeddings of the codes of one codebook."""
        vectors = self.weights["code_embedding.rows"][index][codes]
        maps = self.weights.get("code_embedding.maps")
        return vectors if maps is None else vectors @ maps[index]

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        """A projection, with its bias if it has one."""
        projected: np.ndarray = x @ self.weights[f"{name}.weight"].T
        bias = self.weights.get(f"{name}.bias")
        return projected if bias is None else projected + bias


def _read_config(folder: Path, kind: str) -> tuple[dict[str, Any], ModelFacts]:
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        if config.get("model_type") != kind:
            raise CheckpointError(f"{folder} describes no {kind} model; name the folder of one")
        return config, ModelFacts.of(config)
    except CheckpointError:
        raise
    except MALFORMED as error:
        raise CheckpointError(
            f"{folder} holds no exported speech model ({one_line(error, 200)}); export one with "
            "moss-audio export onnx"
        ) from error


def _weights_outside_graphs(folder: Path) -> dict[str, np.ndarray]:
    """The weights that NumPy computes with, in float32."""
    stored = with_scales(read_header(folder / WEIGHTS_NAME))
    found = {
        name: tensor.read().astype(np.float32, copy=False)
        for name, tensor in stored.items()
        if not name.startswith(_BLOCKS)
    }
    by_columns = {
        name: np.asfortranarray(values)
        for name, values in found.items()
        if name.startswith(_PROJECTIONS)
    }
    return found | by_columns


class CachedGraph:
    """A graph with its KV cache.

    Args:
        session: session of the graph.
        rows: number of rows.
    """

    def __init__(self, session: Any, rows: int) -> None:
        self._session = session
        self._names = [port.name for port in session.get_inputs() if port.name.startswith("past.")]
        shapes = {port.name: port.shape for port in session.get_inputs()}
        self._cache = {
            name: np.zeros((rows, shapes[name][1], 0, shapes[name][3]), np.float32)
            for name in self._names
        }

    def run(self, **inputs: np.ndarray) -> Float32[np.ndarray, "rows steps width"]:
        """Hidden states of new steps, which join the cache."""
        wanted = ["hidden", *(name.replace("past.", "present.") for name in self._names)]
        hidden, *present = self._session.run(wanted, inputs | self._cache)
        self._cache = dict(zip(self._names, present, strict=True))
        return hidden

    def select(self, rows: Int64[np.ndarray, "_"]) -> None:
        """Keep these rows, in this order."""
        self._cache = {name: entries[rows] for name, entries in self._cache.items()}


class TemporalRows:
    """Rows of the decoder-only model, left-padded, with their positions.

    Args:
        model: the exported model.
        rows: input vectors of each row.
    """

    def __init__(self, model: OnnxModel, rows: Sequence[Float32[np.ndarray, "_ width"]]) -> None:
        self._model = model
        self._graph = CachedGraph(model.sessions[0], len(rows))
        longest = max(map(len, rows))
        padded = np.stack([np.pad(row, ((longest - len(row), 0), (0, 0))) for row in rows])
        missing = np.array([longest - len(row) for row in rows])
        self._valid = np.arange(longest) >= missing[:, None]
        positions = np.maximum(self._valid.cumsum(-1) - 1, 0)
        self._next = positions[:, -1:]
        self.states = self._run(padded, positions)

    @property
    def last(self) -> Rows:
        """States of the newest step."""
        return self.states[:, -1]

    def append(self, step: Rows) -> None:
        """Feed one step more."""
        self._valid = np.concatenate((self._valid, np.ones_like(self._valid[:, :1])), 1)
        self.states = self._run(step[:, None], self._next)

    def select(self, rows: Int64[np.ndarray, "_"]) -> None:
        """Keep these rows, in this order."""
        self._graph.select(rows)
        self._valid, self._next = self._valid[rows], self._next[rows]

    def _run(self, steps: np.ndarray, positions: np.ndarray) -> np.ndarray:
        self._next = positions[:, -1:] + 1
        total, count = self._valid.shape[1], steps.shape[1]
        before = np.arange(total) <= np.arange(total - count, total)[:, None]
        mask = np.where(self._valid[:, None] & before, np.float32(0), _LOWEST)
        cosine, sine = self._model.rotations(positions)
        return self._graph.run(embeds=steps.astype(np.float32), mask=mask, cosine=cosine, sine=sine)
