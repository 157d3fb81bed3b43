"""The documentation runs: its marked Python examples, and the commands that CI takes from it."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def marked_blocks(page: Path, marker: str, language: str) -> dict[str, str]:
    """The fenced blocks of a page that directly follow ``<!-- marker -->``, by page and line."""
    text = page.read_text(encoding="utf-8")
    fence = rf"^<!-- {marker} -->\n+```{language}\n(.*?)^```$"
    return {
        f"{page.name}:{text.count(chr(10), 0, block.start()) + 1}": block[1]
        for block in re.finditer(fence, text, re.MULTILINE | re.DOTALL)
    }


EXAMPLES = {
    place: code
    for page in PAGES
    for place, code in marked_blocks(page, "example", "python").items()
}


@pytest.mark.parametrize("place", EXAMPLES)
def test_example_runs(place, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[place], place, "exec"), {"__name__": "__main__"})  # noqa: S102


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_marker_has_its_block(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<!-- example -->") == len(marked_blocks(page, "example", "python"))


def readme_command(marker: str) -> str:
    """The one command that README.md gives after a marker."""
    (command,) = marked_blocks(ROOT / "README.md", marker, "bash").values()
    return command.strip()


def make_recipe(target: str) -> str:
    """The command lines of a target of the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", text, re.MULTILINE)
    assert found is not None, f"the Makefile has no target {target}"
    return found[1].replace("\t", "").strip()


@pytest.mark.parametrize("marker", ["main-command", "test-command"])
def test_ci_runs_the_command(marker):
    assert readme_command(marker)
    assert f"run_readme_command {marker}" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_test_command_is_what_make_does():
    assert readme_command("test-command") == f"{make_recipe('install')} && {make_recipe('test')}"


def test_main_command_uses_a_recording_that_ships():
    recordings = [
        word for word in shlex.split(readme_command("main-command")) if "samples/" in word
    ]
    assert recordings
    assert all((ROOT / recording).is_file() for recording in recordings)
