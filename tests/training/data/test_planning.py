"""Plans alone, without sound: what is drawn how often."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_sounds import FRAME, RATE, spoken

from moss_audio_tokenizer.manifest import ManifestEntry
from moss_audio_tokenizer.training.data.clip_sources import Source
from moss_audio_tokenizer.training.data.data_config import DataConfig
from moss_audio_tokenizer.training.data.planning import AudioPlanner


def entries(count: int, domain: str = "speech") -> list[ManifestEntry]:
    return [
        ManifestEntry(Path(name), domain, text=keys["text"], seconds=seconds)
        for name, seconds, keys in spoken(count)
    ]


def planner(*sources: Source, **changes) -> AudioPlanner:
    config = DataConfig(text_share=1.0, batch_seconds=20.0, **changes)
    return AudioPlanner(sources, config, RATE, FRAME, seed=3)


def visits(plans: AudioPlanner, steps: int) -> Counter:
    return Counter(row.clip for step in range(steps) for row in plans.plan(step))


def test_every_utterance_is_drawn_about_as_often():
    drawn = visits(planner(Source("", 1.0, entries(20))), 2500)
    assert len(drawn) == 20
    assert max(drawn.values()) < 1.5 * min(drawn.values())


@pytest.mark.parametrize("by_source", [False, True])
def test_utterances_are_drawn_by_weights_for_each_second(by_source):
    weights = (("speech", 1.0), ("music", 1.0 if by_source else 3.0))
    first, second = entries(20), entries(4, "music")
    sources = [Source("", 1.0, first), Source("", 3.0, second)]
    if not by_source:
        sources = [Source("", 1.0, first + second)]
    drawn = visits(planner(*sources, domain_weights=weights), 1200)
    seconds = [0.0, 0.0]
    for clip, count in drawn.items():
        seconds[clip >= 20] += count * (first + second)[clip].seconds
    assert seconds[1] / sum(seconds) == pytest.approx(0.75, abs=0.04)


def test_rows_of_a_plan_are_of_about_one_length():
    plans = planner(Source("", 1.0, entries(40)))
    for step in range(100):
        plan = plans.plan(step)
        lengths = [plans.entries[row.clip].seconds * RATE for row in plan]
        assert max(lengths) <= plans.width(plan)
        assert min(lengths) > plans.width(plan) / 1.25 - FRAME


def test_a_redraw_is_of_the_kind_and_the_bucket_of_its_row():
    plans = planner(Source("", 1.0, entries(40)))
    for step in range(30):
        row = plans.plan(step)[0]
        others = [plans.redraw(step, 0, attempt) for attempt in range(5)]
        assert {(other.whole, other.num_samples) for other in others} == {(True, row.num_samples)}
        assert others == [plans.redraw(step, 0, attempt) for attempt in range(5)]


@given(
    unit=st.integers(1, 24),
    batch_seconds=st.floats(0.5, 200.0),
    share=st.floats(0.05, 1.0),
    step=st.integers(0, 1 << 41),
)
def test_rows_are_a_multiple_and_fill_a_step(unit, batch_seconds, share, step):
    config = DataConfig(text_share=share, batch_seconds=batch_seconds)
    plans = AudioPlanner([Source("", 1.0, entries(12))], config, RATE, FRAME, 3, row_unit=unit)
    plan = plans.plan(step)
    limit = plan[0].num_samples
    assert {row.num_samples for row in plan} == {limit}
    assert len(plan) % unit == 0
    wanted = batch_seconds * RATE / limit
    assert len(plan) == unit or wanted - unit < len(plan) <= wanted
    assert plans.width(plan) % FRAME == 0
    assert plans.width(plan) <= limit
    assert plan == plans.plan(step)
