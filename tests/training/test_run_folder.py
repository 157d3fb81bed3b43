import json
import signal
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest

from moss_audio_tokenizer.errors import TrainingError
from moss_audio_tokenizer.training.codec.codec_config import (
    CodecOptimizerConfig,
    SpectraConfig,
    TrainingConfig,
    ValidationConfig,
)
from moss_audio_tokenizer.training.data.data_config import DataConfig
from moss_audio_tokenizer.training.recipes import recipe as find_recipe
from moss_audio_tokenizer.training.run_config import RunConfig, as_dict
from moss_audio_tokenizer.training.run_folder import RunFolder

HOLD = """
import sys, time
from moss_audio_tokenizer.training.run_folder import RunFolder
folder = RunFolder(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    opened = RunFolder(str(tmp_path / "run"))
    yield opened
    opened.close()


def begin_run(folder: RunFolder, config: TrainingConfig) -> None:
    """As a run leaves it: a recipe and a checkpoint."""
    folder.begin(config, 0)
    checkpoint = folder.path / "checkpoints" / "step-000003"
    checkpoint.mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "optimizer.safetensors", "state.json"):
        (checkpoint / name).write_text("{}")


def test_a_folder_must_be_named():
    with pytest.raises(TrainingError, match="set output=DIR"):
        RunFolder("")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(TrainingError, match="cannot write in"):
        RunFolder(str(tmp_path / "run"))


def test_a_folder_is_held_until_it_is_closed(tmp_path):
    first = RunFolder(str(tmp_path / "run"))
    with pytest.raises(TrainingError, match="in use by another run"):
        RunFolder(str(tmp_path / "run"))
    first.close()
    first.close()
    RunFolder(str(tmp_path / "run")).close()


def test_the_lock_dies_with_its_process(tmp_path):
    output = str(tmp_path / "run")
    with subprocess.Popen([sys.executable, "-c", HOLD, output], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(TrainingError, match="in use by another run"):
                RunFolder(output)
        finally:
            other.send_signal(signal.SIGKILL)
    RunFolder(output).close()


def test_a_fresh_start_has_no_checkpoint_and_resuming_needs_one(folder):
    assert folder.checkpoint_for(TrainingConfig(), resume=False) is None
    with pytest.raises(TrainingError, match="nothing to resume"):
        folder.checkpoint_for(TrainingConfig(), resume=True)


def test_a_fresh_start_in_the_folder_of_a_run_is_refused(folder):
    begin_run(folder, TrainingConfig())
    with pytest.raises(TrainingError, match=r"holds a run; pass --resume"):
        folder.checkpoint_for(TrainingConfig(), resume=False)


def test_a_run_of_an_earlier_version_is_resumed_by_the_names_of_today(folder):
    config = TrainingConfig(spectra=SpectraConfig(mel_windows=3))
    begin_run(folder, config)
    recipe = json.loads((folder.path / "recipe.json").read_text())
    del recipe["spectra"]
    recipe["losses"] |= {"mel_windows": 3, "phase_windows": 0, "phase_hertz": 700.0}
    recipe["adversarial"] |= {"betas": [0.8, 0.99], "clip_norm": 10.0}
    recipe["optimizer"]["clip_norm"], recipe["warm_start"]["noise"] = 1.0, 0.3
    recipe["data"]["max_gain_db"], recipe["semantic"]["max_tokens"] = 20.0, 512
    recipe["semantic"] |= {"tokenizer": "", "num_heads": 2}
    recipe["adversarial"]["learning_rate"] = 1e-4
    recipe |= {"log_every": 7, "keep_checkpoints": 4}
    (folder.path / "recipe.json").write_text(json.dumps(recipe))
    assert folder.checkpoint_for(config, resume=True).name == "step-000003"
    with pytest.raises(TrainingError, match=r"spectra\.mel_windows was 3 and is 0"):
        folder.checkpoint_for(TrainingConfig(), resume=True)
    recipe["adversarial"]["clip_norm"] = 1.0
    (folder.path / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(TrainingError, match=r"adversarial\.clip_norm was 1\.0"):
        folder.checkpoint_for(config, resume=True)


OLD_DEPTH = {
    "width": 192,
    "num_layers": 2,
    "num_heads": 3,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "feedforward": 512,
    "adapter_width": 0,
}


@pytest.mark.parametrize("name", ["asr_general", "tts_general"])
def test_a_run_of_speech_of_an_earlier_version_is_resumed(folder, name):
    config = find_recipe(name)
    begin_run(folder, config)
    old = json.loads((folder.path / "recipe.json").read_text())
    old["model"]["num_heads"] = 4
    old["data"] |= {"join_share": 0.2 if config.kind == "asr" else 0.5, "num_quantizers": 0}
    old["validation"] |= {"num_beams": 1} if config.kind == "asr" else {"max_seconds": 8.0}
    if config.kind == "tts":
        old |= {"depth": OLD_DEPTH, "place_weight": 4.0}
    (folder.path / "recipe.json").write_text(json.dumps(old))
    assert folder.checkpoint_for(config, resume=True)
    old["model"]["num_heads"] = 8
    (folder.path / "recipe.json").write_text(json.dumps(old))
    with pytest.raises(TrainingError, match=r"model\.num_heads was 8"):
        folder.checkpoint_for(config, resume=True)


def test_an_earlier_weight_of_durations_counts_only_beside_an_aligner(folder):
    config = find_recipe("tts_general")
    begin_run(folder, config)
    old = json.loads((folder.path / "recipe.json").read_text()) | {"place_weight": 1.0}
    (folder.path / "recipe.json").write_text(json.dumps(old))
    assert folder.checkpoint_for(config, resume=True)
    (folder.path / "recipe.json").write_text(json.dumps(old | {"aligner": "asr"}))
    with pytest.raises(TrainingError, match=r"place_weight was 1\.0"):
        folder.checkpoint_for(replace(config, aligner="asr"), resume=True)


def test_resuming_the_same_recipe_is_allowed(folder):
    begin_run(folder, TrainingConfig())
    found = folder.checkpoint_for(TrainingConfig(), resume=True)
    assert found is not None
    assert found.name == "step-000003"


@pytest.mark.parametrize(
    "changes",
    [
        {"max_steps": 7},
        {"threads": 2, "checkpoint_every": 1, "keep_best": True},
        {"output": "elsewhere"},
        {"validation": ValidationConfig(every=1, num_quantizers=(1,))},
        {"optimizer": CodecOptimizerConfig(decay_fraction=0.1)},
        {"data": DataConfig(manifest="moved.jsonl", max_unreadable_share=0.5)},
    ],
)
def test_what_leaves_the_steps_alone_may_change(folder, changes):
    begin_run(folder, TrainingConfig())
    assert folder.checkpoint_for(replace(TrainingConfig(), **changes), resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"data": DataConfig(batch_size=2)}, r"data\.batch_size was 8 and is 2"),
        ({"data": DataConfig(gain_db=(-20.0, -10.0))}, r"data\.gain_db was \[-32\.0, -14\.0\]"),
        ({"optimizer": CodecOptimizerConfig(learning_rate=1.0)}, r"learning_rate was 0\.0015"),
        ({"model": "tiny", "seed": 2}, "model was 'bundled' and is 'tiny'; seed was 0"),
    ],
)
def test_a_changed_recipe_is_refused_with_every_change(folder, changes, message):
    begin_run(folder, TrainingConfig())
    before = (folder.path / "recipe.json").read_bytes()
    with pytest.raises(TrainingError, match=message):
        folder.checkpoint_for(replace(TrainingConfig(), **changes), resume=True)
    assert (folder.path / "recipe.json").read_bytes() == before


def test_a_recipe_from_before_a_key_existed_had_its_default(folder):
    begin_run(folder, TrainingConfig())
    recipe = as_dict(TrainingConfig())
    del recipe["losses"]["mel"], recipe["data"]["max_unreadable_share"]
    (folder.path / "recipe.json").write_text(json.dumps(recipe))
    assert folder.checkpoint_for(TrainingConfig(), resume=True)


def test_a_key_that_is_gone_is_a_change(folder):
    begin_run(folder, TrainingConfig())
    recipe = as_dict(TrainingConfig()) | {"magic": 1}
    (folder.path / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(TrainingError, match="magic was 1 and is None"):
        folder.checkpoint_for(TrainingConfig(), resume=True)


@dataclass(frozen=True)
class OtherConfig(RunConfig):
    kind = "other"


def test_the_folder_of_another_kind_of_run_is_refused_in_a_line(folder):
    begin_run(folder, TrainingConfig())
    with pytest.raises(TrainingError, match=r"kind 'codec'.* kind 'other'; resume") as caught:
        folder.checkpoint_for(OtherConfig(), resume=True)
    assert "\n" not in str(caught.value)


def test_any_kind_of_run_is_resumed_and_lacks_no_keys_of_another(folder):
    begin_run(folder, OtherConfig())
    recipe = json.loads((folder.path / "recipe.json").read_text())
    assert recipe.pop("kind") == "other"
    assert recipe == json.loads(json.dumps(as_dict(OtherConfig())))
    assert folder.checkpoint_for(OtherConfig(), resume=True)
    with pytest.raises(TrainingError, match="seed was 0 and is 1"):
        folder.checkpoint_for(OtherConfig(seed=1), resume=True)


def test_a_recipe_from_before_kinds_was_a_codecs(folder):
    begin_run(folder, TrainingConfig())
    (folder.path / "recipe.json").write_text(json.dumps(as_dict(TrainingConfig())))
    assert folder.checkpoint_for(TrainingConfig(), resume=True)
    with pytest.raises(TrainingError, match="kind 'codec'"):
        folder.checkpoint_for(OtherConfig(), resume=True)


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_run_without_its_recipe_is_refused(folder, text):
    begin_run(folder, TrainingConfig())
    (folder.path / "recipe.json").unlink()
    if text is not None:
        (folder.path / "recipe.json").write_text(text)
    with pytest.raises(TrainingError, match=r"recipe\.json"):
        folder.checkpoint_for(TrainingConfig(), resume=True)


def test_logs_end_at_the_step_that_a_run_is_resumed_from(folder):
    log = folder.path / "metrics.jsonl"
    lines = [json.dumps({"step": step}) + "\n" for step in range(1, 6)]
    log.write_text("".join(lines) + '{"step": 2, "to')
    folder.begin(TrainingConfig(), 3)
    assert log.read_text() == "".join(lines[:3])
    folder.begin(TrainingConfig(), 0)
    assert log.read_text() == ""
    assert not (folder.path / "validation.jsonl").exists()
