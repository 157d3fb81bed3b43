"""Test sets of speech synthesis: texts and prompts, from a text file, a manifest, or a .lst file.

Owns the three formats (the last is Seed-TTS-Eval's) and the choice of prompts; it opens no sound.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import InputError
from ...manifest import ManifestEntry, manifest_lines, read_manifest


@dataclass(frozen=True)
class SpeechItem:
    """A text to synthesize, and the recording that prompts the voice.

    Attributes:
        name: name of the item, unique among the items.
        text: text to synthesize.
        prompt: path of the recording, or None.
        prompt_name: path of the recording as the list has it.
        prompt_text: transcript of the recording.
        language: language of the text, such as "en" or "zh"; "" where that is not known.
    """

    name: str
    text: str
    prompt: Path | None = None
    prompt_name: str = ""
    prompt_text: str = ""
    language: str = ""


def read_test_items(
    path: Path, prompts: Path | None = None, split: str | None = None, limit: int | None = None
) -> list[SpeechItem]:
    """The items of a file.

    Args:
        path: by its extension: ``.jsonl``, a manifest of texts (a line may name its
            own ``prompt_path`` and ``prompt_text``); ``.lst``, Seed-TTS-Eval's
            ``name|prompt text|prompt path|text``; any other, a text per line.
        prompts: a manifest of recordings with texts: a text of a known speaker gets another
            recording of that speaker, any other one the next in turn.
        split: split of both manifests; None is all.
        limit: how many items from the first; None is all.

    Raises:
        InputError: a file cannot be read, has no texts, or has prompts without text.
    """
    readers = {".jsonl": _of_manifest, ".lst": _of_list}
    pairs = readers.get(path.suffix, _of_lines)(path, split)[:limit]
    items = [item for item, _ in pairs]
    if not items:
        raise InputError(f"{str(path)!r} has no texts; expected at least one")
    _check_names(items, path)
    if prompts is None:
        return items
    clips = [clip for clip in read_manifest(prompts, split, "speech") if clip.text]
    if not clips:
        raise InputError(f"{str(prompts)!r} has no speech with a text; prompts need what they say")
    return [
        item if item.prompt else _prompted(item, _chosen(index, entry, clips))
        for index, (item, entry) in enumerate(pairs)
    ]


def _check_names(items: Sequence[SpeechItem], path: Path) -> None:
    names = [item.name for item in items]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{str(path)!r} has {twice!r} twice; expected each once")


def _chosen(
    index: int, entry: ManifestEntry | None, clips: Sequence[ManifestEntry]
) -> ManifestEntry:
    others = [
        clip
        for clip in clips
        if entry and entry.speaker and clip.speaker == entry.speaker and clip.path != entry.path
    ]
    return (others or clips)[index % len(others or clips)]


def _prompted(item: SpeechItem, clip: ManifestEntry) -> SpeechItem:
    return replace(item, prompt=clip.path, prompt_name=clip.name, prompt_text=clip.text)


Pairs = list[tuple[SpeechItem, ManifestEntry | None]]


def _of_manifest(path: Path, split: str | None) -> Pairs:
    pairs: Pairs = []
    for number, found in manifest_lines(path):
        if isinstance(found, InputError):
            raise found
        entry, line = found
        if not entry.text or entry.domain != "speech" or split not in (None, entry.split):
            continue
        name, text = line.get("prompt_path") or "", line.get("prompt_text") or ""
        if not isinstance(name, str) or not isinstance(text, str) or bool(name) != bool(text):
            raise InputError(
                f"{path} line {number} has prompt_path {name!r} and prompt_text {text!r}; "
                "expected texts, both or none"
            )
        prompt = path.parent.absolute() / name if name else None
        pairs.append(
            (SpeechItem(entry.name, entry.text, prompt, name, text, entry.language), entry)
        )
    return pairs


def _of_list(path: Path, split: str | None) -> Pairs:
    del split  # the format has none
    pairs: Pairs = []
    for number, line in enumerate(_lines(path), 1):
        cells = [cell.strip() for cell in line.split("|")]
        # A fifth is the recording of the text itself, which is not needed.
        if len(cells) not in (4, 5) or not all(cells[:4]):
            raise InputError(
                f"{path} line {number} is {line[:80]!r}; expected name|prompt text|prompt path|text"
            )
        name, prompt_text, prompt, text = cells[:4]
        folder = path.parent.absolute()
        language = _language_of(text)
        item = SpeechItem(name, text, folder / prompt, prompt, prompt_text, language)
        pairs.append((item, None))
    return pairs


def _language_of(text: str) -> str:
    """Seed-TTS-Eval does not name its two languages: a text with a Han character is Chinese."""
    return "zh" if any("\u4e00" <= letter <= "\u9fff" for letter in text) else "en"


def _of_lines(path: Path, split: str | None) -> Pairs:
    del split
    return [
        (SpeechItem(f"text {number}", line), None) for number, line in enumerate(_lines(path), 1)
    ]


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{str(path)!r} cannot be read ({error}); expected a text a line, or a .jsonl manifest"
        ) from error
    return [line.strip() for line in lines if line.strip()]
