"""Speech models with sharded weights: two processes do what one does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toy_speech
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from toy_run import read_log
from toy_speech import KINDS, language_config, write_codes

from moss_audio_tokenizer.training.build import trainer_for

TIMEOUT_SECONDS = 300


def run(kind: str, output: Path, codes: str, **changes) -> None:
    config = language_config(
        kind, output, codes, max_steps=2, log_every=1, checkpoint_every=2, **changes
    )
    trainer_for(config, report=lambda _: None).run()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> tuple[Path, str]:
    """Runs of both kinds by one pair of processes: their imports take longer than the steps."""
    folder = tmp_path_factory.mktemp("two")
    codes = write_codes(folder)
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
    line = [sys.executable, __file__, str(folder), codes]
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
    return folder, codes


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_with_sharded_weights_do_what_one_does(kind, two_processes, tmp_path):
    folder, codes = two_processes
    run(kind, tmp_path / "one", codes, accumulate=2)
    outputs = tmp_path / "one", folder / kind
    one, two = (read_log(output) for output in outputs)
    assert [line["total"] for line in two] == pytest.approx(
        [line["total"] for line in one], rel=1e-5
    )
    one, two = (load_file(output / "final/model.safetensors") for output in outputs)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)


if __name__ == "__main__":
    for kind in KINDS:
        run(kind, Path(sys.argv[1]) / kind, sys.argv[2], shard=True)
        AcceleratorState._reset_state(reset_partial_state=True)
