"""Everyday sentences made up from templates.

A file of templates has lines ``@slot: first | second | ...``, the rest are sentences with
``{slot}`` for a phrase out of that list; phrases may have slots too.
"""

import itertools
import random
import re
from pathlib import Path

SLOT = re.compile(r"\{(\w+)\}")


def read_templates(path: Path) -> tuple[dict[str, list[str]], list[str]]:
    """The slots of a file with their phrases, and its sentences.

    Raises:
        SystemExit: a sentence has a slot that the file does not define.
    """
    slots: dict[str, list[str]] = {}
    sentences = []
    for line in filter(None, map(str.strip, path.read_text(encoding="utf-8").split("\n"))):
        if defined := re.fullmatch(r"@(\w+): (.+)", line):
            phrases = [phrase.strip() for phrase in defined[2].split("|")]
            slots.setdefault(defined[1], []).extend(phrases)
        elif not line.startswith("#"):
            sentences.append(line)
    lines = [*sentences, *itertools.chain.from_iterable(slots.values())]
    used = {name for line in lines for name in SLOT.findall(line)}
    if unknown := used - set(slots):
        raise SystemExit(f"{path} uses {', '.join(sorted(unknown))} and does not say what that is")
    return slots, sentences


def expand_templates(path: Path, count: int, seed: int) -> list[str]:
    """So many sentences, every template about equally often; none where there is no file."""
    if not path.exists():
        return []
    slots, templates = read_templates(path)
    chosen = random.Random(seed)
    return [_filled(templates[number % len(templates)], slots, chosen) for number in range(count)]


def _filled(template: str, slots: dict[str, list[str]], chosen: random.Random) -> str:
    """A sentence; the same slot twice gives two different phrases where there are two."""
    used: set[str] = set()
    while found := SLOT.search(template):
        phrases = [phrase for phrase in slots[found[1]] if phrase not in used]
        phrase = chosen.choice(phrases or slots[found[1]])
        used.add(phrase)
        template = template[: found.start()] + phrase + template[found.end() :]
    return template[0].upper() + template[1:]
