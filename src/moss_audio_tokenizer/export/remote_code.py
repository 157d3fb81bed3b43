"""A model repository that needs transformers and PyTorch, but not this package.

Owns how the reference codec becomes the Python files that ``trust_remote_code=True`` runs:
the sources of the modules listed here are joined, without the imports between them and without
the shape annotations. Because the files are made from the reference, they cannot drift from it.
"""

import ast
import json
import re
from collections.abc import Iterable
from pathlib import Path

from .. import __version__
from ..checkpoint.codec_checkpoint import FEATURE_EXTRACTOR_NAME, write_json
from ..checkpoint.port_layout import feature_extractor_config
from ..checkpoint.stored_weights import CONFIG_NAME
from ..config import codec_config_from_released
from ..errors import MossAudioError

PACKAGE = Path(__file__).parents[1]
CONFIGURATION = "configuration_moss_audio_tokenizer"
MODELING = "modeling_moss_audio_tokenizer"
FEATURE_EXTRACTION = "feature_extraction_moss_audio_tokenizer"
# Modules of this package that make up each file; what is used stands before its user.
CONFIGURATION_SOURCES = (
    "errors.py",
    "config/codec.py",
    "config/released.py",
    "config/presets.py",
    "hf/configuration.py",
)
MODELING_SOURCES = (
    "model/attention.py",
    "model/transformer.py",
    "model/quantizer.py",
    "model/codec.py",
    "checkpoint/key_names.py",
    "hf/model_outputs.py",
    "export/remote_model.py",
)
FEATURE_EXTRACTION_SOURCES = ("hf/feature_extraction.py",)
AUTO_MAP = {
    "AutoConfig": f"{CONFIGURATION}.MossAudioTokenizerConfig",
    "AutoModel": f"{MODELING}.MossAudioTokenizerModel",
    "AutoFeatureExtractor": f"{FEATURE_EXTRACTION}.MossAudioTokenizerFeatureExtractor",
}
# Annotations such as Float[Tensor, "batch frames"]: the repository does without jaxtyping.
_SHAPED = re.compile(r'\b(?:Float|Int|Bool)\[Tensor, "[^"]*"\]')
_SPLIT_SHAPED = re.compile(r'\b(?:Float|Int|Bool)\[\s*Tensor,\s*"[^"]*"\s*\]')


_CARD = """---
library_name: transformers
tags: [audio, codec, moss-audio-tokenizer]
---
# Audio tokenizer

{rate:g} kHz, {channels} channel(s), {frames:g} frames a second, up to {layers} codes a frame.
Written by `moss-audio export hf --remote-code` of moss-audio-tokenizer {version}.

```python
from transformers import AutoFeatureExtractor, AutoModel

extractor = AutoFeatureExtractor.from_pretrained("THIS_REPOSITORY", trust_remote_code=True)
model = AutoModel.from_pretrained("THIS_REPOSITORY", trust_remote_code=True)
inputs = extractor(audio, return_tensors="pt")  # a clip or a list of clips, floats in -1 to 1
codes = model.encode(**inputs).audio_codes
decoded = model.decode(codes).audio
```

Codes have the shape (num_quantizers, batch, frames). The package moss-audio-tokenizer loads this
folder too, and adds streaming, files and a command line.
"""


