r"""Sentences for natural_speech.py: from public-domain books and from templates of our own.

    python samples/natural_texts.py train packages/ texts/en.txt --arctic cmuarctic.data
    python samples/natural_texts.py train packages/ texts/es.txt --language es
    python samples/natural_texts.py test packages/ texts/test.txt
    python samples/natural_texts.py speech-test packages/ texts/speech_test.txt

Writes 3 to 22 words a line, with numbers and abbreviations in words. Of English, the 720 Harvard
sentences, a tenth of the CMU Arctic prompts and the sentences of test.txt and speech_test.txt are
never in a training text: they are the test. ``packages/`` holds packages of Debian and npm,
unpacked (README.md).
"""

import argparse
import hashlib
import random
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from natural_sources import SOURCES, arctic_prompts, harvard_sentences
from natural_templates import expand_templates

SENTENCES = Path(__file__).with_name("sentences")
LEAST_WORDS, MOST_WORDS = 3, 22
LONGEST_WORD = 18
HARVARD_TEST = 13
# How much of a source is used, beside ``--most`` sentences of the others: old or odd English less.
SHARES = {"templates": 1.6, "austen": 0.6, "bible": 0.3, "fortunes": 0.3}
# What num2words calls the languages, where it has them; others write their numbers in words.
NUMBER_LANGUAGES = {"en": "en", "es": "es", "fr": "fr", "it": "it", "pt": "pt_BR"}
ABBREVIATIONS = {
    "Mr.": "Mister",
    "Mrs.": "Missus",
    "Dr.": "Doctor",
    "St.": "Saint",
    "etc.": "et cetera",
    "e.g.": "for example",
    "i.e.": "that is",
    "vs.": "versus",
    "&": "and",
    "%": " percent",
}
# A sentence with anything else is left out: it would be read aloud in some other way.
# The numbers are dashes, marks of Hindi, and full-width marks of Chinese and Japanese.
HINDI = r"\u0900-\u097f"
MARKS = rf".,;:!?'\"¿¡\-\u2013\u2014{HINDI}\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f"
PLAIN = re.compile(rf"[\w\s{MARKS}]+")
QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "`": "'"})


def normalized(text: str) -> str:
    """Lower-case words without marks, to compare sentences by."""
    text = unicodedata.normalize("NFKC", text).lower().translate(QUOTES)
    return " ".join(re.findall(rf"[\w'{HINDI}]+", text))


def is_held_out(text: str) -> bool:
    """Whether a prompt is in the tenth that is kept for tests, by the hash of its words."""
    digest = hashlib.sha256(normalized(text).encode()).digest()
    return int.from_bytes(digest[:8], "big") % 10 == 0


def spoken(text: str, language: str) -> str:
    """Numbers and common abbreviations in words, plain quotation marks, single spaces."""
    text = unicodedata.normalize("NFC", text)
    text = text.translate(QUOTES).replace("--", " - ")
    if language == "en":
        for short, long in ABBREVIATIONS.items():
            text = text.replace(short, long)
    if language in NUMBER_LANGUAGES:
        text = re.sub(r"\d+(?:,\d{3})+", lambda found: found[0].replace(",", ""), text)
        text = re.sub(r"\d+", lambda found: _in_words(found[0], language), text)
    return re.sub(r"\s+", " ", text).strip(" -")


def _in_words(digits: str, language: str) -> str:
    """A number; one that looks like a year is read as a year, one too long digit by digit."""
    from num2words import num2words

    code = NUMBER_LANGUAGES[language]
    if len(digits) > 6 or (len(digits) > 1 and digits[0] == "0"):
        return " ".join(num2words(int(digit), lang=code) for digit in digits)
    is_year = language == "en" and len(digits) == 4 and 1100 <= int(digits) < 2100
    return num2words(int(digits), lang=code, to="year" if is_year else "cardinal")


