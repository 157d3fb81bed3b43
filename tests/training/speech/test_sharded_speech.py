"""Speech models with sharded weights: two processes do what one does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toy_speech
from safetensors.torch import load_file
from toy_run import read_log
from toy_speech import KINDS, language_config, write_codes

from moss_audio_tokenizer.training.recipes import trainer_for

TIMEOUT_SECONDS = 300


def run(kind: str, output: Path, codes: str, **changes) -> None:
    config = language_config(kind, output, codes, max_steps=2, checkpoint_every=2, **changes)
    trainer_for(config, report=lambda _: None).run()


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


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_with_sharded_weights_do_what_one_does(kind, tmp_path):
    # A pair of processes a kind: a second process group at the same address can wait for ever.
    codes = write_codes(tmp_path)
    outputs = tmp_path / "one", tmp_path / "two"
    run_in_two_processes(kind, outputs[1], codes)
    run(kind, outputs[0], codes, accumulate=2)
    one, two = (read_log(output) for output in outputs)
    assert [line["total"] for line in two] == pytest.approx(
        [line["total"] for line in one], rel=1e-5
    )
    one, two = (load_file(output / "final/model.safetensors") for output in outputs)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), sys.argv[3], shard=True)
