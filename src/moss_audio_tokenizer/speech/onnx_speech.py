"""CAT-TTS and CAT-ASR by onnxruntime: NumPy around the graphs that `export.speech_graphs` writes.

Owns embeddings, output layers and KV caches; the loops are `tts_generation`'s and
`asr_decoding`'s. Equal to PyTorch up to rounding: greedy codes and texts are the same.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from ..checkpoint.stored_weights import CONFIG_NAME, WEIGHTS_NAME, read_header, with_scales
from ..errors import MALFORMED, CheckpointError
from ..onnx.runtime import Runtime
from .model_facts import ModelFacts, graphs_of
from .phonemes import LEXICON_NAME, TICKS, Lexicon
from .text_conditions import EncodedText
from .tokens import TextCodec, load_text
from .tts_generation import TtsInput
from .word_language_model import WordLanguageModel

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
_EPSILON = np.finfo(np.float32).eps
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
        total: Rows = sum(self.embedded_code(row, index) for index, row in enumerate(codes))  # type: ignore[assignment]
        return total

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
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{folder} holds no exported speech model ({reason}); export one with "
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
        found: np.ndarray = hidden
        return found

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


class OnnxTts(OnnxModel):
    """CAT-TTS by onnxruntime; a `TtsModel`."""

    kind = "cat-tts"

    def __init__(self, folder: str | Path, runtime: Runtime | None = None) -> None:
        super().__init__(folder, runtime)
        path = self.folder / LEXICON_NAME
        self.lexicon = Lexicon.load(path) if path.is_file() else Lexicon({})
        self.code_vectors = self.weights.get("latent_vectors")

    def encode_text(
        self, tokens: Sequence[int], codes: Int64[np.ndarray, "num_quantizers frames"] | None
    ) -> EncodedText:
        """Read phoneme tokens in the voice of a prompt."""
        table, name = self.weights["text_encoder.tokens.weight"], "text_encoder"
        voice = np.zeros(table.shape[1], np.float32)
        if codes is not None:
            voice = _standardized(self.embedded_codes(codes).mean(0))
        steps = table[list(tokens)] + self.linear(voice, f"{name}.voice")
        states = self.sessions[2].run(["hidden"], {"embeds": steps[None].astype(np.float32)})[0][0]
        conditions = self.linear(states, f"{name}.conditions")
        return EncodedText(
            self.linear(states, f"{name}.durations"),
            np.ascontiguousarray(conditions).reshape(len(states), TICKS, -1),
            self.weights[f"{name}.remaining"],
        )

    def decoder(self, inputs: Sequence[TtsInput], guided: bool) -> "OnnxTtsDecoder":
        """Start to generate a batch."""
        return OnnxTtsDecoder(self, inputs, guided)


class OnnxTtsDecoder:
    """A batch of rows, and unconditioned copies of them behind these if it is guided.

    Args:
        model: the exported model.
        inputs: what precedes the first frame of each row.
        guided: whether to add the copies.
    """

    def __init__(self, model: OnnxModel, inputs: Sequence[TtsInput], guided: bool) -> None:
        self._model, self._copies, self._rows = model, 1 + guided, len(inputs)
        copies = [replace(row, condition=None) for row in inputs] if guided else []
        self._temporal = TemporalRows(model, [self._embedded(row) for row in (*inputs, *copies)])
        self._depth = CachedGraph(model.sessions[1], self._rows * self._copies)

    def end_scores(self) -> np.ndarray:
        """Begin a frame: logits of ending and continuing."""
        self._depth = CachedGraph(self._model.sessions[1], self._rows * self._copies)
        hidden = self._depth.run(embeds=self._temporal.last[:, None])[: self._rows, 0]
        return self._scores(hidden, 0)

    def code_scores(
        self, previous: np.ndarray | None, index: int, condition: np.ndarray | None
    ) -> np.ndarray:
        """Logits of a codebook."""
        if previous is None:
            step = self._model.weights["signs"][1] + self._condition(condition)
        else:
            step = np.tile(self._model.embedded_code(previous, index - 1), (self._copies, 1))
        return self._scores(self._depth.run(embeds=step[:, None])[:, 0], index + 1)

    def advance(self, codes: np.ndarray, condition: np.ndarray | None) -> None:
        """Feed a complete frame, with the condition of the next, to the temporal Transformer."""
        step = np.tile(self._model.embedded_codes(codes), (self._copies, 1))
        self._temporal.append(step + self._condition(condition))

    def _embedded(self, row: TtsInput) -> np.ndarray:
        """[text][start][frames of the prompt]."""
        weights = self._model.weights
        parts = [weights["temporal.embed_tokens.weight"][row.ids], weights["signs"][:1]]
        if row.codes is not None:
            parts.append(self._model.embedded_codes(row.codes))
        steps = np.concatenate(parts)
        if row.condition is not None:
            steps[-1] += row.condition
        return steps

    def _condition(self, given: np.ndarray | None) -> np.ndarray:
        """Conditions of the rows; zero in the unconditioned copies."""
        condition = np.zeros_like(self._temporal.last)
        if given is not None:
            condition[: self._rows] = given
        return condition

    def _scores(self, hidden: Rows, position: int) -> np.ndarray:
        """An output layer of the depth Transformer: adapter, RMS norm and projection."""
        model, name = self._model, f"depth.exits.{position}"
        if f"{name}.0.exit.weight" in model.weights:
            gate, value = np.split(model.linear(hidden, f"{name}.0.entrance"), 2, -1)
            hidden = model.linear(_silu(gate) * value, f"{name}.0.exit")
        mean = np.add.reduce(hidden * hidden, -1, keepdims=True) / np.float32(hidden.shape[-1])
        normed = hidden / np.sqrt(mean + _EPSILON) * model.weights[f"{name}.1.weight"]
        return model.linear(normed, f"{name}.2")


class OnnxAsr(OnnxModel):
    """CAT-ASR by onnxruntime; an `AsrModel`."""

    kind = "cat-asr"

    def __init__(self, folder: str | Path, runtime: Runtime | None = None) -> None:
        super().__init__(folder, runtime)
        self.word_language_model = WordLanguageModel.find(self.folder)

    def decoder(self, clips: Sequence[Int64[np.ndarray, "num_quantizers _"]]) -> "OnnxAsrDecoder":
        """Read the frames of clips, as one batch."""
        return OnnxAsrDecoder(self, [self._prompt(codes) for codes in clips])

    def ctc_scores(
        self, codes: Int64[np.ndarray, "num_quantizers frames"]
    ) -> Float32[np.ndarray, "steps classes"]:
        """CTC log-probabilities of a clip: the text tokens and, last, the blank."""
        if not self.facts.has_language_model:
            return self._encoder_scores(codes)
        states = TemporalRows(self, [self._prompt(codes)]).states[0]
        return _log_softmax(self.linear(states, "frame_head"))

    def _encoder_scores(self, codes: np.ndarray) -> Float32[np.ndarray, "steps classes"]:
        """Those of an encoder: several steps a frame."""
        embeds = self.embedded_codes(codes)[None]
        states = self.sessions[0].run(["hidden"], {"embeds": embeds})[0][0]
        scores = self.linear(states, "frame_encoder.letter_head")
        steps = self.facts.steps_per_frame * len(states)
        return _log_softmax(np.ascontiguousarray(scores).reshape(steps, -1))

    def _prompt(self, codes: np.ndarray) -> np.ndarray:
        """[frames][start of text]."""
        return np.concatenate((self.embedded_codes(codes), self.weights["start_of_text"][None]))


class OnnxAsrDecoder:
    """The language model behind the frames of some clips, with its KV cache.

    Args:
        model: the exported model.
        prompts: [frames][start of text] of each clip.
    """

    def __init__(self, model: OnnxModel, prompts: Sequence[np.ndarray]) -> None:
        self._model = model
        self._rows = TemporalRows(model, prompts)
        self._embedding = model.weights["language_model.model.embed_tokens.weight"]
        self._output = model.weights.get("language_model.lm_head.weight", self._embedding)

    def scores(self) -> Float32[np.ndarray, "rows num_tokens"]:
        """Log-probabilities of the next token, of text tokens alone."""
        logits = self._rows.last @ self._output[: self._model.text.num_tokens].T
        return _log_softmax(logits)

    def advance(self, tokens: np.ndarray, origins: np.ndarray) -> None:
        """Append a token to each row; row i continues row ``origins[i]`` of before."""
        self._rows.select(origins)
        self._rows.append(self._embedding[tokens])


def _standardized(x: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 over the last axis, as of a layer norm without weights."""
    centered = x - x.mean(-1, keepdims=True)
    scaled: np.ndarray = centered / np.sqrt(np.square(centered).mean(-1, keepdims=True) + 1e-5)
    return scaled


def _silu(x: np.ndarray) -> np.ndarray:
    active: np.ndarray = x / (1 + np.exp(-x))
    return active


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    lowered = scores - scores.max(-1, keepdims=True)
    shares: np.ndarray = lowered - np.log(np.exp(lowered).sum(-1, keepdims=True))
    return shares
