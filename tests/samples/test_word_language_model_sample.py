"""Texts and weights of the word language model's command, and what a test shares with them."""

import argparse
from pathlib import Path

import pytest
from book_sentences import word_runs
from word_language_model import main, read_sentences, weighted_text


def test_a_weight_stands_behind_the_name_of_a_file(tmp_path: Path) -> None:
    text, odd = tmp_path / "text", tmp_path / "text@3"
    text.write_text("")
    assert weighted_text(str(text)) == (text, 1)
    assert weighted_text(f"{text}@3") == (text, 3)
    assert weighted_text(f"{text}@1000") == (text, 1000)
    odd.write_text("")
    assert weighted_text(f"{text}@3") == (odd, 1)
    assert weighted_text(f"{odd}@2") == (odd, 2)


@pytest.mark.parametrize(
    "behind", ["@0", "@-1", "@1.5", "@", "@1001", "@\u0663", "@many", "@" + "9" * 5000, "2", "2@2"]
)
def test_wrong_names_and_weights_are_refused_in_one_line(behind: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("")
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        weighted_text(f"{tmp_path}/text{behind}")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 250


def test_sentences_take_their_highest_weight_and_none_of_a_test(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("It rained.\n\n'He did not come home today,' she said.\nMr. Hale\n")
    second.write_text("It rained!\n5 men\n")
    excluded = word_runs("He did not come home today.")
    found = {"it rained": 3, "mister hale": 3, "five men": 1}
    assert read_sentences([(first, 3), (second, 1)], excluded) == found
    assert read_sentences([(second, 1), (first, 3)], excluded) == found
    assert len(read_sentences([(first, 3)])) == 3


def test_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, test, model = (str(tmp_path / name) for name in ("text", "test", "model"))
    Path(text).write_text("".join(f"the cat saw {number} dogs\n" for number in range(50)))
    Path(test).write_text("the cat saw 7 dogs\n")
    arguments = [f"{text}@2", "-o", model, "--exclude", test]
    monkeypatch.setattr("sys.argv", ["word_language_model.py", *arguments])
    main()
    assert "49 sentences" in capsys.readouterr().out
    for wrong in ([f"{text}@0"], [text, "--exclude", f"{test}@2"]):
        monkeypatch.setattr("sys.argv", ["word_language_model.py", *wrong])
        with pytest.raises(SystemExit):
            main()
        assert "error: argument" in capsys.readouterr().err.splitlines()[-1]
