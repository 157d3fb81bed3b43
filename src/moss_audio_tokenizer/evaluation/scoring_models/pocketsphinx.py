"""pocketsphinx as an ASR model: general English, or a closed vocabulary counted on given texts.

Owns the dictionary cut to the words, the small language model (at most trigrams, absolute
discounting with back-off, in ARPA's format) and the decoder. Knows nothing of error rates. The
model is estimated here because the packages that write ARPA files need compiled programs, and
because a grammar of pocketsphinx knows which words there are, but not how likely they follow.
"""

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import log10
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...metrics.signals import MEASURED_RATE
from ..loading import import_package
from ..text_normalization import normalized, text_lines

_DISCOUNT = 0.6
_START, _END = "<s>", "</s>"
_VARIANT = re.compile(r"\(\d+\)$")
_SHOWN_WORDS = 8

Gram = tuple[str, ...]


def pocketsphinx_transcriber(texts: str = "") -> Callable[[np.ndarray, int], str]:
    """The decoder of pocketsphinx: (samples at 16 kHz, 16000) -> text.

    Args:
        texts: a file of UTF-8 text, whose words alone can then be understood; sentences, a line
            each, also tell which word follows which. "" is the general English model.

    Raises:
        InputError: the file cannot be read, is empty, or has words without a pronunciation.
        MissingDependencyError: pocketsphinx is not installed.
    """
    decoder = _closed_decoder(read_sentences(texts), texts) if texts else _decoder()

    def transcribe(samples: np.ndarray, sampling_rate: int) -> str:
        del sampling_rate
        pcm = np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2")
        decoder.reinit_feat()  # its noise estimate must not depend on the order of clips
        decoder.start_utt()
        decoder.process_raw(pcm.tobytes(), full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return hypothesis.hypstr if hypothesis else ""

    return transcribe


def read_sentences(path: str) -> list[list[str]]:
    """The words of every line that has some.

    Raises:
        InputError: no file, no text, or no words.
    """
    lines = text_lines(Path(path), "a text file, a sentence a line")
    sentences = [words for line in lines if (words := normalized(line).split())]
    if not sentences:
        raise InputError(f"pocketsphinx:{path} holds no words; expected a sentence a line")
    return sentences


def _decoder(**options: str) -> Any:
    module = import_package("pocketsphinx", "this ASR model")
    return module.Decoder(samprate=MEASURED_RATE, loglevel="FATAL", **options)


def _closed_decoder(sentences: Sequence[Sequence[str]], source: str) -> Any:
    """A decoder of these words alone; the whole dictionary would take it long to load."""
    words = sorted({word for sentence in sentences for word in sentence})
    models = import_package("pocketsphinx", "this ASR model").get_model_path()
    english = Path(models) / "en-us" / "cmudict-en-us.dict"
    entries = cut_dictionary(words, english.read_text("utf-8").splitlines(), source)
    with tempfile.TemporaryDirectory(prefix="moss-audio-") as folder:
        dictionary, model = Path(folder) / "words.dict", Path(folder) / "words.arpa"
        dictionary.write_text(entries, "utf-8")
        model.write_text(BackOffModel.counted(sentences).arpa(), "utf-8")
        return _decoder(dict=str(dictionary), lm=str(model))


def cut_dictionary(words: Sequence[str], lines: Iterable[str], source: str) -> str:
    """The entries of some words; single letters are pronounced as when one spells.

    Raises:
        InputError: words that are not in the dictionary.
    """
    found: dict[str, list[str]] = {}
    for line in lines:
        entry, _, phones = line.partition(" ")
        found.setdefault(_VARIANT.sub("", entry), []).append(phones.strip())
    # "a" alone is the article in the dictionary; "a." is the letter.
    spoken = {word: found.get(f"{word}.", found.get(word)) for word in words if len(word) == 1}
    spoken |= {word: found.get(word) for word in words if len(word) > 1}
    missing = [word for word, phones in spoken.items() if not phones]
    if missing:
        more = ", ..." if len(missing) > _SHOWN_WORDS else ""
        raise InputError(
            f"pocketsphinx:{source} has {len(missing)} words that its English dictionary lacks "
            f"({', '.join(missing[:_SHOWN_WORDS])}{more}); leave them out or spell them otherwise"
        )
    return "".join(
        f"{word}{f'({number})' if number > 1 else ''} {phones}\n"
        for word, variants in spoken.items()
        for number, phones in enumerate(variants or (), 1)
    )


@dataclass
class BackOffModel:
    """Which word follows which, as probabilities with back-off.

    Attributes:
        probabilities: for each order, that of a gram's last word after its others.
        backoffs: for each order but the last, what a shorter history's probability is taken times.

    Source: Ney, Essen and Kneser, "On structuring probabilistic dependences in stochastic
    language modelling", 1994 (absolute discounting, interpolated).
    """

    probabilities: list[dict[Gram, float]] = field(default_factory=list)
    backoffs: list[dict[Gram, float]] = field(default_factory=list)

    @classmethod
    def counted(cls, sentences: Sequence[Sequence[str]]) -> "BackOffModel":
        """Of sentences; a list of single words says nothing of what follows what."""
        order = 3 if any(len(sentence) > 1 for sentence in sentences) else 1
        model = cls()
        for length in range(1, order + 1):
            model._add(_grams(sentences, length))
        return model

    def _add(self, counts: Counter[Gram]) -> None:
        """The next order, from the counts of its grams."""
        if not self.probabilities:
            counts.pop((_START,), None)
            total = counts.total()
            self.probabilities.append({gram: count / total for gram, count in counts.items()})
            return
        of_history: dict[Gram, dict[Gram, int]] = defaultdict(dict)
        for gram, count in counts.items():
            of_history[gram[:-1]][gram] = count
        found: dict[Gram, float] = {}
        backoffs: dict[Gram, float] = {}
        for history, grams in of_history.items():
            total, left = sum(grams.values()), _DISCOUNT * len(grams)
            for gram, count in grams.items():
                found[gram] = (count - _DISCOUNT + left * self.probability(gram[1:])) / total
            # Interpolated: words that never followed get the same share of the shorter history.
            backoffs[history] = left / total
        self.probabilities.append(found)
        self.backoffs.append(backoffs)

    def probability(self, gram: Gram) -> float:
        """Of a gram's last word after its others."""
        if len(gram) > 1 and gram not in self.probabilities[len(gram) - 1]:
            return self.backoffs[len(gram) - 2].get(gram[:-1], 1.0) * self.probability(gram[1:])
        return self.probabilities[len(gram) - 1][gram]

    def arpa(self) -> str:
        """The model in the ARPA format, which speech decoders read."""
        orders = [dict(grams) for grams in self.probabilities]
        orders[0][(_START,)] = 1e-99
        heads = [f"ngram {length}={len(grams)}" for length, grams in enumerate(orders, 1)]
        parts = ["\\data\\", *heads]
        for length, grams in enumerate(orders, 1):
            backoffs = self.backoffs[length - 1] if length <= len(self.backoffs) else {}
            parts += ["", f"\\{length}-grams:"]
            parts += [
                f"{log10(share):.5f} {' '.join(gram)} {log10(backoffs.get(gram, 1.0)):.5f}"
                if length <= len(self.backoffs)
                else f"{log10(share):.5f} {' '.join(gram)}"
                for gram, share in sorted(grams.items())
            ]
        return "\n".join([*parts, "", "\\end\\", ""])


def _grams(sentences: Sequence[Sequence[str]], length: int) -> Counter[Gram]:
    found: Counter[Gram] = Counter()
    for sentence in sentences:
        words = [_START, *sentence, _END]
        found.update(
            tuple(words[start : start + length]) for start in range(len(words) - length + 1)
        )
    return found
