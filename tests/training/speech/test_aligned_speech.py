"""CAT-ASR with a CTC head, and CAT-TTS with the text alignment by it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_run import read_log
from toy_speech import IDENTITY, language_config, say, write_codes

from moss_audio_tokenizer.asr import Aligner, CatAsr
from moss_audio_tokenizer.errors import CheckpointError, ConfigError
from moss_audio_tokenizer.training.data.coded_data import CodedBatch, CodedRow, Segment
from moss_audio_tokenizer.training.recipes import trainer_for
from moss_audio_tokenizer.training.speech.speech_trainer import DrawnRows
from moss_audio_tokenizer.training.speech.tts_task import ClipAlignments


@pytest.fixture(scope="module")
def codes(tmp_path_factory) -> str:
    return write_codes(tmp_path_factory.mktemp("codes"))


@pytest.fixture(scope="module")
def asr_folder(tmp_path_factory, codes) -> Path:
    """A CAT-ASR with a CTC head that knows the toy language."""
    config = language_config("asr", tmp_path_factory.mktemp("asr"), codes, frame_weight=1.0)
    config = replace(config, max_steps=80, model=replace(config.model, num_words=2))
    return trainer_for(config, report=lambda _: None).run()


def test_the_ctc_loss_falls(asr_folder):
    losses = [line["frames"] for line in read_log(asr_folder.parent)]
    assert losses[-1] < 0.5 * losses[0]


def test_words_of_the_data_are_tokens(asr_folder):
    assert len(CatAsr.from_pretrained(asr_folder).text.words) == 2


def test_letters_are_aligned_with_their_frames(asr_folder):
    (indices,) = Aligner(CatAsr.from_pretrained(asr_folder)).align([say("bcab")], ["bcab"])
    assert indices.tolist() == sorted(indices.tolist())
    assert indices[0] == 0
    assert indices[-1] >= 3


def test_durations_are_learned_in_the_tokens_of_the_aligner(asr_folder, codes, tmp_path):
    config = language_config("tts", tmp_path / "run", codes, aligner=str(asr_folder))
    trainer = trainer_for(config, report=lambda _: None)
    assert trainer.text.words == CatAsr.from_pretrained(asr_folder).text.words
    batch = next(trainer.batches(0))
    steps = [trainer.train_step(batch) for _ in range(30)]
    trainer.close()
    assert steps[-1]["place"] < 0.7 * steps[0]["place"]
    first = steps[0]
    total = first["codes"] + first["end"] + 4.0 * first["place"]
    assert first["total"] == pytest.approx(total, rel=1e-5)


def test_the_same_codes_under_two_texts_are_aligned_twice(asr_folder):
    aligner = Aligner(CatAsr.from_pretrained(asr_folder))
    codes = say("abc").astype(np.uint16)
    rows = [
        CodedRow(codes, (Segment(text, codes.shape[1]),), "one", "clip") for text in ("abcabc", "a")
    ]
    clips = ClipAlignments(aligner)
    long, short = clips.token_indices(rows)
    assert max(short) <= len(aligner.model.text.encode("a")) < max(long)


def test_a_prompt_is_skipped_and_a_clip_is_aligned_once(asr_folder):
    class Counting(Aligner):
        asked = 0

        def align(self, clips, texts):
            self.asked += len(texts)
            return super().align(clips, texts)

    aligner = Counting(CatAsr.from_pretrained(asr_folder))
    clips = ClipAlignments(aligner)
    first, last = (say(text).astype(np.uint16) for text in ("ca", "bcab"))
    pair = (Segment("ca", first.shape[1]), Segment("bcab", last.shape[1]))
    rows = [
        CodedRow(np.concatenate((first, last), 1), pair, "one", "pair"),
        CodedRow(last, pair[1:], "one", "clip"),
    ]
    both, alone = clips.token_indices(rows)
    before = len(aligner.model.text.encode("ca bcab")) - len(aligner.model.text.encode("bcab"))
    assert both == [before] * first.shape[1] + [before + index for index in alone]
    assert aligner.asked == 1
    clips.token_indices(rows)
    assert aligner.asked == 1


def test_rows_are_left_unconditioned_in_training_alone(asr_folder, codes, tmp_path):
    config = language_config(
        "tts", tmp_path / "run", codes, aligner=str(asr_folder), place_dropout=0.5
    )
    trainer = trainer_for(config, report=lambda _: None)
    assert trainer.task.model.config.guidance > 1
    row = next(trainer.batches(0)).batch.rows[0]
    rows = [row] * 8
    drawn = DrawnRows(CodedBatch(tuple(rows), 12.5), None, tuple(range(8)))
    first, begins = trainer.task._first_frames(rows), trainer.task._conditioned_from(drawn)
    assert set(begins) == {first[0], row.num_frames}
    assert begins == trainer.task._conditioned_from(drawn)
    assert trainer.train_step(drawn)["place"] > 0
    trainer.task.eval()
    assert trainer.task._conditioned_from(drawn) == first
    trainer.task.config = replace(trainer.task.config, place_dropout=1 - 1e-9)
    trainer.task.training = True
    assert trainer.train_step(drawn)["place"] == 0
    trainer.close()


def test_clips_that_the_aligner_cannot_express_are_left_out(asr_folder, tmp_path):
    manifest, lines = write_codes(tmp_path, "für", "aж"), []
    config = language_config("tts", tmp_path / "run", manifest, aligner=str(asr_folder))
    config = replace(config, model=replace(config.model, text="bytes", num_words=1))
    trainer = trainer_for(config, report=lines.append)
    trainer.close()
    assert "left out: 2 clips whose text the model cannot say, such as 'für'" in lines
    assert not {"für", "aж"} & set(trainer.data.texts)
    assert len(trainer.text.words) == 2


def test_an_aligner_without_frame_scores_or_of_other_codes_is_refused(codes, tmp_path):
    plain = language_config("asr", tmp_path / "plain", codes, max_steps=1)
    folder = trainer_for(plain, report=lambda _: None).run()
    speech = language_config("tts", tmp_path / "run", codes, aligner=str(folder))
    with pytest.raises(ConfigError, match="frame_weight above 0"):
        trainer_for(speech, report=lambda _: None)
    (folder / "config.json").write_text(
        (folder / "config.json").read_text().replace(IDENTITY, "feedfeedfeedfeed")
    )
    with pytest.raises(ConfigError, match="reads codes of the codec feed"):
        trainer_for(speech, report=lambda _: None)
    with pytest.raises(CheckpointError):
        trainer_for(replace(speech, aligner=str(tmp_path / "none")), report=lambda _: None)
