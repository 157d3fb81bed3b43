import pytest
from matrix_sentences import WORDS, main, sentences


def test_sentences_are_different_and_take_a_word_from_each_list():
    made = sentences(500, seed=1)
    assert len(set(made)) == 500
    for line in made:
        words = line.removesuffix(".").split()
        assert all(word in of for word, of in zip(words, WORDS, strict=True))
    assert made == sentences(500, seed=1) != sentences(500, seed=2)


@pytest.mark.parametrize("count", [0, 100_001])
def test_there_are_a_hundred_thousand(count):
    with pytest.raises(ValueError, match="100,000"):
        sentences(count)


def test_no_sentence_is_in_both_files(tmp_path, monkeypatch):
    arguments = ["--train", "30", "--test", "10", "-o", str(tmp_path / "matrix")]
    monkeypatch.setattr("sys.argv", ["matrix_sentences.py", *arguments])
    main()
    train, test = (
        (tmp_path / f"matrix/{name}.txt").read_text().split("\n") for name in ("train", "test")
    )
    assert (len(train), len(test)) == (31, 11)
    assert set(train) & set(test) == {""}


@pytest.mark.parametrize(("train", "test"), [("0", "5"), ("5", "-1"), ("99999", "2")])
def test_wrong_counts_are_refused_in_one_line(train, test, tmp_path, monkeypatch, capsys):
    arguments = ["--train", train, "--test", test, "-o", str(tmp_path / "matrix")]
    monkeypatch.setattr("sys.argv", ["matrix_sentences.py", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert f"--train is {train} and --test is {test}" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "matrix").exists()
