"""Steps of many streams through one stage against the stage over whole sequences."""

import pytest
import torch

from moss_audio_tokenizer.config import TransformerStage
from moss_audio_tokenizer.errors import InputError
from moss_audio_tokenizer.model.transformer import Transformer
from moss_audio_tokenizer.runtime.ring_cache import (
    RingAttention,
    RingKVCache,
    StepBatch,
    contiguous_runs,
    init_ring,
)
from moss_audio_tokenizer.runtime.stage import InferenceStage


def make_stage(context, width, heads, hidden, in_width=None, out_width=None, layers=2):
    config = TransformerStage(
        in_width or width, out_width or width, width, heads, layers, hidden, 1.0, layer_scale=0.5
    )
    stage = Transformer(config, context).requires_grad_(requires_grad=False)
    random = torch.Generator().manual_seed(7)
    for parameter in stage.parameters():
        noise = torch.randn(parameter.shape, generator=random)
        if parameter.ndim == 1:
            parameter.add_(0.1 * noise)
        else:
            parameter.copy_(1.5 * noise / parameter.shape[1] ** 0.5)
    return stage


class Streams:
    """A stage's ring, and the sequences that are stepped through it."""

    def __init__(self, stage, x, max_chunk_frames):
        self.stage, self.x, self.rate = stage, x, stage.steps_per_frame
        ring = init_ring(stage, len(x), max_chunk_frames, torch.float32, torch.device("cpu"))
        self.state = RingKVCache(torch.zeros(len(x), dtype=torch.long), [ring])
        self.parts = [[] for _ in x]

    def step(self, num_frames):
        """Advance streams by some frames each, {slot: frames}."""
        slots = sorted(num_frames)
        frames = [num_frames[slot] for slot in slots]
        batch = StepBatch.of(self.state, slots, frames)
        x = torch.full((len(slots), max(frames) * self.rate, self.x.shape[2]), 1e3)
        for row, slot in enumerate(slots):
            start = int(self.state.positions[slot]) * self.rate
            length = frames[row] * self.rate
            x[row, :length] = self.x[slot, start : start + length]  # and noise where it is padded
        y = self.stage.run(x, RingAttention(self.stage, self.state.rings[0], batch))
        batch.advance(self.state)
        for row, slot in enumerate(slots):
            self.parts[slot].append(y[row, : frames[row] * self.rate])

    def results(self):
        return [torch.cat(parts) if parts else None for parts in self.parts]


# Windows of one step and of many; one head or several; projections in, out and neither.
STAGES = [
    {"context": 1, "width": 16, "heads": 2, "hidden": 32},
    {"context": 5, "width": 12, "heads": 1, "hidden": 24, "in_width": 7, "out_width": 5},
    {"context": 63, "width": 12, "heads": 2, "hidden": 70, "out_width": 130},
    {"context": 64, "width": 6, "heads": 3, "hidden": 64, "in_width": 66},
    {"context": 65, "width": 256, "heads": 2, "hidden": 130, "layers": 1},
    {"context": 130, "width": 40, "heads": 4, "hidden": 1},
]


@pytest.mark.parametrize("shape", STAGES)
@pytest.mark.parametrize(("steps_per_frame", "max_chunk_frames"), [(1, 70), (4, 3)])
def test_equals_the_stage_over_whole_sequences(shape, steps_per_frame, max_chunk_frames):
    stage = make_stage(**shape)
    random = torch.Generator().manual_seed(8)
    inputs = shape.get("in_width", shape["width"])
    x = torch.randn(4, 300, inputs, generator=random)
    streams = Streams(InferenceStage(stage, steps_per_frame, torch.float32), x, max_chunk_frames)
    most, frames = max_chunk_frames, 300 // steps_per_frame
    schedule = [{0: most, 1: 1, 3: most // 2}, {0: 1}, {1: most, 3: 1}, {0: most, 1: most, 3: most}]
    while True:
        for turn in schedule:
            left = {slot: frames - int(streams.state.positions[slot]) for slot in turn}
            now = {slot: min(count, left[slot]) for slot, count in turn.items() if left[slot]}
            if now:
                streams.step(now)
        if not any(left.values()):
            break
    expected = stage(x)
    results = streams.results()
    assert results[2] is None
    for slot in (0, 1, 3):
        torch.testing.assert_close(results[slot], expected[slot], atol=2e-5, rtol=1e-4)
    assert streams.state.rings[0][2].count_nonzero() == 0


# The state


def filled_state():
    random = torch.Generator().manual_seed(9)
    rings = [torch.randn(3, 2, 4, generator=random) for _ in range(2)]
    return RingKVCache(torch.tensor([5, 0, 7]), rings)


def test_reset_touches_its_slots_alone():
    state = filled_state()
    state.reset([2])
    assert state.positions.tolist() == [5, 0, 0]
    state.reset([])
    assert state.positions.tolist() == [5, 0, 0]
    state.reset()
    assert state.positions.tolist() == [0, 0, 0]


def test_clones_are_independent():
    state = filled_state()
    clone = state.clone()
    for name, tensor in state.to_tensors().items():
        assert torch.equal(tensor, clone.to_tensors()[name])
        tensor.add_(1)
        assert not torch.equal(tensor, clone.to_tensors()[name])
    assert clone.num_bytes() == state.num_bytes() == 3 * 8 + 2 * 24 * 4


def test_copied_slots():
    state = filled_state()
    before = state.clone().to_tensors()
    state.copy_slot(0, 1)
    for name, tensor in state.to_tensors().items():
        assert torch.equal(tensor[[0, 2]], before[name][[0, 2]])
        assert torch.equal(tensor[1], before[name][0])


def test_loading():
    state, other = filled_state(), filled_state()
    other.positions.zero_()
    other.rings[0].zero_()
    other.load_tensors(state.to_tensors())
    for name, tensor in other.to_tensors().items():
        assert torch.equal(tensor, state.to_tensors()[name])
    other.positions.add_(1)  # copied, not shared
    assert state.positions.tolist() == [5, 0, 7]


@pytest.mark.parametrize(
    "change",
    [
        {"positions": torch.zeros(2, dtype=torch.long)},
        {"positions": torch.zeros(3)},
        {"stages.0.0": torch.zeros(3, 2, 4, dtype=torch.bfloat16)},
        {"stages.1.0": torch.zeros(3, 2, 5)},
        {"stages.2.0": torch.zeros(3, 2, 4)},
        None,
    ],
)
def test_what_is_of_another_shape_is_not_loaded(change):
    state = filled_state()
    before = state.clone().to_tensors()
    given = {name: tensor + 1 for name, tensor in before.items()}
    if change is None:
        del given["stages.1.0"]
    with pytest.raises(InputError, match="of another model, precision, number of slots or chunk"):
        state.load_tensors(given | (change or {}))
    assert all(torch.equal(before[name], t) for name, t in state.to_tensors().items())


def test_runs_of_neighboring_slots():
    assert contiguous_runs([3]) == [(slice(0, 1), slice(3, 4))]
    assert contiguous_runs([0, 1, 4, 6, 7]) == [
        (slice(0, 2), slice(0, 2)),
        (slice(2, 3), slice(4, 5)),
        (slice(3, 5), slice(6, 8)),
    ]
