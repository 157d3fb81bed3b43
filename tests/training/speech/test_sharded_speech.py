"""Speech models with sharded weights: two processes do what one does."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import toy_speech
from safetensors.torch import load_file
from toy_run import read_log
from toy_speech import (
    KINDS,
    aligned_config,
    encoder_config,
    language_config,
    write_aligner,
    write_codes,
)

from moss_audio_tokenizer.speech.phonemes import Lexicon
from moss_audio_tokenizer.training.recipes import trainer_for
from moss_audio_tokenizer.training.speech import tts_trainer
from moss_audio_tokenizer.training.speech.speech_trainer import _blocks
from moss_audio_tokenizer.tts import CatTtsConfig

TIMEOUT_SECONDS = 300


def config_of(kind: str, output: Path, codes: str, **changes):
    folder, changes = Path(codes).parent, {"max_steps": 2, "checkpoint_every": 2} | changes
    if kind == "asr_encoder":
        return encoder_config(output, codes, folder / "words.txt", **changes)
    if kind == "tts_encoder":
        return aligned_config(output, codes, folder / "aligner", **changes)
    return language_config(kind, output, codes, **changes)


def run(kind: str, output: Path, codes: str, **changes) -> None:
    with patch.object(tts_trainer, "CatTtsConfig", with_code_vectors):
        trainer_for(config_of(kind, output, codes, **changes), report=lambda _: None).run()


def with_code_vectors(**values) -> CatTtsConfig:
    """Weights that are not trained must not disturb sharding."""
    return CatTtsConfig(**values | {"code_vector_dim": 2})


def run_in_two_processes(kind: str, output: Path, codes: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = (str(Path(toy_speech.__file__).parent), os.environ.get("PYTHONPATH", ""))
    shared = {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
    }
    line = [sys.executable, __file__, kind, str(output), codes]
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    started = [
        subprocess.Popen(line, env=os.environ | shared | own, stderr=subprocess.PIPE, text=True)
        for own in ranks
    ]
    try:
        ends = [process.communicate(timeout=TIMEOUT_SECONDS)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], ends[0][-2000:] + ends[1][-2000:]


@pytest.fixture
def written(tmp_path) -> Path:
    """A manifest of codes, with what encoders need beside it."""
    write_aligner(tmp_path / "aligner")
    # In the first step one process alone has a text of known words, in the second none has.
    Lexicon({"caab": "sææb"}).save(tmp_path / "words.txt")
    return Path(write_codes(tmp_path))


@pytest.mark.parametrize("kind", [*KINDS, "asr_encoder", "tts_encoder"])
def test_two_processes_with_sharded_weights_do_what_one_does(kind, written, tmp_path):
    # A pair of processes a kind: a second process group at the same address can wait for ever.
    outputs = tmp_path / "one", tmp_path / "two"
    run_in_two_processes(kind, outputs[1], str(written))
    run(kind, outputs[0], str(written), accumulate=2)
    one, two = (read_log(output) for output in outputs)
    assert [line["total"] for line in two] == pytest.approx(
        [line["total"] for line in one], rel=1e-5
    )
    one, two = (load_file(output / "final/model.safetensors") for output in outputs)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)
    lexicons = {(output / "final/lexicon.txt").is_file() for output in outputs}
    assert lexicons == {kind.endswith("encoder")}


@pytest.mark.parametrize(
    ("kind", "count"), [("asr_encoder", 3), ("tts_encoder", 1 + 3), ("tts", 1)]
)
def test_blocks_of_language_models_and_encoders_are_sharded_one_by_one(kind, count, written):
    trainer = trainer_for(config_of(kind, written.parent / "run", str(written)), report=list)
    trainer.close()
    assert len(_blocks(trainer.task.model)) == count


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), sys.argv[3], shard=True)
