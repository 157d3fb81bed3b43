"""A data set of short clips, some of them corrupt, and what a run over it leaves."""

import shutil
from pathlib import Path

import pytest
from bulk_codec import ToyChoice
from short_clips import SMALL, write_clips

from moss_audio_tokenizer.bulk import Tokenizing, tokenize


@pytest.fixture(scope="session")
def manifest(tmp_path_factory):
    """Thirty clips, two of them corrupt; not to be changed."""
    return write_clips(tmp_path_factory.mktemp("bulk") / "data", 30, corrupt=(3, 17))


@pytest.fixture(scope="session")
def finished(manifest):
    """The folder of an uninterrupted run; not to be changed."""
    settings = Tokenizing(str(manifest), **SMALL)
    tokenize(settings, manifest.parent.parent / "finished", ToyChoice(), workers=1)
    return manifest.parent.parent / "finished"


@pytest.fixture
def clean(finished, tmp_path):
    """A copy of `finished`."""
    return Path(shutil.copytree(finished, tmp_path / "clean"))


@pytest.fixture
def contents():
    """What a run wrote: every file of the result, without locks and hidden files."""

    def read(folder):
        paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"]
        assert not [path for path in paths if path.name.startswith(".")]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}

    return read