def add_remote_code(folder: Path) -> None:
    """Let transformers' ``AutoModel`` load the checkpoint in ``folder`` with ``trust_remote_code``.

    Writes the Python files, a card, the configuration of the feature extractor, and the
    ``auto_map`` of config.json.
    """
    write_remote_code(folder)
    config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    codec = codec_config_from_released(config)
    write_json(folder / CONFIG_NAME, {**config, "auto_map": AUTO_MAP})
    extractor = feature_extractor_config(codec) | {"auto_map": AUTO_MAP}
    write_json(folder / FEATURE_EXTRACTOR_NAME, extractor)
    card = _CARD.format(
        rate=codec.sampling_rate / 1000,
        channels=codec.number_channels,
        frames=codec.frame_rate,
        layers=codec.quantizer.num_quantizers,
        version=__version__,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def write_remote_code(folder: Path) -> None:
    """Write the Python files of a repository beside the weights in ``folder``."""
    configuration = joined_sources(CONFIGURATION_SOURCES)
    texts = {f"{CONFIGURATION}.py": configuration}
    for name, sources in (
        (MODELING, MODELING_SOURCES),
        (FEATURE_EXTRACTION, FEATURE_EXTRACTION_SOURCES),
    ):
        public = {name for name in _top_names(configuration) if not name.startswith("_")}
        shared = ", ".join(sorted(public & _used_names(sources)))
        text = joined_sources(sources, f"from .{CONFIGURATION} import {shared}")
        texts[f"{name}.py"] = text
    texts |= {
        "__init__.py": f'"""Moss audio tokenizer, made by moss-audio-tokenizer {__version__}."""\n',
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def joined_sources(sources: Iterable[str], *imports: str) -> str:
    """The text of one file that holds several modules of this package.

    Args:
        sources: paths of the modules, below the package's folder.
        *imports: import statements that the file needs besides theirs.

    Raises:
        MossAudioError: two modules define the same name.
    """
    outside, bodies, defined = set[str](), [], dict[str, str]()
    for source in sources:
        text = _with_private_prefix((PACKAGE / source).read_text(encoding="utf-8"), source)
        outside_here, body = _split_imports(text)
        outside |= outside_here
        for name in _top_names(body):
            if defined.setdefault(name, source) != source:
                raise MossAudioError(f"{name} is defined in {defined[name]} and in {source}")
        bodies.append(f"# ---- {source}\n\n{body}")
    header = (
        "# SPDX-License-Identifier: Apache-2.0\n"
        f"# Made from moss-audio-tokenizer {__version__} by `moss-audio export hf --remote-code`.\n"
        "# Changes belong there, not here.\n"
    )
    first = "from __future__ import annotations"
    return "\n".join([header, first, "", *_sorted_imports(outside), *imports, "", *bodies])


def _sorted_imports(statements: Iterable[str]) -> list[str]:
    """Import statements with one line for each module, in alphabetical order."""
    names: dict[str, set[str]] = {}
    lines = set()
    for statement in statements:
        node = ast.parse(statement).body[0]
        if isinstance(node, ast.ImportFrom):
            names.setdefault(str(node.module), set()).update(map(ast.unparse, node.names))
        else:
            lines.add(statement)
    lines |= {f"from {module} import {', '.join(sorted(names[module]))}" for module in names}
    return sorted(lines)


def _with_private_prefix(text: str, source: str) -> str:
    """Private names of a module with the module's name in front, since files share one scope."""
    stem = Path(source).stem
    for name in _top_names(text):
        if name.startswith("_") and not name.startswith("__"):
            text = re.sub(rf"(?<![\w.]){name}\b", f"_{stem}_{name}", text)
    return text


def _split_imports(text: str) -> tuple[set[str], str]:
    """The statements that import from elsewhere, and the text without any top-level import."""
    lines, outside = text.splitlines(keepends=True), set()
    for node in reversed(ast.parse(text).body):
        is_checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if is_checking or isinstance(node, ast.Import | ast.ImportFrom):
            imports = node.body if isinstance(node, ast.If) else [node]
            outside |= {ast.unparse(item) for item in imports if _comes_along(item)}
            del lines[node.lineno - 1 : node.end_lineno]
    body = _SPLIT_SHAPED.sub("Tensor", _SHAPED.sub("Tensor", "".join(lines)))
    return outside, body.strip() + "\n\n"


def _comes_along(node: ast.stmt) -> bool:
    """Whether an import is needed in the repository too: not this package's, not jaxtyping's."""
    if isinstance(node, ast.ImportFrom):
        return node.level == 0 and node.module not in ("jaxtyping", "__future__")
    return isinstance(node, ast.Import)


def _top_names(text: str) -> set[str]:
    """The names that a module defines."""
    names = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {item.id for item in targets if isinstance(item, ast.Name)}
    return names


def _used_names(sources: Iterable[str]) -> set[str]:
    """Every name that occurs in some modules."""
    trees = [ast.parse((PACKAGE / source).read_text(encoding="utf-8")) for source in sources]
    return {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
