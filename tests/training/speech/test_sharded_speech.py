"""Speech models with sharded weights: two processes do what one does."""

from functools import partial
from pathlib import Path

import pytest
import torch
import toy_processes
from safetensors.torch import load_file
from toy_run import read_log
from toy_speech import KINDS, language_config, write_codes

from moss_audio_tokenizer.training.recipes import trainer_for


def run(kind: str, output: Path, codes: str, **changes) -> None:
    config = language_config(kind, output, codes, max_steps=2, checkpoint_every=2, **changes)
    trainer_for(config, report=lambda _: None).run()


@pytest.fixture(scope="module")
def sharded(tmp_path_factory) -> Path:
    """Folder of the codes, and of a run of each kind, in the same two processes."""
    folder = tmp_path_factory.mktemp("sharded")
    codes = write_codes(folder)
    runs = [partial(run, kind, folder / kind, codes, shard=True) for kind in KINDS]
    toy_processes.run(runs, folder / "errors.txt", count=2)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_with_sharded_weights_do_what_one_does(kind, sharded, tmp_path):
    run(kind, tmp_path / "one", str(sharded / "codes.jsonl"), accumulate=2)
    outputs = tmp_path / "one", sharded / kind
    one, two = ([line["total"] for line in read_log(output)] for output in outputs)
    assert two == pytest.approx(one, rel=1e-5)
    one, two = (load_file(output / "final/model.safetensors") for output in outputs)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)
