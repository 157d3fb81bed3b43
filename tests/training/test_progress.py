import json

import numpy as np
import pytest

from moss_audio_tokenizer.training.progress import ProgressLog
from moss_audio_tokenizer.training.validation import ValidationResult


def read(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_step_is_a_line_and_some_are_shown(tmp_path):
    lines: list[str] = []
    with ProgressLog(tmp_path, 4, 2.0, lines.append) as log:
        log.step(5, {"mel": 1.5, "total": 3.0}, show=False)
        # On disk at once: a killed run has metrics up to its last checkpoint.
        assert [line["step"] for line in read(tmp_path / "metrics.jsonl")] == [5]
        log.step(6, {"mel": 1.25, "total": 2.5}, show=True)
    last = read(tmp_path / "metrics.jsonl")[-1]
    assert (last["step"], last["mel"], last["total"]) == (6, 1.25, 2.5)
    assert last["audio_seconds_per_second"] > 0
    assert len(lines) == 1
    assert lines[0].startswith("step 6 mel 1.25 total 2.5 | ")


def test_the_logs_go_on_where_they_were(tmp_path):
    for step in (1, 2):
        with ProgressLog(tmp_path, step - 1, 1.0, lambda _: None) as log:
            log.step(step, {"total": 1.0}, show=True)
    assert [line["step"] for line in read(tmp_path / "metrics.jsonl")] == [1, 2]


def test_a_loud_estimate_prints_nothing(tmp_path, capfd):
    loud = np.array([0.0, 5.0, -5.0], np.float32)
    lines: list[str] = []
    with ProgressLog(tmp_path, 0, 1.0, lines.append) as log:
        log.validation(3, ValidationResult({"speech/stoi/1": 0.5}, loud, loud), 24_000)
    assert read(tmp_path / "validation.jsonl") == [{"step": 3, "speech/stoi/1": 0.5}]
    assert lines == ["valid 3 speech/stoi/1 0.500"]
    assert capfd.readouterr().out == ""


def test_the_board_is_closed_even_when_the_run_breaks_off(tmp_path, monkeypatch):
    log = ProgressLog(tmp_path, 0, 1.0, lambda _: None)
    closed = []
    close = log._board.close
    monkeypatch.setattr(log._board, "close", lambda: (closed.append(True), close()))
    with pytest.raises(KeyboardInterrupt), log:
        raise KeyboardInterrupt
    assert closed == [True]
    assert log._metrics.closed
