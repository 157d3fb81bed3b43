"""The public face of the package: its names, and what importing it must not load."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import moss_audio_tokenizer

ROOT = Path(__file__).parents[1]
PUBLIC_NAMES = [
    "AudioCodes",
    "MossAudioError",
    "MossAudioTokenizerConfig",
    "MossAudioTokenizerModel",
    "OnnxAudioTokenizer",
    "load_audio",
    "load_codec",
    "save_audio",
]
TORCH_FREE_MODULES = [
    *("audio", "cli.main", "codes", "config", "errors", "evaluation", "evaluation.baselines"),
    *(
        "evaluation.listening_results",
        "evaluation.speed",
        "export.onnx_export",
        "metrics",
        "checkpoint.stored_weights",
    ),
    *("onnx.tokenizer", "streaming", "training.data.preparing", "training.data.audio_data"),
    *("training.data.coded_data", "training.data.speaking", "training.data.audio_rows"),
    *("serve.app", "serve.client"),
    *(
        "bulk.tokenizing",
        "bulk.detokenizing",
        "bulk.shard_statistics",
        "codes.shards",
        "sources.recordings",
    ),
]


def modules_loaded_by(statement: str) -> set[str]:
    """Run a statement in a fresh interpreter; the top-level modules it leaves loaded."""
    program = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_public_names_are_pinned():
    assert moss_audio_tokenizer.__all__ == PUBLIC_NAMES
    assert sorted(PUBLIC_NAMES) == PUBLIC_NAMES


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_every_public_name_resolves(name):
    assert getattr(moss_audio_tokenizer, name).__name__ == name


def test_dir_lists_the_public_names_before_they_are_loaded():
    assert set(PUBLIC_NAMES) <= set(dir(moss_audio_tokenizer))


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'moss_audio_tokenizer' has no attribute 'Tokeniser'"):
        moss_audio_tokenizer.Tokeniser  # noqa: B018


def test_version_is_stated_once_and_in_the_changelog():
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert 'dynamic = ["version"]' in project
    assert not re.search(r"^version = ", project, re.M)
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert newest is not None
    assert moss_audio_tokenizer.__version__ == newest[1]


def test_import_is_light():
    heavy = {"torch", "transformers", "numpy", "soundfile", "soxr", "rich", "typer"}
    assert not heavy & modules_loaded_by("import moss_audio_tokenizer")


@pytest.mark.parametrize("module", TORCH_FREE_MODULES)
def test_import_does_not_load_torch(module):
    loaded = modules_loaded_by(f"import moss_audio_tokenizer.{module}")
    assert not {"torch", "transformers"} & loaded


def test_only_training_imports_tensorboard():
    package = ROOT / "src" / "moss_audio_tokenizer"
    imports = re.compile(r"^\s*(import|from)\b.*\btensorboard\b", re.MULTILINE)
    users = {path for path in package.rglob("*.py") if imports.search(path.read_text("utf-8"))}
    assert {path.relative_to(package).parts[0] for path in users} <= {"training"}


@pytest.mark.parametrize("folder", ["benchmarks", "recipes", "samples"])
def test_programs_outside_the_package_import_names_that_it_has(folder):
    lacking = []
    for path in sorted((ROOT / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            source = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if source.partition(".")[0] == moss_audio_tokenizer.__name__:
                module = import_module(source)
                names = [alias.name for alias in node.names]
                lacking += [f"{path.name}: {name}" for name in names if not hasattr(module, name)]
    assert lacking == []
