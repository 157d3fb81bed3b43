"""A word language model for CAT-ASR, from plain texts of English.

    python samples/word_language_model.py TEXT [TEXT ...] -o word_lm.safetensors

Every TEXT has one sentence a line. Numbers and abbreviations become words, and marks are left out,
as in training texts of CAT-ASR; repeated sentences count once. The counts of TEXT@10 have weight
10, so that a few texts of the kind that is transcribed matter beside many others. A tenth of the
sentences measures a model of the others (perplexity); the model that is written has counted all.
"""

import argparse
import hashlib
import math
import re
from collections.abc import Container, Iterable
from pathlib import Path

from moss_audio_tokenizer.speech.text_preparation import spell
from moss_audio_tokenizer.speech.tokens import LETTERS, CharacterText
from moss_audio_tokenizer.speech.word_language_model import WORD_LM_NAME, WordLanguageModel
from moss_audio_tokenizer.speech.word_ngrams import (
    MAX_BYTES,
    MAX_WORDS,
    build_word_language_model,
    plain_words,
)


def read_sentences(names: Iterable[str], excluded: Container[str]) -> dict[str, int]:
    """Normalized sentences with their weights, without those that are excluded.

    Args:
        names: of files, each with ``@`` and a weight behind it where that is not 1.
        excluded: normalized sentences.
    """
    letters, found = CharacterText(LETTERS), dict[str, int]()
    for name in names:
        path, _, weight = (
            name.rpartition("@") if re.search(r"@[1-9]\d*$", name) else (name, "", "1")
        )
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            sentence = " ".join(plain_words(spell(line, letters) or ""))
            if sentence and sentence not in excluded:
                found[sentence] = max(int(weight), found.get(sentence, 0))
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
    parser.add_argument("texts", nargs="+", metavar="TEXT[@WEIGHT]", help="a sentence a line")
    parser.add_argument("-o", "--output", type=Path, default=Path(WORD_LM_NAME))
    parser.add_argument("--exclude", nargs="*", default=[], help="texts of tests")
    parser.add_argument("--words", type=int, default=MAX_WORDS, help="at most so many words")
    parser.add_argument("--bytes", type=int, default=MAX_BYTES, help="at most so many bytes")
    given = parser.parse_args()
    excluded = read_sentences(given.exclude, ())
    sentences = read_sentences(given.texts, excluded)
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
