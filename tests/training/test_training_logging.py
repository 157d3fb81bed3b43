import json
import sys
import types

import numpy as np
import pytest

from moss_audio_tokenizer.errors import MissingDependencyError
from moss_audio_tokenizer.training import logging as progress
from moss_audio_tokenizer.training.codec.validation import ValidationResult
from moss_audio_tokenizer.training.logging import Pace, ProgressLog, Throughput


def read(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_step_is_a_line_and_some_are_shown(tmp_path):
    lines: list[str] = []
    with ProgressLog(tmp_path, 4, lines.append, max_steps=12) as log:
        log.step(5, {"mel": 1.5, "total": 3.0})
        # On disk at once: a killed run has metrics up to its last checkpoint.
        assert [line["step"] for line in read(tmp_path / "metrics.jsonl")] == [5]
        log.step(6, {"mel": 1.25, "total": 2.5})
    assert read(tmp_path / "metrics.jsonl")[-1] == {"step": 6, "mel": 1.25, "total": 2.5}
    assert [line.partition(",")[0] for line in lines] == ["step 6/12 mel 1.25 total 2.5"]


def test_throughput_is_audio_and_operations_over_time(monkeypatch):
    moments = iter((10.0, 12.0, 14.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(moments))
    throughput = Throughput(operations=3.0, peak=60.0)
    assert throughput.step(8.0) == {"audio_seconds_per_second": 4.0, "utilization": 0.2}
    later = throughput.step(28.0)
    assert later["audio_seconds_per_second"] == pytest.approx(0.9 * 4 + 0.1 * 14)


class FakeRun:
    """What `wandb.init` returns."""

    def __init__(self) -> None:
        self.logged: list[tuple[dict, int]] = []
        self.finished = False

    def log(self, scalars: dict, step: int) -> None:
        self.logged.append((scalars, step))

    def finish(self) -> None:
        self.finished = True


def test_weights_and_biases_gets_what_is_shown(tmp_path, monkeypatch):
    run, asked = FakeRun(), {}
    fake = types.ModuleType("wandb")
    fake.init = lambda **wanted: asked.update(wanted) or run
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with ProgressLog(tmp_path, 0, lambda _: None, "codecs", max_steps=12) as log:
        log.step(1, {"mel": 1.5})
        log.step(2, {"mel": 1.25})
    assert asked["project"] == "codecs"
    assert run.logged == [({"train/mel": 1.25}, 2)]
    assert run.finished


def test_weights_and_biases_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingDependencyError, match="pip install wandb"):
        ProgressLog(tmp_path, 0, lambda _: None, "codecs")


def test_the_logs_go_on_where_they_were(tmp_path):
    for step in (1, 2):
        with ProgressLog(tmp_path, step - 1, lambda _: None) as log:
            log.step(step, {"total": 1.0})
    assert [line["step"] for line in read(tmp_path / "metrics.jsonl")] == [1, 2]


def test_a_loud_estimate_prints_nothing(tmp_path, capfd):
    loud = 5 * np.sin(np.arange(4800, dtype=np.float32))
    lines: list[str] = []
    with ProgressLog(tmp_path, 0, lines.append) as log:
        result = ValidationResult({"speech/stoi/1": 0.5}, loud, loud, 24_000, "YES", "NO")
        log.validation(3, result)
    assert read(tmp_path / "validation.jsonl") == [{"step": 3, "speech/stoi/1": 0.5}]
    assert lines == [
        "valid 3 the language model transcribes 'YES' as 'NO'",
        "valid 3 speech/stoi/1 0.500",
    ]
    assert capfd.readouterr().out == ""


def test_the_board_is_closed_even_when_the_run_breaks_off(tmp_path, monkeypatch):
    log = ProgressLog(tmp_path, 0, lambda _: None)
    closed = []
    close = log._board.close
    monkeypatch.setattr(log._board, "close", lambda: (closed.append(True), close()))
    with pytest.raises(KeyboardInterrupt), log:
        raise KeyboardInterrupt
    assert closed == [True]
    assert log._metrics.closed


def test_the_pace_of_a_run_is_shown_with_the_time_that_is_left(monkeypatch):
    moments = iter((0.0, 2.0, 6.0, 13.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(moments))
    pace = Pace()
    assert pace.left(0, 100) == ""
    pace.step()
    assert (pace.left(20, 60), pace.line_due()) == (", 2 s/step, 80 s left", False)
    pace.step()
    assert (pace.left(100, 1000), pace.line_due()) == (", 2.2 s/step, 33 min left", False)
    pace.step()
    assert (pace.left(0, 9999), pace.line_due()) == (", 2.68 s/step, 7.4 h left", True)
    pace.line_shown()
    assert not pace.line_due()
