"""Speech models with sharded weights: two processes do what one does."""

from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import toy_processes
from safetensors.torch import load_file
from toy_run import read_log
from toy_speech import (
    BOOK,
    KINDS,
    LAYERS,
    aligned_config,
    encoder_config,
    language_config,
    write_aligner,
    write_codes,
)

from moss_audio_tokenizer.speech.phonemes import Lexicon
from moss_audio_tokenizer.training.recipes import trainer_for
from moss_audio_tokenizer.training.run_config import override
from moss_audio_tokenizer.training.speech import tts_trainer
from moss_audio_tokenizer.training.speech.speech_trainer import _blocks
from moss_audio_tokenizer.training.speech.tts_trainer import TtsTrainer
from moss_audio_tokenizer.tts import CatTtsConfig


def config_of(kind: str, output: Path, codes: str, **changes):
    folder, changes = Path(codes).parent, {"max_steps": 2, "checkpoint_every": 2} | changes
    if kind == "asr_encoder":
        return encoder_config(output, codes, folder / "words.txt", **changes)
    if kind == "tts_encoder":
        return aligned_config(output, codes, folder / "aligner", **changes)
    return language_config(kind, output, codes, **changes)


def run(kind: str, output: Path, codes: str, **changes) -> None:
    config = config_of(kind, output, codes, **changes)
    config = override(config, ADDITIONS if kind == "tts_encoder" else ())
    with (
        patch.object(tts_trainer, "CatTtsConfig", with_code_vectors),
        patch.object(TtsTrainer, "code_vectors", code_vectors),
    ):
        trainer_for(config, report=lambda _: None).run()


def with_code_vectors(**values) -> CatTtsConfig:
    """Weights that are not trained must not disturb sharding."""
    return CatTtsConfig(**values | {"code_vector_dim": 2})


def code_vectors(_: TtsTrainer) -> torch.Tensor:
    """Of the codes of the toy, which no codec has made."""
    return torch.randn(LAYERS, BOOK, 5, generator=torch.Generator().manual_seed(0))


# Of a small data set: what they draw and divide by must not depend on the number of processes.
ADDITIONS = (
    "soft_targets.share=0.5",
    "half_weight_at=1",
    "dropout.skew=2",
    "hidden_dropout=0.2",
    "num_quantizers=2",
    "recognition_weight=1",
)
ALL_KINDS = (*KINDS, "asr_encoder", "tts_encoder")


@pytest.fixture(scope="module")
def codes(tmp_path_factory) -> Path:
    """A manifest of codes, with what encoders need beside it."""
    folder = tmp_path_factory.mktemp("codes")
    write_aligner(folder / "aligner")
    # In the first step one process alone has a text of known words, in the second none has.
    Lexicon({"caab": "sææb"}).save(folder / "words.txt")
    return Path(write_codes(folder))


@pytest.fixture(scope="module")
def sharded(codes, tmp_path_factory) -> Path:
    """Folder of a run of each kind, in the same two processes."""
    folder = tmp_path_factory.mktemp("sharded")
    runs = [partial(run, kind, folder / kind, str(codes), shard=True) for kind in ALL_KINDS]
    toy_processes.run(runs, folder / "errors.txt", count=2)
    return folder


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_two_processes_with_sharded_weights_do_what_one_does(kind, codes, sharded, tmp_path):
    outputs = tmp_path / "one", sharded / kind
    run(kind, outputs[0], str(codes), accumulate=2)
    one, two = ([line["total"] for line in read_log(output)] for output in outputs)
    assert two == pytest.approx(one, rel=1e-5)
    one, two = (load_file(output / "final/model.safetensors") for output in outputs)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)
    lexicons = {(output / "final/lexicon.txt").is_file() for output in outputs}
    assert lexicons == {kind.endswith("encoder")}


@pytest.mark.parametrize(
    ("kind", "count"), [("asr_encoder", 3), ("tts_encoder", 1 + 3), ("tts", 1)]
)
def test_blocks_of_language_models_and_encoders_are_sharded_one_by_one(
    kind, count, codes, tmp_path
):
    trainer = trainer_for(config_of(kind, tmp_path / "run", str(codes)), report=list)
    trainer.close()
    assert len(_blocks(trainer.task.model)) == count
