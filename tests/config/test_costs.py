"""Counted costs against parameter counts and sums done by hand."""

import pytest

from moss_audio_tokenizer.config import preset
from moss_audio_tokenizer.config.costs import Cost, clip_costs, step_costs


@pytest.mark.parametrize("name", ["v1", "v2", "nano", "bundled"])
def test_a_clip_reads_the_weights_of_both_halves_once(name):
    # Linear layers only: norms, layer scales and the quantizer's folded tables are a few percent.
    sizes = {"v1": 1.77e9, "v2": 2.12e9, "nano": 21.97e6, "bundled": 10.8e6}
    total = sum(
        cost.num_bytes / 4
        for side in ("encode", "decode")
        for cost in clip_costs(preset(name), side, 1)
    )
    assert total == pytest.approx(sizes[name], rel=0.06)


def test_streams_share_weights_and_have_caches_of_their_own():
    one, two = (step_costs(preset("nano"), "decode", 1, streams)[1] for streams in (1, 2))
    cache = 2 * 256 * 4 * 500 * 4  # keys and values, width, layers, 10 s at 50 Hz, bytes
    assert two.num_bytes - one.num_bytes == cache
    assert two.operations == 2 * one.operations


def test_half_the_bytes_in_bf16_but_for_the_quantizer():
    full, half = (step_costs(preset("v1"), "encode", 1, 1, size) for size in (4, 2))
    assert half[0] == full[0]
    assert all(2 * h.num_bytes == f.num_bytes for h, f in zip(half[1:], full[1:], strict=True))


def test_attention_of_a_clip_counts_the_pairs_within_the_window():
    short, long = (clip_costs(preset("bundled"), "decode", frames)[1] for frames in (16, 32))
    pairs = 16 * 17 / 2  # the window of 1.28 s holds 16 frames
    attention = 4 * 256 * 2
    linear = short.operations - attention * pairs
    assert long.operations == 2 * linear + attention * (pairs + 16 * 16)


def test_reading_and_computing_overlap():
    assert Cost(num_bytes=10, operations=5).seconds(10, 1) == 5
    assert Cost(num_bytes=100, operations=5).seconds(10, 1) == 10
