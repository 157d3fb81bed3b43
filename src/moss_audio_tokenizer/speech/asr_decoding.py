"""Decoding of CAT-ASR: greedy, beam search and CTC, in NumPy.

One loop for PyTorch and onnxruntime: a model runs its Transformer (`AsrModel`, `AsrDecoder`), and
everything else is here. A transcript is bounded by the length of its clip, and ends where it
begins to repeat itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int64, Integer

from ..errors import InputError
from .ctc_beam_search import WORD_BEAMS, beam_search
from .model_facts import ModelFacts, check_codes
from .token_frames import greedy_tokens
from .tokens import CharacterText, TextCodec
from .word_language_model import WordLanguageModel

MOST_BEAMS = 128
# Fast speech has 25 characters a second: two a frame.
_TOKENS_PER_FRAME, _SPARE_TOKENS = 4, 8
# So many repetitions of a cycle, together of so many tokens, are no speech.
_LONGEST_CYCLE, _MOST_CYCLES, _LEAST_REPEATED = 24, 6, 18


class AsrDecoder(Protocol):
    """The language model behind the frames of some clips, with its KV cache."""

    def scores(self) -> Float[np.ndarray, "rows num_tokens"]:
        """Log-probabilities of the next token, of text tokens alone."""
        ...

    def advance(
        self, tokens: Int64[np.ndarray, "rows"], origins: Int64[np.ndarray, "rows"]
    ) -> None:
        """Append a token to each row; row i continues row ``origins[i]`` of before."""
        ...


class AsrModel(Protocol):
    """A CAT-ASR model, by PyTorch or onnxruntime."""

    @property
    def facts(self) -> ModelFacts:
        """Sizes of the model."""
        ...

    @property
    def text(self) -> TextCodec:
        """Tokens of texts."""
        ...

    @property
    def word_language_model(self) -> WordLanguageModel | None:
        """Probabilities of words, for beam search on CTC scores; None without."""
        ...

    def decoder(self, clips: Sequence[Int64[np.ndarray, "num_quantizers _"]]) -> AsrDecoder:
        """Read the frames of clips, as one batch."""
        ...

    def ctc_scores(
        self, codes: Int64[np.ndarray, "num_quantizers frames"]
    ) -> Float[np.ndarray, "steps classes"]:
        """CTC log-probabilities of a clip: the text tokens and, last, the blank."""
        ...


def transcribe_codes(
    model: AsrModel,
    clips: Sequence[Integer[np.ndarray, "num_quantizers _"]],
    num_quantizers: int | None = None,
    num_beams: int | None = None,
    max_tokens: int = 256,
) -> list[str]:
    """Transcripts of clips, computed as one batch.

    Args:
        model: a CAT-ASR model.
        clips: codes of each clip, of any number of frames.
        num_quantizers: number of codebooks to read (default: all that a clip and the model have).
        num_beams: 1 decodes greedily; 0 decodes the CTC head greedily, which is fastest and uses
            no language model; 128 at most. A model with an encoder always decodes its CTC head,
            with several beams under its word language model. Default: 128 where there is a word
            language model, else 1.
        max_tokens: most tokens of a transcript.

    Raises:
        CodesError: there are no frames, or codebooks or codes that the model does not have.
        InputError: a number out of range, or no CTC head.
    """
    if num_beams is None:
        num_beams = 1 if model.word_language_model is None else WORD_BEAMS
    if not 0 <= num_beams <= MOST_BEAMS or max_tokens < 1:
        raise InputError(
            f"num_beams is {num_beams} and max_tokens {max_tokens}; expected 0 to "
            f"{MOST_BEAMS}, and 1 or more"
        )
    given = [check_codes(clip, model.facts, num_quantizers) for clip in clips]
    if not given:
        return []
    by_ctc = not num_beams or not model.facts.has_language_model
    longest = max(codes.shape[1] for codes in given) + 1
    _require_room(model.facts, longest + (0 if by_ctc else max_tokens))
    if by_ctc:
        return [_ctc_text(model, model.ctc_scores(codes), num_beams) for codes in given]
    limits = [_limit(codes, max_tokens) for codes in given]
    if num_beams == 1:
        rows = _greedy(model, given, limits)
    else:
        rows = [_beams(model, *row, num_beams) for row in zip(given, limits, strict=True)]
    return [model.text.decode(without_repetition(ids)) for ids in rows]


def _ctc_text(
    model: AsrModel,
    scores: Float[np.ndarray, "steps classes"],
    num_beams: int,
) -> str:
    """The transcript of CTC scores: greedy, or by a beam search with the word language model."""
    words = model.word_language_model
    if num_beams > 1 and words is not None and isinstance(model.text, CharacterText):
        return beam_search(scores, model.text, words, num_beams)
    ids = greedy_tokens(scores, model.text.num_tokens)
    return " ".join(model.text.decode(ids).split())


def _limit(codes: np.ndarray, max_tokens: int) -> int:
    """Most tokens that a clip can hold."""
    return min(max_tokens, _TOKENS_PER_FRAME * codes.shape[1] + _SPARE_TOKENS)


def _require_room(facts: ModelFacts, steps: int) -> None:
    if steps > facts.max_steps:
        raise InputError(
            f"the longest clip and its text take {steps} steps, and this model has "
            f"{facts.max_steps}; cut the recording"
        )


def _greedy(model: AsrModel, clips: Sequence[np.ndarray], limits: Sequence[int]) -> list[list[int]]:
    """The most probable token in each step, for all clips at once."""
    decoder, end = model.decoder(clips), model.text.end
    rows: list[list[int]] = [[] for _ in clips]
    open_rows = np.ones(len(clips), bool)
    while True:
        tokens = np.where(open_rows, decoder.scores().argmax(-1), end)
        for row, token in enumerate(tokens.tolist()):
            if open_rows[row] and token != end:
                rows[row].append(token)
            full = len(rows[row]) >= limits[row] or repeats(rows[row])
            open_rows[row] &= token != end and not full
        if not open_rows.any():
            return rows
        decoder.advance(tokens, np.arange(len(clips)))


@dataclass(frozen=True)
class _Hypothesis:
    """A transcript of a beam search.

    Attributes:
        ids: its tokens.
        score: sum of their log-probabilities.
    """

    ids: tuple[int, ...]
    score: float

    @property
    def mean(self) -> float:
        """Log-probability a token, the end token included."""
        return self.score / (len(self.ids) + 1)


def _beams(model: AsrModel, clip: np.ndarray, limit: int, num_beams: int) -> list[int]:
    """The transcript of the highest mean log-probability that a beam search finds."""
    decoder, end = model.decoder([clip]), model.text.end
    beams, ended = [_Hypothesis((), 0.0)], []
    for _ in range(limit):
        origins: list[int] = []
        following: list[_Hypothesis] = []
        for origin, candidate in _candidates(beams, decoder.scores(), 2 * num_beams):
            if candidate.ids[-1] == end:
                ended.append(_Hypothesis(candidate.ids[:-1], candidate.score))
            elif len(following) < num_beams and not repeats(candidate.ids):
                origins.append(origin)
                following.append(candidate)
        beams = following
        best = sorted((item.mean for item in ended), reverse=True)[:num_beams]
        if not beams or (len(best) == num_beams and max(b.mean for b in beams) <= best[-1]):
            break
        decoder.advance(np.array([b.ids[-1] for b in beams]), np.array(origins))
    return list(max([*ended, *beams], key=lambda item: item.mean).ids)


def _candidates(
    beams: Sequence[_Hypothesis], scores: np.ndarray, count: int
) -> list[tuple[int, _Hypothesis]]:
    """The best continuations of all beams, each with the index of its beam."""
    totals = scores.astype(np.float64) + np.array([[beam.score] for beam in beams])
    order = np.argsort(-totals, axis=None, kind="stable")[:count]
    rows, tokens = np.unravel_index(order, totals.shape)
    return [
        (row, _Hypothesis((*beams[row].ids, token), float(totals[row, token])))
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True)
    ]


def _repeated(ids: Sequence[int]) -> tuple[int, int]:
    """Length and number of the cycle that the ids end with."""
    for cycle in range(1, min(_LONGEST_CYCLE, len(ids) // _MOST_CYCLES) + 1):
        matched = 0
        while matched < len(ids) - cycle and ids[-1 - matched] == ids[-1 - matched - cycle]:
            matched += 1
        if matched >= cycle * (_MOST_CYCLES - 1) and matched + cycle >= _LEAST_REPEATED:
            return cycle, (matched + cycle) // cycle
    return 0, 1


def repeats(ids: Sequence[int]) -> bool:
    """Whether a transcript ends with more repetitions than speech has."""
    return _repeated(ids)[0] > 0


def without_repetition(ids: Sequence[int]) -> list[int]:
    """The ids, with a runaway cycle at their end reduced to one repetition."""
    cycle, count = _repeated(ids)
    return list(ids[: len(ids) - cycle * (count - 1)]) if cycle else list(ids)
