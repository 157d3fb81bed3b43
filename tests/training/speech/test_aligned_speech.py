"""CAT-TTS with a text encoder, whose durations are aligned by a CAT-ASR."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from toy_run import run_until
from toy_speech import (
    IDENTITY,
    LAYERS,
    LEXICON,
    aligned_config,
    language_config,
    say,
    write_aligner,
    write_codes,
)

from moss_audio_tokenizer.asr import Aligner, CatAsr
from moss_audio_tokenizer.errors import CheckpointError, ConfigError
from moss_audio_tokenizer.speech.phonemes import TICKS
from moss_audio_tokenizer.training.data.coded_data import CodedBatch, CodedRow, Segment
from moss_audio_tokenizer.training.recipes import trainer_for
from moss_audio_tokenizer.training.speech import tts_trainer
from moss_audio_tokenizer.training.speech.speech_trainer import DrawnRows
from moss_audio_tokenizer.training.speech.tts_task import ClipAlignments
from moss_audio_tokenizer.tts import CatTts, CatTtsConfig, generate


@pytest.fixture(scope="module")
def codes(tmp_path_factory) -> str:
    return write_codes(tmp_path_factory.mktemp("codes"))


@pytest.fixture(scope="module")
def asr_folder(tmp_path_factory) -> Path:
    return write_aligner(tmp_path_factory.mktemp("asr"))


def test_durations_are_learned(asr_folder, codes, tmp_path):
    trainer = trainer_for(
        aligned_config(tmp_path / "run", codes, asr_folder), report=lambda _: None
    )
    assert trainer.task.model.lexicon.tokens("ab") == LEXICON.tokens("ab")
    batch = next(trainer.batches(0))
    steps = [trainer.train_step(batch) for _ in range(30)]
    trainer.close()
    for name in ("durations", "codes"):
        assert steps[-1][name] < 0.7 * steps[0][name]
    first = steps[0]
    total = first["codes"] + first["end"] + 0.3 * first["durations"]
    assert first["total"] == pytest.approx(total, rel=1e-5)


def test_a_run_is_validated_resumed_and_speaks(asr_folder, codes, tmp_path):
    config = aligned_config(tmp_path / "run", codes, asr_folder, max_steps=4)
    trainer_for(config, report=lambda _: None).run()
    folder = trainer_for(replace(config, max_steps=8), True, report=lambda _: None).run()
    model = CatTts.from_pretrained(folder)
    assert generate(model, ["cab ab"], max_frames=50).audio_codes.shape[0] == LAYERS


def test_a_resumed_run_continues_bit_for_bit(asr_folder, codes, tmp_path, monkeypatch):
    """Dropout of the text encoder included, and vectors that are not trained."""
    shape = {"code_vector_dim": 2}
    monkeypatch.setattr(tts_trainer, "CatTtsConfig", lambda **own: CatTtsConfig(**own | shape))
    whole, cut = (
        aligned_config(tmp_path / name, codes, asr_folder, max_steps=8) for name in ("one", "two")
    )
    expected = trainer_for(whole, report=lambda _: None).run()
    run_until(trainer_for(cut, report=lambda _: None), 6)
    torch.rand(100)  # Whatever else draws in between
    final = trainer_for(cut, True, report=lambda _: None).run()
    first, second = (load_file(folder / "model.safetensors") for folder in (expected, final))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def row_of(*texts: str) -> CodedRow:
    """A row of clips."""
    clips = [say(text).astype(np.uint16) for text in texts]
    segments = tuple(Segment(t, clip.shape[1]) for t, clip in zip(texts, clips, strict=True))
    return CodedRow(np.concatenate(clips, 1), segments, "one", "+".join(texts))


class Counting(Aligner):
    """Counts the clips that it aligns."""

    asked = 0

    def align(self, clips, texts):
        """Those of the aligner."""
        self.asked += len(texts)
        return super().align(clips, texts)


def test_a_prompt_is_skipped_and_a_clip_is_aligned_once(asr_folder):
    aligner = Counting(CatAsr.from_pretrained(asr_folder))
    clips, rows = ClipAlignments(aligner), [row_of("ab", "bcab"), row_of("bcab")]
    both, alone = clips.align(rows)
    assert both == alone
    clips.align(rows)
    assert aligner.asked == 1
    spoken = [clips.spoken(row, both, [False]) for row in rows]
    assert [one.first_frame for one in spoken] == [say("ab").shape[1], 0]
    assert sum(spoken[0].durations) == TICKS * say("bcab").shape[1]


def test_the_same_codes_under_two_texts_are_aligned_twice(asr_folder):
    aligner = Counting(CatAsr.from_pretrained(asr_folder))
    row = row_of("abc")
    other = replace(row, segments=(replace(row.segments[0], text="cab"),))
    first, second = ClipAlignments(aligner).align([row, other])
    assert (first.words[0].word, second.words[0].word, aligner.asked) == ("abc", "cab", 2)


def test_rows_are_left_unconditioned_and_words_are_spelled_in_training_alone(
    asr_folder, codes, tmp_path
):
    config = aligned_config(tmp_path / "run", codes, asr_folder, place_dropout=0.5)
    trainer = trainer_for(config, report=lambda _: None)
    assert trainer.task.model.config.guidance > 1
    rows = [row_of("ab", "cc ab")] * 60
    drawn = DrawnRows(CodedBatch(tuple(rows), 12.5), None, tuple(range(60)))
    spoken = trainer.task._spoken(drawn)
    assert {one.conditioned for one in spoken} == {True, False}
    assert len({tuple(one.tokens) for one in spoken}) > 1
    assert spoken == trainer.task._spoken(drawn)
    trainer.task.eval()
    (only,) = {(tuple(one.tokens), one.conditioned) for one in trainer.task._spoken(drawn)}
    assert only == (tuple(LEXICON.tokens("cc ab")), True)
    trainer.close()


def test_clips_with_words_that_the_lexicon_lacks_are_left_out(asr_folder, tmp_path):
    manifest, lines = write_codes(tmp_path, "abcabc", "aж"), []
    trainer = trainer_for(
        aligned_config(tmp_path / "run", manifest, asr_folder), report=lines.append
    )
    trainer.close()
    assert any("left out: 2 clips whose text the model cannot say" in line for line in lines)
    assert not {"abcabc", "aж"} & set(trainer.data.texts)


def test_an_aligner_without_phonemes_or_of_other_codes_is_refused(asr_folder, codes, tmp_path):
    plain = language_config("asr", tmp_path / "plain", codes, max_steps=1)
    folder = trainer_for(plain, report=lambda _: None).run()
    with pytest.raises(ConfigError, match="no phoneme scores"):
        trainer_for(aligned_config(tmp_path / "run", codes, folder), report=lambda _: None)
    other = tmp_path / "other"
    shutil.copytree(asr_folder, other)
    config = (other / "config.json").read_text().replace(IDENTITY, "feedfeedfeedfeed")
    (other / "config.json").write_text(config)
    with pytest.raises(ConfigError, match="'bundled' reads codes of the codec"):
        trainer_for(aligned_config(tmp_path / "run", codes, "bundled"), report=lambda _: None)
    with pytest.raises(ConfigError, match="reads codes of the codec feed"):
        trainer_for(aligned_config(tmp_path / "run", codes, other), report=lambda _: None)
    with pytest.raises(CheckpointError):
        trainer_for(
            aligned_config(tmp_path / "run", codes, tmp_path / "none"), report=lambda _: None
        )


def test_a_text_encoder_of_broken_heads_is_refused(asr_folder, codes, tmp_path):
    config = language_config("tts", tmp_path / "run", codes, aligner=str(asr_folder))
    with pytest.raises(ConfigError, match="multiple of 64"):
        trainer_for(config, report=lambda _: None)
