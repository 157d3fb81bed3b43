"""Batches: purity, ranks, levels, padding, texts, and files that cannot be read."""

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_sounds import FRAME, RATE, spoken

from moss_audio_tokenizer.errors import ConfigError, TrainingError
from moss_audio_tokenizer.training.data import audio_rows
from moss_audio_tokenizer.training.data.audio_data import AudioData, Batch
from moss_audio_tokenizer.training.data.data_config import DataConfig

TEXTS = {"text_share": 0.6, "batch_seconds": 12.0}
# Fixtures that only make things are safe to share between examples.
several = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


def same(first: Batch, second: Batch) -> bool:
    return (
        np.array_equal(first.audio, second.audio)
        and np.array_equal(first.lengths, second.lengths)
        and (first.texts, first.tasks, first.names) == (second.texts, second.tasks, second.names)
    )


def joined(batches: list[Batch]) -> Batch:
    return Batch(
        np.concatenate([batch.audio for batch in batches]),
        np.concatenate([batch.lengths for batch in batches]),
        *(
            tuple(itertools.chain(*(getattr(batch, name) for batch in batches)))
            for name in ("texts", "tasks", "names")
        ),
    )


@pytest.fixture
def utterances(write_data) -> str:
    return write_data(*spoken(20), ("long.wav", 4.0, {"domain": "music"}))


def test_a_batch_depends_on_seed_and_step_alone(make_data):
    first, second = make_data(), make_data()
    second.batch(5)
    assert same(first.batch(9), second.batch(9))
    assert not same(first.batch(9), first.batch(10))
    assert not same(first.batch(9), make_data(seed=4).batch(9))


def test_a_batch_is_float32_rows_of_the_crop_length(make_data):
    batch = make_data(batch_size=5).batch(0)
    assert (batch.audio.shape, batch.audio.dtype) == ((5, 1, 1600), np.float32)
    assert (batch.lengths.tolist(), batch.lengths.dtype) == ([1600] * 5, np.int64)
    assert (batch.texts, batch.tasks) == (("",) * 5, ("",) * 5)


