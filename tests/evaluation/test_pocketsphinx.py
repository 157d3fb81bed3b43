"""A closed vocabulary for pocketsphinx: its words' sounds, their order, what is refused."""

import math
from pathlib import Path

import numpy as np
import pytest

from moss_audio_tokenizer.audio import load_audio
from moss_audio_tokenizer.errors import InputError
from moss_audio_tokenizer.evaluation.scoring_models import load_transcriber
from moss_audio_tokenizer.evaluation.scoring_models.pocketsphinx import (
    BackOffModel,
    cut_dictionary,
    read_sentences,
)

DICTIONARY = ["a AH", "a(2) EY", "a. EY", "b B IY", "two T UW", "zero Z IH R OW", "zero(2) Z IY R"]
SENTENCES = [["a", "two", "two"], ["b", "two"], ["a", "two", "a"]]


def test_letters_sound_as_in_spelling_and_variants_stay():
    text = cut_dictionary(["a", "b", "zero"], DICTIONARY, "words.txt")
    assert text == "a EY\nb B IY\nzero Z IH R OW\nzero(2) Z IY R\n"


def test_words_without_a_sound_are_named():
    with pytest.raises(
        InputError, match=r"2 words .*\(qxz, wug\).*words\.txt|words\.txt.*qxz, wug"
    ):
        cut_dictionary(["a", "qxz", "wug"], DICTIONARY, "words.txt")


@pytest.mark.parametrize("history", [(), ("two",), ("a", "two"), ("<s>", "b"), ("b", "b")])
def test_what_may_follow_adds_up_to_one(history):
    model = BackOffModel.counted(SENTENCES)
    words = ("a", "b", "two", "</s>")
    assert sum(model.probability((*history, word)) for word in words) == pytest.approx(1.0)


def test_what_followed_often_is_likelier():
    model = BackOffModel.counted(SENTENCES)
    assert model.probability(("a", "two")) > model.probability(("a", "b")) > 0.0


def test_a_list_of_words_says_nothing_of_their_order():
    model = BackOffModel.counted([["a"], ["b"], ["two"]])
    assert len(model.probabilities) == 1
    assert model.probability(("a",)) == pytest.approx(1 / 6)


def test_the_arpa_file_has_as_many_lines_as_it_says():
    lines = BackOffModel.counted(SENTENCES).arpa().splitlines()
    said = [int(line.partition("=")[2]) for line in lines if line.startswith("ngram ")]
    starts = [lines.index(f"\\{order}-grams:") for order in (1, 2, 3)]
    ends = [lines.index("", start) for start in starts]
    assert [end - start - 1 for start, end in zip(starts, ends, strict=True)] == said
    share, *gram, back_off = lines[starts[1] + 1].split()
    model = BackOffModel.counted(SENTENCES)
    assert 10 ** float(share) == pytest.approx(model.probability(tuple(gram)), rel=1e-3)
    assert math.isfinite(float(back_off))


@pytest.mark.parametrize("content", [None, b"", b"  \n ,\n", b"\xff\xfe\x00"])
def test_a_file_without_words_is_refused(tmp_path, content):
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"words\.txt"):
        read_sentences(path)


def test_only_the_words_of_the_file_are_heard(tmp_path):
    pytest.importorskip("pocketsphinx")
    path = tmp_path / "words.txt"
    path.write_text("Hello from the code!\nthe hello from\nmy own words\n", "utf-8")
    sample = Path(__file__).parents[2] / "samples" / "hello.flac"
    sound = load_audio(sample, 16_000, 1)[0, 80_000:].astype(np.float64)
    recognise = load_transcriber(f"pocketsphinx:{path}")
    transcript = recognise(sound, 16_000)
    assert transcript == recognise(sound, 16_000)
    assert transcript
    assert set(transcript.split()) <= {"hello", "from", "the", "code", "my", "own", "words"}


def test_unknown_words_are_refused_before_any_work(tmp_path):
    pytest.importorskip("pocketsphinx")
    path = tmp_path / "words.txt"
    path.write_text("a qxzwug\n", "utf-8")
    with pytest.raises(InputError, match="qxzwug"):
        load_transcriber(f"pocketsphinx:{path}")


def test_a_recogniser_of_codes_needs_its_folder():
    with pytest.raises(InputError, match="expected a folder, as in cat:"):
        load_transcriber("cat:")
