"""The paper's results (arXiv 2602.10934, Tables 2 to 4) and the settings that they were made with.

Owns `published.json`, as summaries and cells that tables and plots can show beside measured ones.
The figures were measured by the paper's authors on their data; every row says so.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

from .pages import Table
from .summary import Average, Summary

PUBLISHED = "published, on the paper's data"

TABLE2_BITRATES = (750, 1000, 1500, 2000, 3000, 4000)
"""Bits a second at which Table 2 shows MOSS-Audio-Tokenizer."""

TABLE2_METRICS = ("stoi", "pesq_nb", "pesq_wb", "mel_distance", "stft_distance")
"""Metrics of Table 2 that need no scoring model; its SIM is `speaker_similarity`."""

OURS = "MOSS-Audio-Tokenizer"
"""The paper's own codec among the published rows."""

# Names that manifests give to AudioSet's kind of clips.
_SOUND_DOMAINS = ("sound", "audio")


def short_name(name: str) -> str:
    """A codec's name without the words that most of them share."""
    for ending in ("-Audio-Tokenizer", "-TTS-Tokenizer", "-Tokenizer", "Tokenizer"):
        name = name.removesuffix(ending)
    return name


def published_codecs(domains: Sequence[str], languages: Sequence[str] = ()) -> list[Summary]:
    """Table 2 as summaries of the given domains.

    Args:
        domains: those of the measured clips; of others nothing is returned.
        languages: those of the measured clips of speech; Chinese rows are for "zh" alone,
            English ones for every other language.
    """
    document = _document()
    found = []
    for domain in domains:
        for kind in _kinds(domain, languages):
            rows = [row for row in document["table2"] if kind in row["results"]]
            rows.sort(key=lambda row: float(row["bits_per_second"]))
            found += [_summary(row, domain, kind, document["data"][kind]) for row in rows]
    return found


def _kinds(domain: str, languages: Sequence[str]) -> list[str]:
    if domain in _SOUND_DOMAINS:
        return ["sound"]
    if domain != "speech":
        return [domain]
    chinese = any(language.startswith("zh") for language in languages)
    other = not languages or any(not language.startswith("zh") for language in languages)
    return ["speech en"] * other + ["speech zh"] * chinese


def _summary(row: dict[str, Any], domain: str, kind: str, data: str) -> Summary:
    kbps = row["bits_per_second"] / 1000
    return Summary(
        model=row["model"],
        num_quantizers=row["num_quantizers"],
        domain=domain,
        language="",
        kbps=kbps,
        actual_kbps=kbps,
        delay_ms=0.0,
        num_clips=0,
        num_failed=0,
        metrics={name: Average(value, None, 0) for name, value in row["results"][kind].items()},
        published=data,
    )


def published_speech(name: str) -> Table:
    """Table 3 (speech synthesis) or Table 4 (speech recognition), by "table3" or "table4"."""
    document = _document()
    caption = f"{PUBLISHED}: {document['data'][name]} ({document['source']})"
    columns = document["columns"][name]
    cells = tuple(tuple(_cell(row[key]) for key in columns) for row in document[name])
    return Table(tuple(columns.values()), cells, caption)


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    text = files(__package__).joinpath("published.json").read_text("utf-8")
    return json.loads(text)