@pytest.mark.parametrize("cache_hours", [0.0, 1.0])
@several
@given(step=st.integers(0, 1 << 41), world=st.sampled_from([2, 3]), texts=st.booleans())
def test_ranks_share_out_the_rows_of_one(make_data, utterances, cache_hours, step, world, texts):
    changes = {"batch_size": 6, "cache_hours": cache_hours}
    changes |= {**TEXTS, "row_multiple": 6 // world} if texts else {}
    parts = [
        make_data(utterances, rank=rank, world=world, **changes).batch(step)
        for rank in range(world)
    ]
    changes |= {"row_multiple": 6} if texts else {}
    whole = make_data(utterances, **changes).batch(step)
    assert same(joined(parts), whole)
    assert all(same(whole.part(rank, world), part) for rank, part in enumerate(parts))


@pytest.mark.parametrize("changes", [{}, {"cache_hours": 0.0}, {**TEXTS, "cache_hours": 0.0}])
def test_going_on_from_a_step_gives_what_would_have_come(make_data, utterances, changes):
    whole = list(itertools.islice(make_data(utterances, **changes).batches(0), 6))
    resumed = itertools.islice(make_data(utterances, **changes).batches(3), 3)
    assert all(map(same, whole[3:], resumed))


def test_files_and_memory_give_the_same_rows(make_data, utterances):
    kept, read = (make_data(utterances, **TEXTS, cache_hours=hours) for hours in (1.0, 0.0))
    for step in range(5):
        first, second = kept.batch(step), read.batch(step)
        assert (first.names, first.texts) == (second.names, second.texts)
        np.testing.assert_allclose(first.audio, second.audio, atol=1e-6)


def test_domains_are_drawn_by_weight_and_clips_by_length(make_data):
    weights = (("speech", 3.0), ("music", 1.0), ("absent", 9.0))
    data = make_data(batch_size=20, domain_weights=weights)
    drawn = Counter(name for step in range(200) for name in data.batch(step).names)
    shares = {name: count / drawn.total() for name, count in drawn.items()}
    expected = {"a.wav": 0.75 * 0.75, "bb.wav": 0.75 * 0.25, "ccc.wav": 0.25}
    assert shares == pytest.approx(expected, abs=0.03)


def test_sources_are_drawn_by_weight(make_data, write_data):
    first = write_data(("a.wav", 2.0, {}), folder="first")
    second = write_data(("b.wav", 0.5, {}), ("m.wav", 0.5, {"domain": "music"}), folder="second")
    data = make_data(sources=((first, 1.0), (second, 3.0)), batch_size=20)
    drawn = Counter(name for step in range(200) for name in data.batch(step).names)
    speech = 0.7 / 0.85
    expected = {"a.wav": 0.25, "b.wav": 0.75 * speech, "m.wav": 0.75 * (1 - speech)}
    assert {name: count / drawn.total() for name, count in drawn.items()} == pytest.approx(
        expected, abs=0.03
    )


def test_levels_lie_in_the_range_asked_for(make_data):
    data = make_data(batch_size=32, gain_db=(-30.0, -20.0))
    audio = np.concatenate([data.batch(step).audio for step in range(10)])
    levels = 20 * np.log10(np.sqrt(np.square(audio).mean((1, 2))))
    assert -30.1 < levels.min() < -29.0
    assert -21.0 < levels.max() < -19.9


def write_clip(tmp_path: Path, samples: np.ndarray, subtype="PCM_16") -> str:
    soundfile.write(tmp_path / "clip.wav", samples, RATE, subtype=subtype)
    (tmp_path / "one.jsonl").write_text('{"path": "clip.wav"}')
    return str(tmp_path / "one.jsonl")


def test_quiet_rows_are_raised_only_so_far(make_data, tmp_path):
    quiet = np.random.default_rng(0).standard_normal(4000) * 1e-3
    manifest = write_clip(tmp_path, quiet)
    audio = make_data(manifest, gain_db=(-10.0, -5.0)).batch(0).audio
    assert np.sqrt(np.square(audio).mean()) / 1e-3 == pytest.approx(10.0, rel=0.1)


def test_no_row_clips_however_loud_it_should_be(make_data, tmp_path):
    peaky = np.random.default_rng(0).standard_normal(4000) * 0.01
    peaky[::50] = 0.97
    manifest = write_clip(tmp_path, peaky)
    audio = make_data(manifest, gain_db=(-1.0, 0.0), batch_size=16).batch(0).audio
    assert 0.98 < np.abs(audio).max() < 0.9901


def test_silence_stays_silent_and_finite(make_data, tmp_path):
    assert not make_data(write_clip(tmp_path, np.zeros(4000))).batch(0).audio.any()


@pytest.mark.parametrize("cache_hours", [0.0, 1.0])
def test_a_short_clip_is_padded_and_its_length_says_so(make_data, write_data, cache_hours):
    manifest = write_data(("short.wav", 0.05, {}))
    batch = make_data(manifest, batch_size=4, cache_hours=cache_hours).batch(0)
    assert batch.lengths.tolist() == [400] * 4
    assert batch.audio.shape == (4, 1, 1600)
    assert batch.audio[:, :, :400].any()
    assert not batch.audio[:, :, 400:].any()


def test_clips_of_domains_without_a_share_are_counted(make_data, write_data):
    manifest = write_data(("a.wav", 0.3, {}), ("b.wav", 0.3, {"domain": "noise"}))
    assert make_data(manifest).left_out == {"noise": 1}


@pytest.mark.parametrize("weights", [(("noise", 1.0),), (("speech", 0.0), ("noise", 1.0))])
def test_data_without_any_wanted_domain_are_refused(make_data, weights):
    with pytest.raises(TrainingError, match=r"shares to \['noise'\].*\['music', 'speech'\]"):
        make_data(domain_weights=weights)


def test_rows_that_cannot_be_shared_out_are_refused(make_data):
    with pytest.raises(ConfigError, match=r"batch_size is 8; expected a multiple of 3"):
        make_data(world=3)
    with pytest.raises(TrainingError, match="8 rows cannot be shared out equally to 3"):
        make_data().batch(0).part(0, 3)


def test_utterances_are_whole_and_come_with_their_texts(make_data, utterances):
    data = make_data(utterances, **TEXTS)
    lengths = {name: round(seconds * RATE) for name, seconds, _ in spoken(20)}
    shares = []
    for step in range(60):
        batch = data.batch(step)
        for name, length, text, task in zip(
            batch.names, batch.lengths, batch.texts, batch.tasks, strict=True
        ):
            if text:
                assert (text, task) == (f"number {Path(name).stem}", "asr")
                assert length == lengths[name]
            else:
                assert task == ""
        shares += [bool(text) for text in batch.texts]
        assert batch.audio.shape[2] % FRAME == 0
        assert batch.lengths.max() <= batch.audio.shape[2] < batch.lengths.max() * 1.25
        assert len(batch.names) == pytest.approx(12 * RATE / batch.audio.shape[2], rel=0.3)
    assert np.mean(shares) == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize("multiple", [1, 4])
def test_rows_of_a_process_are_a_multiple(make_data, utterances, multiple):
    data = make_data(utterances, **TEXTS, world=2, row_multiple=multiple)
    assert {len(data.batch(step).names) % multiple for step in range(20)} == {0}


def test_texts_that_are_wanted_and_not_there_are_asked_for(make_data):
    with pytest.raises(TrainingError, match=r"is 0\.5, but no readable clip.*semantic\.llm= data"):
        make_data(text_share=0.5)


def test_an_utterance_that_is_longer_than_its_manifest_says_is_refused(make_data, write_data):
    manifest = write_data(*spoken(6))
    path = Path(manifest)
    path.write_text(path.read_text().replace('"seconds": 2.0', '"seconds": 0.5'))
    lines = []
    data = make_data(
        manifest, text_share=1.0, max_unreadable_share=0.5, report=lines.append, cache_hours=0.0
    )
    assert "5.wav" not in {name for step in range(40) for name in data.batch(step).names}
    (line,) = lines
    assert "5.wav' is 2.00 s long, and its manifest says 0.5 s" in line


def damage(manifest: str, *names: str) -> None:
    for name in names:
        path = Path(manifest).parent / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("hours", [0.0, 1.0])
def test_what_cannot_be_read_is_replaced_counted_and_named_once(
    make_data, write_data, hours, workers
):
    manifest = write_data(*((f"{index}.wav", 0.5, {}) for index in range(6)))
    damage(manifest, "2.wav")
    lines = []
    changes = {"cache_hours": hours, "workers": workers, "max_unreadable_share": 0.4}
    data = make_data(manifest, report=lines.append, **changes)
    again = make_data(manifest, **changes)
    batches = data.batches(0)
    for step in range(12):
        batch = next(batches)
        assert "2.wav" not in batch.names
        assert len(batch.names) == 8
        assert same(batch, again.batch(step))
    batches.close()
    (line,) = lines
    assert line.startswith("skipped: ")
    assert "2.wav" in line
    assert len(data.unreadable) == 1
    assert data.num_clips == 6


@pytest.mark.parametrize("hours", [0.0, 1.0])
@pytest.mark.parametrize("stated", [True, False])
def test_too_many_unreadable_clips_end_the_run(make_data, write_data, hours, stated):
    clips = [(f"{index}.wav", 0.5, {}) for index in range(6)]
    manifest = write_data(*clips, stated=stated)
    damage(manifest, "2.wav", "3.wav")
    with pytest.raises(TrainingError, match=r"of the 6 training clips .*\d\.wav.* at most 0\.05"):
        list(itertools.islice(make_data(manifest, cache_hours=hours).batches(0), 20))


def test_many_broken_files_of_a_large_set_end_the_run_early(make_data, write_data, monkeypatch):
    manifest = write_data(*((f"{index}.wav", 0.1, {}) for index in range(60)))
    damage(manifest, *(f"{index}.wav" for index in range(0, 60, 5)))
    data = make_data(manifest, cache_hours=0.0, max_unreadable_share=0.19)
    data._skipped.num_clips = 100_000
    # In the globals that the class sees: other tests import modules anew.
    monkeypatch.setitem(type(data._skipped).note.__globals__, "_FEWEST_TRIED", 10)
    with pytest.raises(TrainingError, match="training clips"):
        list(itertools.islice(data.batches(0), 30))
    assert len(data.unreadable) <= 12


def test_workers_give_the_batches_of_the_loop(make_data, utterances):
    changes = {**TEXTS, "cache_hours": 0.0}
    batches = make_data(utterances, workers=2, **changes).batches(7)
    made = list(itertools.islice(batches, 4))
    batches.close()
    alone = make_data(utterances, **changes)
    assert all(same(batch, alone.batch(7 + index)) for index, batch in enumerate(made))


def test_a_thread_gives_the_batches_of_the_loop(make_data, utterances):
    batches = make_data(utterances, workers=1, **TEXTS).batches(7)
    made = list(itertools.islice(batches, 4))
    batches.close()
    alone = make_data(utterances, **TEXTS)
    assert all(same(batch, alone.batch(7 + index)) for index, batch in enumerate(made))


def test_closing_ends_the_thread(make_data):
    data = make_data(workers=1)
    before = set(threading.enumerate())
    batches = data.batches(0)
    next(batches)
    (thread,) = set(threading.enumerate()) - before
    batches.close()
    assert not thread.is_alive()


def test_what_fails_ahead_fails_at_its_step(make_data, monkeypatch):
    data = make_data(workers=1)
    batch = data.batch

    def broken(step):
        if step == 2:
            raise TrainingError("step 2")
        return batch(step)

    monkeypatch.setattr(data, "batch", broken)
    batches = data.batches(0)
    assert [len(next(batches).names) for _ in range(2)] == [8, 8]
    with pytest.raises(TrainingError, match="step 2"):
        next(batches)


def test_a_killed_worker_is_an_error_and_not_a_wait(make_data):
    batches = make_data(cache_hours=0.0, workers=2).batches(0)
    next(batches)
    # The others live on, and do not wait for work that will not come.
    os.kill(workers_of(batches)[0], signal.SIGKILL)
    with pytest.raises(TrainingError, match=r"has died.*data\.workers"):
        list(itertools.islice(batches, 20))


def test_closing_ends_the_workers(make_data):
    batches = make_data(cache_hours=0.0, workers=1).batches(0)
    next(batches)
    (process,) = workers_of(batches)
    batches.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def workers_of(batches) -> list[int]:
    pool = batches.gi_frame.f_locals["workers"]
    assert isinstance(pool, audio_rows.RowWorkers)
    return list(pool._pool._processes)


ORPHANS = """
import sys
from moss_audio_tokenizer.training.data.audio_data import AudioData
from moss_audio_tokenizer.training.data.data_config import DataConfig

if __name__ == "__main__":
    config = DataConfig(manifest=sys.argv[1], crop_seconds=0.2, cache_hours=0.0, workers=1)
    batches = AudioData(config, 8000, 1, 80, seed=0).batches(0)
    next(batches)
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_workers_end_with_a_process_that_is_killed(write_data, tmp_path):
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    arguments = [sys.executable, str(script), write_data(("a.wav", 1.0, {}))]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        # The worker has the same standard output: it ends when both have.
        process.communicate(timeout=20)


def test_workers_leave_signals_to_the_parent(make_data):
    batches = make_data(cache_hours=0.0, workers=1).batches(0)
    next(batches)
    (process,) = workers_of(batches)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(process, number)
    list(itertools.islice(batches, 8))
    batches.close()


def test_texts_that_are_too_long_are_left_out_at_the_start(write_data):
    clips = [(f"{n}.wav", 1.0, {"text": "a" * length}) for n, length in enumerate((3, 9, 20))]
    config = DataConfig(manifest=write_data(*clips), **TEXTS)
    lines: list[str] = []
    data = AudioData(
        config, RATE, 1, FRAME, 3, report=lines.append, fits=lambda text: len(text) <= 9
    )
    assert f"left out: the texts of 1 clips, which are too long, such as {'a' * 20!r}" in lines
    texts = {text for step in range(20) for text in data.batch(step).texts}
    assert texts == {"", "aaa", "a" * 9}


def test_a_folder_of_sound_files_needs_no_manifest(write_data, make_data):
    manifest = Path(write_data(("a.wav", 1.0, {}), ("b.wav", 1.0, {})))
    manifest.unlink()
    data = make_data(str(manifest.parent))
    assert {Path(name).name for step in range(9) for name in data.batch(step).names} == {
        "a.wav",
        "b.wav",
    }
