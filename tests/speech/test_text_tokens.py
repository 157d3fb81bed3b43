import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_audio_tokenizer.errors import CheckpointError, ConfigError, InputError
from moss_audio_tokenizer.llm import (
    ByteText,
    CharacterText,
    PretrainedText,
    load_text,
    make_text,
    random_language_model,
    save_text,
)
from moss_audio_tokenizer.speech.text_preparation import spell
from moss_audio_tokenizer.speech.tokens import TEXT_NAME, PieceText


@pytest.mark.parametrize("text", ["", "plain", "é ü 漢字 🎵"])
def test_bytes_come_back(text):
    ids = ByteText().encode(text)
    assert ByteText().decode([*ids, ByteText.end, 7]) == text
    assert all(0 <= token < ByteText.num_tokens for token in ids)


def test_characters_come_back_small_and_with_single_blanks():
    text = make_text("letters")
    ids = text.encode(" Seven\th ")
    assert text.decode([*ids, text.end, 0]) == "seven h"
    assert max(text.encode(text.alphabet.strip())) < text.end == text.num_tokens - 1


@pytest.mark.parametrize(
    ("written", "spelled"),
    [
        ("Don't stop -- go!", "don't stop go"),
        ("e-mail", "e mail"),
        ('"quoted", yes', "quoted yes"),
        ("für", None),
        ("7 of 9", "seven of nine"),
        ("...", ""),
    ],
)
def test_texts_of_training_data_are_spelled_with_letters(written, spelled):
    assert spell(written, make_text("letters")) == spelled


def test_bytes_spell_everything():
    assert spell("für 7", ByteText()) == "für 7"


def test_capitals_stay_where_the_alphabet_has_them():
    text = CharacterText("aA ")
    assert text.decode(text.encode("Aa a")) == "Aa a"


def test_unknown_characters_are_named():
    with pytest.raises(InputError, match=r"got '7\?' in 'is it 7\?'.*as words"):
        CharacterText("abcdefghijklmnopqrstuvwxyz ").encode("is it 7?")


def test_known_words_are_tokens_and_others_are_spelled():
    text = CharacterText("abc ", ["cab", "a"])
    ids = text.encode("cab a ba  CAB cc")
    assert ids == [4, 5, 3, 1, 0, 4, 3, 2, 2]
    assert text.decode([*ids, text.end]) == "cab a ba cab cc"


@given(words=st.lists(st.text("abc", min_size=1, max_size=4), max_size=6))
def test_texts_of_known_and_unknown_words_come_back(words):
    text = CharacterText("abc ", ["a", "ab", "cab"])
    assert text.decode(text.encode(" ".join(words))) == " ".join(words)


@pytest.mark.parametrize(
    ("alphabet", "words"),
    [("", []), ("aba", []), ("ab ", ["c"]), ("ab ", ["a", "a"]), ("ab ", ["a b"]), ("ab", ["a"])],
)
def test_alphabets_that_are_none(alphabet, words):
    with pytest.raises(ConfigError, match="each once"):
        CharacterText(alphabet, words)


@pytest.mark.parametrize(
    "text", [ByteText(), CharacterText("ab c"), CharacterText("ab c", ["ab", "b"])]
)
def test_a_folder_says_what_its_text_is(tmp_path, text):
    save_text(text, tmp_path)
    again = load_text(tmp_path)
    assert type(again) is type(text)
    assert again.encode("a b") == text.encode("a b")


@pytest.mark.parametrize(
    "content", [None, "{", "[]", "{}", '{"kind": "runes"}', '{"kind": "characters"}']
)
def test_folders_that_do_not_say_it(tmp_path, content):
    if content is not None:
        (tmp_path / TEXT_NAME).write_text(content)
    with pytest.raises(CheckpointError, match=r"text\.json does not say how"):
        load_text(tmp_path)


def test_an_alphabet_of_another_type_is_refused(tmp_path):
    (tmp_path / TEXT_NAME).write_text(json.dumps({"kind": "characters", "alphabet": 7}))
    with pytest.raises(CheckpointError, match="does not say how"):
        load_text(tmp_path)


def test_tokenizers_that_are_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"no tokenizer at .*or 'bytes'"):
        make_text(str(tmp_path))


def test_a_model_without_the_files_of_its_tokenizer_is_refused(tmp_path):
    random_language_model(16, 1, 2, 257).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="or 'bytes'"):
        PretrainedText(str(tmp_path))


PIECES = PieceText(" abcdeo", [" a", "bc", "abc", " abc", "od"])


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("abc code", [" abc", " ", "c", "od", "e"]),
        ("a bc  ABC", [" a", " ", "bc", " abc"]),
        ("", []),
    ],
)
def test_pieces_are_the_longest_that_fit(text, tokens):
    ids = PIECES.encode(text)
    assert [PIECES._tokens[token] for token in ids] == tokens
    assert PIECES.decode([*ids, PIECES.end, 0]) == " ".join(text.lower().split())
    assert PIECES.end == PIECES.num_tokens - 1


@given(st.text(alphabet=" abcdeo"), st.text(alphabet=" abcdeo"))
def test_pieces_of_joined_texts_are_those_of_the_parts(one, two):
    assert PIECES.encode(f"{one} {two}") == PIECES.encode(one) + PIECES.encode(two)


def test_pieces_are_stored(tmp_path):
    save_text(PIECES, tmp_path)
    stored = load_text(tmp_path)
    assert isinstance(stored, PieceText)
    assert stored.pieces == PIECES.pieces
    facts = json.loads((tmp_path / TEXT_NAME).read_text())
    (tmp_path / TEXT_NAME).write_text(json.dumps(facts | {"pieces": "abc"}))
    with pytest.raises(CheckpointError, match="its pieces are a str; expected a list"):
        load_text(tmp_path)


@pytest.mark.parametrize("pieces", [["a"], ["ab", "ab"], ["a b"], ["xy"], [3]])
def test_impossible_pieces_are_refused(pieces):
    with pytest.raises(ConfigError, match="expected pieces of two and more"):
        PieceText(" abc", pieces)
