"""CAT-TTS and CAT-ASR by onnxruntime: NumPy around the graphs that `export.speech_export` writes.

Owns what precedes and follows the Transformers (`onnx_model`); the loops are `tts_generation`'s and
`asr_decoding`'s. Equal to PyTorch up to rounding: greedy codes and texts are the same.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from ..errors import CheckpointError
from ..onnx.runtime import Runtime
from .onnx_model import CachedGraph, OnnxModel, Rows, TemporalRows
from .phonemes import LEXICON_NAME, TICKS, Lexicon
from .text_conditions import EncodedText
from .tts_generation import TtsInput
from .word_language_model import WordLanguageModel

_EPSILON = np.finfo(np.float32).eps


class OnnxTts(OnnxModel):
    """CAT-TTS by onnxruntime; a `TtsModel`."""

    kind = "cat-tts"

    def __init__(self, folder: str | Path, runtime: Runtime | None = None) -> None:
        super().__init__(folder, runtime)
        path = self.folder / LEXICON_NAME
        self.lexicon = Lexicon.load(path) if path.is_file() else Lexicon({})
        self.code_vectors = self.weights.get("latent_vectors")
        sizes = (self.facts.num_quantizers, self.facts.codebook_size)
        if self.code_vectors is not None and self.code_vectors.shape[:2] != sizes:
            raise CheckpointError(
                f"{self.folder} has latent_vectors of shape {self.code_vectors.shape}; expected "
                f"{(*sizes, 'dim')}: export the model again"
            )

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
    return centered / np.sqrt(np.square(centered).mean(-1, keepdims=True) + 1e-5)


def _silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    lowered = scores - scores.max(-1, keepdims=True)
    return lowered - np.log(np.exp(lowered).sum(-1, keepdims=True))
