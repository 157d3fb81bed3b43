"""A word language model for CAT-ASR, from plain texts of English.

    python samples/word_language_model.py TEXT [TEXT ...] -o word_lm.safetensors

Every TEXT has one sentence a line. Numbers and abbreviations become words, and marks are left out,
as in training texts of CAT-ASR; repeated sentences count once. The counts of TEXT@10 have weight
10, so that a few texts of the kind that is transcribed matter beside many others. Sentences that
share six words in a row with a text of a test (--exclude) are left out, as in book_sentences.py. A
tenth of the sentences measures a model of the others (perplexity); the model that is written has
counted all.

The installed model was made before that: of its books and Common Voice's sentences, those that
share six words in a row with a test were left out, as far as quotation marks and numbers did not
hide them; of its other texts, only sentences that are identical to one of a test.
"""

import argparse
import hashlib
import math
import re
from collections.abc import Iterable, Set
from pathlib import Path

from book_sentences import existing_file, is_file, runs_of_tests, without_tests

from moss_audio_tokenizer.speech.text_preparation import spell
from moss_audio_tokenizer.speech.tokens import LETTERS, CharacterText
from moss_audio_tokenizer.speech.word_language_model import WORD_LM_NAME, WordLanguageModel
from moss_audio_tokenizer.speech.word_ngrams import (
    MAX_BYTES,
    MAX_WORDS,
    WEIGHTS,
    build_word_language_model,
    plain_words,
)


def weighted_text(name: str) -> tuple[Path, int]:
    """The path and the weight in TEXT@WEIGHT; 1 without one, or where a file has the whole name.

    Raises:
        argparse.ArgumentTypeError: there is no such file, or the weight is wrong.
    """
    path, mark, weight = name.rpartition("@")
    if not mark or is_file(name):
        return existing_file(name), 1
    if not re.fullmatch("[0-9]{1,9}", weight) or int(weight) not in WEIGHTS:
        raise argparse.ArgumentTypeError(
            f"the weight in {name[:80]!r} is wrong; give a whole number from {WEIGHTS[0]} to "
            f"{WEIGHTS[-1]:,} behind @, or the name of a file"
        )
    return existing_file(path), int(weight)


def read_sentences(
    texts: Iterable[tuple[Path, int]], excluded: Set[str] = frozenset()
) -> dict[str, int]:
    """Normalized sentences with their weights, without those that share words with a test.

    Args:
        texts: paths and weights. A sentence in two texts takes the higher weight.
        excluded: `book_sentences.word_runs` of all texts of tests.
    """
    letters, found = CharacterText(LETTERS), dict[str, int]()
    for path, weight in texts:
        for line in path.read_text(encoding="utf-8").splitlines():
            sentence = " ".join(plain_words(spell(line, letters) or ""))
            if sentence and without_tests([line], excluded):
                found[sentence] = max(weight, found.get(sentence, 0))
    return found


def is_held_out(sentence: str) -> bool:
    """Whether a sentence is in the tenth that measures, by its hash."""
    return int.from_bytes(hashlib.sha256(sentence.encode()).digest()[:8], "big") % 10 == 0


def perplexity(model: WordLanguageModel, sentences: Iterable[str]) -> tuple[float, float]:
    """Perplexity, with the ends of sentences and unknown words as one word; share of these."""
    total, count, unknown = 0.0, 0, 0
    for sentence in sentences:
        score, num_words = model.score_sentence(sentence)
        total, count = total + score, count + num_words
        unknown += sum(not model.id_of(word) for word in sentence.split())
    return math.exp(-total / max(count, 1)), unknown / max(count, 1)


def main() -> None:
    """Count, measure, count again with all sentences, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument(
        "texts", nargs="+", type=weighted_text, metavar="TEXT[@WEIGHT]", help="a sentence a line"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path(WORD_LM_NAME))
    parser.add_argument(
        "--exclude", type=existing_file, nargs="*", default=[], help="texts of tests"
    )
    parser.add_argument("--words", type=int, default=MAX_WORDS, help="at most so many words")
    parser.add_argument("--bytes", type=int, default=MAX_BYTES, help="at most so many bytes")
    given = parser.parse_args()
    excluded = read_sentences((path, 1) for path in given.exclude)
    sentences = read_sentences(given.texts, runs_of_tests(given.exclude))
    held_out = [sentence for sentence in sentences if is_held_out(sentence)]
    print(f"{len(sentences)} sentences, {sum(len(text.split()) for text in sentences)} words")
    kept = {text: weight for text, weight in sentences.items() if not is_held_out(text)}
    part = build_word_language_model(kept, given.words, given.bytes)
    value, unknown = perplexity(part, held_out)
    print(f"perplexity {value:.1f} of {len(held_out)} held-out sentences, {unknown:.1%} unknown")
    model = build_word_language_model(sentences, given.words, given.bytes)
    model.save(given.output)
    if excluded:
        value, unknown = perplexity(model, sorted(excluded))
        print(f"perplexity {value:.1f} of excluded sentences, {unknown:.1%} unknown")
    print(f"{given.output}: {len(model.words)} words, {given.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
