"""`moss-audio train`: recipe and keys reach the trainer; what the user can repair exits with 2."""

import sys

import pytest

from moss_audio_tokenizer.errors import TrainingError
from moss_audio_tokenizer.training import recipes


class ToyTrainer:
    """Reports a line and returns a folder; fails when told to."""

    fails_at = ""

    def __init__(self, config, resume, report):
        self.config, self.resume, self.report = config, resume, report
        if self.fails_at == "start":
            raise TrainingError("no output folder; set output=DIR")

    def run(self):
        if self.fails_at == "run":
            raise TrainingError("step 7: losses are not finite")
        self.report(f"seed {self.config.seed} resume {self.resume}")
        return f"{self.config.output}/final"


@pytest.fixture
def trainer(monkeypatch):
    """The toy trainer in place of the real ones."""
    monkeypatch.setattr(recipes, "trainer_for", ToyTrainer)
    monkeypatch.setattr(ToyTrainer, "fails_at", "")
    return ToyTrainer


def test_keys_and_resume_reach_the_trainer(trainer, moss_audio):
    result = moss_audio("train", "bundled", "output=runs/a", "seed=3", "--resume")
    assert result.exit_code == 0, result.output
    assert result.stdout == "runs/a/final\n"
    assert result.stderr == "seed 3 resume True\n"


def test_recipe_alone(trainer, moss_audio):
    assert moss_audio("train", "bundled").stderr == "seed 0 resume False\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "no recipe 'nonsense'"),
        (["bundled", "nonsense=1"], "unknown key 'nonsense'"),
        (["bundled", "data.nonsense=1"], "unknown key 'data.nonsense'"),
        (["bundled", "seed=x"], "seed is 'x'"),
        (["bundled", "seed"], "expected key=value"),
        (["bundled", "max_steps=0"], "max_steps is 0"),
    ],
)
def test_bad_recipes_and_keys(trainer, refused, arguments, message):
    assert message in refused("train", *arguments)


@pytest.mark.parametrize(("moment", "code"), [("start", 2), ("run", 1)])
def test_what_the_user_can_repair_and_what_failed(trainer, refused, monkeypatch, moment, code):
    monkeypatch.setattr(trainer, "fails_at", moment)
    refused("train", "bundled", code=code)


def test_missing_extra(refused, monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.startswith("moss_audio_tokenizer.training")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    line = refused("train", "bundled", f"output={tmp_path / 'run'}", code=1)
    assert line.endswith("pip install 'moss-audio-tokenizer[train]'")


def test_all_keys_of_a_recipe_are_shown(moss_audio, refused):
    result = moss_audio("train", "decoder", "max_steps=7", "--show")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "max_steps=7" in lines
    assert all("=" in line for line in lines)
    assert "no recipe 'decode'; did you mean decoder?" in refused("train", "decode", "--show")