def is_usable(text: str) -> bool:
    """Whether a sentence has a fit length and nothing that cannot be read aloud plainly."""
    words = text.split()
    spaced = not re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", text)
    fits = LEAST_WORDS <= len(words) <= MOST_WORDS if spaced else 5 <= len(text) <= 60
    letters = text.replace(" ", "")
    shouted = sum(map(str.isupper, letters)) > 0.4 * max(len(letters), 1)
    long = spaced and max(map(len, words), default=0) > LONGEST_WORD
    balanced = text.count('"') % 2 == 0
    return fits and not shouted and not long and balanced and bool(PLAIN.fullmatch(text))


def cleaned(texts: Iterable[str], language: str, excluded: set[str]) -> list[str]:
    """Usable sentences, each once, none that is excluded.

    Args:
        texts: sentences as a source has them.
        language: of all of them.
        excluded: ``normalized`` sentences; those kept are added.
    """
    kept = []
    for text in texts:
        if re.search(r"\d[.:/]\d", text):
            continue
        text = spoken(text, language)
        key = normalized(text)
        if is_usable(text) and key not in excluded:
            excluded.add(key)
            kept.append(text)
    return kept


def excluded_sentences(packages: Path, arctic: Path | None) -> set[str]:
    """Of English, what is kept for tests."""
    texts = harvard_sentences(packages) + test_sentences() + speech_test_texts(packages)
    texts += [text for text in arctic_prompts(arctic) if is_held_out(text)]
    return {normalized(text) for text in texts} | {normalized(spoken(t, "en")) for t in texts}


def test_sentences() -> list[str]:
    """Our own sentences of the test set."""
    return (SENTENCES / "test.txt").read_text(encoding="utf-8").splitlines()


def speech_test_texts(packages: Path) -> list[str]:
    """What CAT-TTS is asked to say: 100 Harvard sentences, and 50 of our own."""
    own = (SENTENCES / "speech_test.txt").read_text(encoding="utf-8").splitlines()
    return harvard_sentences(packages)[::7][:100] + own


def test_texts(packages: Path) -> list[str]:
    """Harvard sentences from all over the lists, and our own."""
    harvard = harvard_sentences(packages)
    step = len(harvard) // HARVARD_TEST
    return harvard[::step][:HARVARD_TEST] + test_sentences()


def training_texts(
    packages: Path, language: str, most: int, seed: int, arctic: Path | None = None
) -> list[str]:
    """Sentences of all sources of a language.

    Args:
        packages: folder of unpacked packages; a source that is not there is left out.
        language: of the sentences.
        most: sentences of a source, times its share.
        seed: of the choice.
        arctic: the CMU Arctic prompts; nine tenths of them are used.
    """
    excluded = excluded_sentences(packages, arctic) if language == "en" else set()
    shuffled = random.Random(seed)
    templates = SENTENCES / f"{language}.txt"
    found = {"templates": expand_templates(templates, 2 * most, seed)}
    found |= {name: read(packages) for name, read in SOURCES.get(language, {}).items()}
    if arctic is not None:
        found["arctic"] = arctic_prompts(arctic)
    kept = []
    for name, texts in found.items():
        usable = cleaned(texts, language, excluded)
        shuffled.shuffle(usable)
        used = usable[: int(most * SHARES.get(name, 1))]
        print(f"{name}: {len(usable)} sentences, {len(used)} used")
        kept += used
    return sorted(kept, key=normalized)


def main() -> None:
    """Write the sentences of a training set or of a test set."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kind", choices=("train", "test", "speech-test"))
    parser.add_argument("packages", type=Path, help="folder of unpacked packages")
    parser.add_argument("output", type=Path, help="to write, a sentence a line")
    parser.add_argument("--language", default="en")
    parser.add_argument("--most", type=int, default=2500, help="sentences of any source")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arctic", type=Path, help="cmuarctic.data, the CMU Arctic prompts")
    given = parser.parse_args()
    if given.kind == "test":
        texts = test_texts(given.packages)
    elif given.kind == "speech-test":
        texts = speech_test_texts(given.packages)
    else:
        texts = training_texts(given.packages, given.language, given.most, given.seed, given.arctic)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    print(f"{len(texts)} sentences in {given.output}")


if __name__ == "__main__":
    main()
