"""Speech models with sharded weights: two processes do what one does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toy_speech
from safetensors.torch import load_file
from toy_run import read_log
from toy_speech import KINDS, language_config, write_codes

from moss_audio_tokenizer.training.build import trainer_for


def run(kind: str, output: Path, codes: str, **changes) -> None:
    config = language_config(
        kind, output, codes, max_steps=2, log_every=1, checkpoint_every=2, **changes
    )
    trainer_for(config, report=lambda _: None).run()


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_with_sharded_weights_do_what_one_does(kind, tmp_path):
    codes = write_codes(tmp_path)
    run(kind, tmp_path / "one", codes, accumulate=2)
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    line = [*program, __file__, kind, str(tmp_path / "two"), codes]
    paths = os.pathsep.join(
        (str(Path(toy_speech.__file__).parent), os.environ.get("PYTHONPATH", ""))
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (read_log(tmp_path / name) for name in ("one", "two"))
    assert [line["total"] for line in two] == pytest.approx(
        [line["total"] for line in one], rel=1e-5
    )
    one, two = (load_file(tmp_path / name / "final/model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), sys.argv[3], shard=True)
