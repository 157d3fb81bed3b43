r"""Matrix sentences: every one of five words from a list of ten, for intelligibility tests.

    python samples/matrix_sentences.py --train 1500 --test 40 -o matrix/
    python samples/natural_speech.py matrix/train.txt corpus/ --engine piper --piper-voice VOICE ...

Such sentences ("Peter wants seven old tables") have been used to measure how well people understand
speech since Hagerman (1982): no word can be guessed from its neighbors, and fifty words are soon
learned. So a small text-to-speech model becomes intelligible within a short run, and word error
rates can compare runs that general English would leave at 1. The lists are common words, many of
them also in published tests of this kind; no sentence is in both files.
"""

import argparse
import itertools
import math
import random
from pathlib import Path

_LISTS = (
    "Peter Helen Robert Susan Martin Laura Victor Nancy Oliver Grace",
    "wants sold found gave needs painted counted hides borrowed makes",
    "two three four five six seven eight nine ten twelve",
    "old green heavy small broken yellow cheap pretty dark wooden",
    "tables flowers boxes spoons windows rings jackets houses bottles pictures",
)
WORDS = tuple(words.split() for words in _LISTS)


def sentences(count: int, seed: int = 0) -> list[str]:
    """So many different sentences, in random order.

    Raises:
        ValueError: there are not so many.
    """
    combinations = list(itertools.product(*WORDS))
    if not 0 < count <= len(combinations):
        raise ValueError(f"count is {count}; expected 1 to {len(combinations):,}")
    return [" ".join(words) + "." for words in random.Random(seed).sample(combinations, count)]


def main() -> None:
    """Write the sentences to train on and those to test on."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--train", type=int, default=1500, help="sentences in train.txt")
    parser.add_argument("--test", type=int, default=40, help="sentences in test.txt")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder of both")
    arguments = parser.parse_args()
    wanted, most = (arguments.train, arguments.test), math.prod(map(len, WORDS))
    if min(wanted) < 1 or sum(wanted) > most:
        parser.error(
            f"--train is {wanted[0]} and --test is {wanted[1]}; give at least 1 each, and at most "
            f"{most:,} together"
        )
    made = sentences(sum(wanted))
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, lines in (("train", made[arguments.test :]), ("test", made[: arguments.test])):
        (arguments.output / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
