"""The likeliest text of a CTC model's letter scores under a word language model, without PyTorch.

CTC prefix beam search with word-level scores (Hannun et al., 2014, "First-Pass Large Vocabulary
Continuous Speech Recognition using Bi-Directional Recurrent DNNs", algorithm 1). Owns the search;
the scores are a model's, the words `word_language_model`'s.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..errors import InputError
from .tokens import CharacterText
from .word_language_model import BOUNDARY, UNKNOWN, Context, WordLanguageModel

Scores = Float[np.ndarray, "steps classes"]

# docs/experiments.md has the errors with fewer and more.
WORD_BEAMS = 128


@dataclass(frozen=True)
class BeamSettings:
    """How much the search trusts the language model, and what it leaves out.

    Attributes:
        weight: factor of the language model's log-probabilities (alpha).
        word_bonus: added for every word (beta), since the language model favors few words.
        unknown_penalty: added for a word that the language model does not have.
        least_letter: log-probability of a letter below which a step does not try it.
        beam_width: prefixes whose score is so far below the best are dropped.
    """

    weight: float = 0.7
    word_bonus: float = 2.5
    unknown_penalty: float = -16.0
    least_letter: float = -7.0
    beam_width: float = 14.0


class _Prefix:
    """A beginning of the text: a node in a tree of letters.

    Attributes:
        text: with all its blanks.
        last: id of its last letter; -1 of none.
        word: letters of the word that is not finished.
        context: ids of the finished words that the next one depends on.
        words: score of the finished words.
        bonus: score of the finished words and, as far as its letters tell, of the next.
        blank, letter: probability of all alignments so far that end in CTC's blank, in a letter.
        next_blank, next_letter: the same after the present step.
    """

    __slots__ = (
        *("blank", "bonus", "children", "context", "last", "letter", "next_blank", "next_letter"),
        *("seen", "text", "word", "words"),
    )

    def __init__(self, text: str, last: int, word: str, context: Context, words: float) -> None:
        self.text, self.last, self.word = text, last, word
        self.context, self.words, self.bonus = context, words, words
        self.blank = self.letter = self.next_blank = self.next_letter = 0.0
        self.seen = -1
        self.children: dict[int, _Prefix] = {}


class _Search:
    def __init__(
        self, text: CharacterText, model: WordLanguageModel, settings: BeamSettings
    ) -> None:
        self.letters, self.space = text.alphabet, text.alphabet.index(" ")
        self.model, self.settings = model, settings
        self.root = _Prefix("", -1, "", (BOUNDARY,), 0.0)
        self.root.blank = 1.0

    def child(self, parent: _Prefix, letter: int) -> _Prefix:
        """The prefix that a letter makes of another; made when it is first asked for."""
        found = parent.children.get(letter)
        if found is None:
            found = parent.children[letter] = self._extended(parent, letter)
        return found

    def _extended(self, parent: _Prefix, letter: int) -> _Prefix:
        text = parent.text + self.letters[letter]
        if letter == self.space:
            score, word = self.word_score(parent)
            return _Prefix(text, letter, "", (parent.context[-1], word), score)
        new = _Prefix(
            text, letter, parent.word + self.letters[letter], parent.context, parent.words
        )
        best = self.model.best_beginning(new.word)
        if best is None:
            new.bonus += self.settings.unknown_penalty
            best = self.model.score(UNKNOWN, ())
        new.bonus += self.settings.weight * best
        return new

    def word_score(self, prefix: _Prefix) -> tuple[float, int]:
        """The score of a prefix when its word ends here, and the id of that word."""
        word = self.model.id_of(prefix.word)
        score = prefix.words + self.settings.word_bonus
        score += self.settings.weight * self.model.score(word, prefix.context)
        return score + (self.settings.unknown_penalty if word == UNKNOWN else 0.0), word

    def step(self, beams: list[_Prefix], number: int, row: Sequence[float]) -> list[_Prefix]:
        """Every prefix with one more step of the audio.

        Args:
            beams: the prefixes so far.
            number: of the step.
            row: probabilities of the letters, and of CTC's blank last.
        """
        least, blank, space = math.exp(self.settings.least_letter), row[-1], self.space
        likely = [(i, p) for i, p in enumerate(row[: len(self.letters)]) if p >= least]
        reached: list[_Prefix] = []
        for prefix in beams:
            total = prefix.blank + prefix.letter
            if prefix.seen != number:
                prefix.seen, prefix.next_blank, prefix.next_letter = number, 0.0, 0.0
                reached.append(prefix)
            prefix.next_blank += total * blank
            if prefix.last >= 0:
                prefix.next_letter += prefix.letter * row[prefix.last]
            for letter, probability in likely:
                if letter == space and not prefix.word:
                    # A second space, or one before the first word: the text stays the same.
                    if prefix.last == space:
                        prefix.next_letter += prefix.blank * probability
                    else:
                        prefix.next_blank += total * probability
                    continue
                child = prefix.children.get(letter) or self.child(prefix, letter)
                if child.seen != number:
                    child.seen, child.next_blank, child.next_letter = number, 0.0, 0.0
                    reached.append(child)
                begun = prefix.blank if letter == prefix.last else total
                child.next_letter += begun * probability
        return reached

    def pruned(self, reached: list[_Prefix], num_beams: int) -> list[_Prefix]:
        """The best prefixes, scaled so that the likeliest alignment stays near 1."""
        scored = []
        for prefix in reached:
            prefix.blank, prefix.letter = prefix.next_blank, prefix.next_letter
            total = prefix.blank + prefix.letter
            if total > 0.0:
                scored.append((math.log(total) + prefix.bonus, prefix.text, prefix))
        # Equal scores are told apart by the text, so that the result never depends on order.
        best = heapq.nlargest(num_beams, scored, key=lambda item: item[:2])
        least = best[0][0] - self.settings.beam_width
        beams = [prefix for score, _, prefix in best if score >= least]
        scale = max(prefix.blank + prefix.letter for prefix in beams)
        for prefix in beams:
            prefix.blank, prefix.letter = prefix.blank / scale, prefix.letter / scale
        return beams

    def finished(self, beams: list[_Prefix]) -> str:
        """The best text, with its last word and the end of the sentence scored."""
        totals: dict[str, tuple[float, float]] = {}
        for prefix in beams:
            score, context = prefix.words, prefix.context
            if prefix.word:
                score, word = self.word_score(prefix)
                context = (context[-1], word)
            if prefix.text:
                score += self.settings.weight * self.model.score(BOUNDARY, context)
            text = prefix.text.strip()
            before = totals.get(text, (0.0, 0.0))[0]
            totals[text] = (before + prefix.blank + prefix.letter, score)
        ranked = [(math.log(total) + score, text) for text, (total, score) in totals.items()]
        return max(ranked)[1]


def beam_search(
    scores: Scores,
    text: CharacterText,
    language_model: WordLanguageModel,
    num_beams: int = WORD_BEAMS,
    settings: BeamSettings | None = None,
) -> str:
    """The words that a CTC model's scores and a language model agree on best.

    Args:
        scores: natural log-probabilities of the tokens of ``text`` (its end token never occurs),
            then of CTC's blank, at every step.
        text: the letters, a space among them.
        language_model: of words with these letters.
        num_beams: prefixes that are kept at a step.
        settings: weights and limits.

    Returns:
        Words with single spaces; "" where only the blank is likely.

    Raises:
        InputError: the scores have another number of classes or are not log-probabilities, there
            is no beam, or the tokens are not single letters with a space.
    """
    scores = np.asarray(scores)
    if scores.ndim != 2 or scores.shape[1] != text.num_tokens + 1:
        raise InputError(
            f"got scores of shape {scores.shape}; expected (steps, {text.num_tokens + 1})"
        )
    if num_beams < 1 or text.words or " " not in text.alphabet:
        raise InputError("expected at least one beam, and an alphabet of letters with a space")
    if np.isnan(scores).any() or (scores > 1e-3).any():
        raise InputError("got scores above 0 or not a number; expected log-probabilities")
    search = _Search(text, language_model, settings or BeamSettings())
    beams = [search.root]
    for number, row in enumerate(_probabilities(scores)):
        beams = search.pruned(search.step(beams, number, row), num_beams)
    return search.finished(beams)


def _probabilities(scores: Scores) -> list[list[float]]:
    """Each step's probabilities, relative to the likeliest class; a step without any says blank."""
    scores = scores.astype(np.float64)
    highest = scores.max(-1, keepdims=True, initial=-np.inf)
    relative = np.exp(scores - np.where(np.isfinite(highest), highest, 0.0))
    relative[:, -1] = np.where(np.isfinite(highest[:, 0]), relative[:, -1], 1.0)
    # Never quite zero: a prefix that the next step rules out still has a rank among the others.
    relative[:, -1] = np.maximum(relative[:, -1], 1e-30)
    return relative.tolist()
