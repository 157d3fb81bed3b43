"""The two runs of recipes/speech_on_a_gpu.py with toy sizes, from sound to model folders."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from moss_audio_tokenizer.asr import CatAsr
from moss_audio_tokenizer.speech.phonemes import Lexicon
from moss_audio_tokenizer.tts import CatTts

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))
import speech_on_a_gpu as script

RATE = 24_000
SPLITS = ("train",) * 6 + ("test",)
SMALL = ("model.width=64", "model.num_layers=1", "model.code_rank=4")
RUN = ("device=cpu", "precision=fp32", "threads=1", "peak_tflops=1", "max_steps=2")
DATA = ("data.batch_seconds=3", "validation.clips=1", "validation.num_quantizers=(32,)")
TTS = ("depth=tiny",)
ASR = ("encoder_layers=3",)
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
LEXICON = Lexicon(dict.fromkeys(("say", "number", *NUMBERS), "bada"))


def write_corpus(folder: Path, speaker: str) -> Path:
    """Clips of noise, about a second each, with texts."""
    folder.mkdir()
    lines = []
    random = np.random.default_rng(len(speaker))
    for number, split in enumerate(SPLITS):
        samples = random.normal(scale=0.05, size=RATE + 1920 * number).astype(np.float32)
        soundfile.write(folder / f"{number}.flac", samples, RATE)
        facts = {"text": f"Say number {number}.", "speaker": speaker, "language": "en"}
        seconds = len(samples) / RATE
        lines.append({"path": f"{number}.flac", "split": split, "seconds": seconds} | facts)
    text = "\n".join(map(json.dumps, lines))
    (folder / "manifest.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    corpora = [write_corpus(folder / name, name) for name in ("one", "second")]
    packed = folder / "speech.tar"
    script.main(["pack", *map(str, corpora), "-o", str(packed), "--workers", "1"])
    return packed


def keys(kind: str, *changes: str) -> list[str]:
    return [argument for change in changes for argument in (f"--{kind}", change)]


def test_sound_becomes_two_models(archive, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "PART_BYTES", 100_000)
    monkeypatch.setattr(script, "TIMED_STEPS", 2)
    monkeypatch.setattr(script, "WARM_STEPS", 1)
    out = tmp_path / "out"
    LEXICON.save(tmp_path / "lexicon.txt")
    named = f"lexicon={tmp_path / 'lexicon.txt'}"
    changes = keys("asr", *SMALL, *RUN, *DATA, *ASR, named) + keys("tts", *SMALL, *RUN, *DATA, *TTS)
    script.main(["train", str(archive), "-o", str(out), "--minutes", "9", *changes])
    printed = capsys.readouterr().out
    assert "asr_general: " in printed
    assert printed.count("12 clips are in memory") == 2
    assert len(list(out.glob("tts.tar.*"))) > 1
    script.main(["unpack", str(out), "-o", str(tmp_path / "models")])
    asr = CatAsr.from_pretrained(tmp_path / "models/asr")
    tts = CatTts.from_pretrained(tmp_path / "models/tts")
    assert tts.lexicon.tokens("six") == asr.lexicon.tokens("six") == LEXICON.tokens("six")
    assert tts.config.codec == asr.config.codec != ""
    assert {parameter.dtype for parameter in tts.parameters()} == {asr.dtype}
    recipe = json.loads((tmp_path / "models/tts/recipe.json").read_text())
    assert recipe["max_steps"] == 2
    lines = (tmp_path / "models/asr/validation.jsonl").read_text().splitlines()
    assert "wer/32" in lines[-1]


def test_steps_are_planned_from_the_time_that_is_left(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "seconds_a_step", lambda _: 10.0)
    out = tmp_path / "out"
    changes = keys("asr", *SMALL, *RUN, *DATA, *ASR)
    with pytest.raises(SystemExit, match="no time is left for asr_general"):
        script.main(["train", str(archive), "-o", str(out), "--minutes", "0.3", *changes])


def test_an_archive_that_is_too_large_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "MOST_BYTES", 10)
    corpus = write_corpus(tmp_path / "one", "one")
    with pytest.raises(SystemExit, match="expected up to 10: pack fewer corpora"):
        script.main(["pack", str(corpus), "-o", str(tmp_path / "x.tar"), "--workers", "1"])
