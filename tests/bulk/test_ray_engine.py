"""A real Ray cluster on this machine, with a worker killed in the middle."""

import os
import sys

import pytest
from bulk_codec import ToyChoice
from short_clips import SMALL

from moss_audio_tokenizer.bulk import Tokenizing, tokenize
from moss_audio_tokenizer.errors import CodesFileError, MissingDependencyError

ray = pytest.importorskip("ray", reason="the extra ray is not installed")


@pytest.fixture(scope="module")
def cluster():
    """Two CPUs; small enough for any machine."""
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=80 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}},
    )
    yield
    ray.shutdown()


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_killed_actor_changes_no_byte(cluster, manifest, finished, tmp_path, contents):
    choice = ToyChoice(fatal=str(tmp_path / "died"))
    settings = Tokenizing(str(manifest), **SMALL)
    summary = tokenize(settings, tmp_path / "out", choice, "ray", workers=2)
    assert (tmp_path / "died").exists()
    assert summary["clips"] == 28
    assert contents(tmp_path / "out") == contents(finished)


class FullDisk(ToyChoice):
    """Fails in an actor with an error of ours."""

    def open(self, parts):
        codec = super().open(parts)

        def encode(*_, **__):
            raise CodesFileError("cannot write: no space left")

        codec.encode = encode
        return codec


@pytest.mark.filterwarnings("ignore")
def test_errors_of_actors_come_as_they_are(cluster, manifest, tmp_path):
    with pytest.raises(CodesFileError, match="no space left"):
        tokenize(Tokenizing(str(manifest)), tmp_path / "out", FullDisk(), "ray", workers=1)


def test_without_ray_the_extra_is_named(manifest, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"moss-audio-tokenizer\[ray\]"):
        tokenize(Tokenizing(str(manifest)), tmp_path / "out", ToyChoice(), "ray")
