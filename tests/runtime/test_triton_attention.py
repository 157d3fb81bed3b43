"""Triton kernels for attention to rings and for layer norm against the same in PyTorch.

On a GPU, or with TRITON_INTERPRET=1 in Triton's interpreter; skipped elsewhere.
"""

import importlib
import os
import sys

import numpy as np
import pytest
import torch

from moss_audio_tokenizer.config import TransformerStage
from moss_audio_tokenizer.model.transformer import Transformer
from moss_audio_tokenizer.runtime import triton_attention
from moss_audio_tokenizer.runtime.ring_cache import (
    RingAttention,
    RingKVCache,
    StepBatch,
    init_ring,
)
from moss_audio_tokenizer.runtime.stage import InferenceStage, layer_norm
from moss_audio_tokenizer.runtime.triton_attention import (
    Blocks,
    TritonNorm,
    TritonRingAttention,
    load_triton_kernels,
    plan_blocks,
    ring_attention,
)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="module")
def kernels():
    pytest.importorskip("triton")
    if DEVICE.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("no GPU, and TRITON_INTERPRET=1 is not set")
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE.type == "cpu":
            mend_interpreter(patch)
        yield importlib.import_module("moss_audio_tokenizer.runtime.triton_kernels")


def mend_interpreter(patch):
    """What Triton 3.6's does not know: NumPy 2.4's arrays of one entry, products of bfloat16."""
    from triton.runtime import interpreter

    def patch_tensor(tensor, scope, original=interpreter._patch_lang_tensor):
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    builder = interpreter.InterpreterBuilder

    def create_dot(self, a, b, *arguments, original=builder.create_dot):
        return original(self, widened(a), widened(b), *arguments)

    def widened(x):
        is_wide = x.data.dtype != np.uint16  # as which it keeps bfloat16
        wide = x.data if is_wide else (x.data.astype(np.uint32) << 16).view(np.float32)
        return interpreter.TensorHandle(wide, x.dtype if is_wide else interpreter.tl.float32)

    patch.setattr(interpreter, "_patch_lang_tensor", patch_tensor)
    patch.setattr(builder, "create_dot", create_dot)


def make_stage(context, heads, head_dim, steps_per_frame, dtype=torch.float32, layers=2):
    width = heads * head_dim
    config = TransformerStage(width, width, width, heads, layers, width, 1.0, layer_scale=0.5)
    stage = Transformer(config, context).requires_grad_(requires_grad=False)
    random = torch.Generator().manual_seed(7)
    for parameter in stage.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=random) / width**0.5)
    return InferenceStage(stage.to(DEVICE), steps_per_frame, dtype)


class Both:
    """The same steps in both ways, each in its own rings."""

    def __init__(self, kernels, stage, num_slots, max_chunk_frames, dtype=torch.float32):
        self.kernels, self.stage, self.dtype = kernels, stage, dtype
        ring = init_ring(stage, num_slots, max_chunk_frames, dtype, DEVICE)
        positions = torch.zeros(num_slots, dtype=torch.long, device=DEVICE)
        self.states = (
            RingKVCache(positions, [ring]),
            RingKVCache(positions.clone(), [ring]).clone(),
        )
        self.random = torch.Generator().manual_seed(9)

    def step(self, num_frames, layer=1):
        """Largest differences over {slot: frames}: of what was attended, of the rings."""
        slots = sorted(num_frames)
        frames = [num_frames[slot] for slot in slots]
        stage, steps = self.stage, max(frames) * self.stage.steps_per_frame
        shape = (len(slots), steps, 3, stage.num_heads, stage.head_dim)
        heads = torch.randn(shape, generator=self.random).to(DEVICE, self.dtype)
        results = []
        for state, make in zip(self.states, (RingAttention, self.triton), strict=True):
            batch = StepBatch.of(state, slots, frames)
            results.append(make(stage, state.rings[0], batch)(layer, heads.clone()))
            batch.advance(state)
        kept = torch.arange(steps) < torch.tensor(frames)[:, None] * stage.steps_per_frame
        expected, got = (result.float()[kept.to(DEVICE)] for result in results)
        rings = [state.rings[0][..., :-1, :].float() for state in self.states]
        assert results[1].dtype == results[0].dtype
        assert results[1].isfinite().all()
        return (got - expected).abs().max(), (rings[1] - rings[0]).abs().max()

    def triton(self, *arguments):
        return TritonRingAttention(self.kernels, *arguments)


SCHEDULE = [{0: 3, 1: 1, 3: 2}, {0: 1}, {1: 3, 3: 1}, {0: 3, 1: 0, 3: 3}, {1: 1, 2: 1, 3: 0}]
STAGES = [
    {"context": 1, "heads": 2, "head_dim": 8, "steps_per_frame": 1},
    {"context": 5, "heads": 1, "head_dim": 12, "steps_per_frame": 4},
    {"context": 40, "heads": 3, "head_dim": 64, "steps_per_frame": 2},
    {"context": 33, "heads": 2, "head_dim": 6, "steps_per_frame": 8},
    {"context": 16, "heads": 1, "head_dim": 80, "steps_per_frame": 1},
]
# None: by rule; else several blocks of queries and of keys, and the past shared among programs.
BLOCKS = [None, Blocks(16, 16, 1), Blocks(16, 16, 2), Blocks(32, 16, 4)]


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("shape", STAGES)
def test_equals_pytorch(kernels, shape, blocks, monkeypatch):
    if blocks is not None:
        monkeypatch.setattr(triton_attention, "plan_blocks", lambda **_sizes: blocks)
    both = Both(kernels, make_stage(**shape), 5, 3)
    for turn in range(8):
        attended, rings = both.step(SCHEDULE[turn % len(SCHEDULE)], layer=turn % 2)
        assert attended < 2e-6
        assert rings < 1e-6


def test_equals_pytorch_at_random(kernels):
    both = Both(kernels, make_stage(24, 2, 16, 3), 6, 4)
    random = torch.Generator().manual_seed(3)
    for _ in range(20):
        slots = [slot for slot in range(6) if torch.rand((), generator=random) < 0.6] or [4]
        frames = torch.randint(0, 5, (len(slots),), generator=random).tolist()
        attended, rings = both.step(dict(zip(slots, [*frames[:-1], 4], strict=True)))
        assert attended < 2e-6
        assert rings < 1e-6


def test_far_from_the_start(kernels):
    both = Both(kernels, make_stage(24, 2, 16, 8), 3, 2)
    for state in both.states:
        state.positions += torch.tensor([10**9, 0, 3 * 10**9 + 1], device=DEVICE)
    for _ in range(5):
        attended, rings = both.step({0: 2, 1: 1, 2: 2})
        assert attended < 2e-6
        assert rings < 1e-6


@pytest.mark.parametrize(("dtype", "unit"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_sixteen_bits(kernels, dtype, unit):
    both = Both(kernels, make_stage(40, 2, 64, 2, dtype), 4, 3, dtype)
    for _ in range(12):
        attended, rings = both.step({0: 3, 1: 1, 3: 2})
        assert attended < 8 * unit
        # Turned vectors are rounded once: a last digit may differ.
        assert rings <= 4 * unit


def test_rows_without_frames_leave_no_trace(kernels):
    both = Both(kernels, make_stage(5, 1, 8, 2), 2, 2)
    both.step({0: 2, 1: 2})
    before = both.states[1].clone().rings[0]
    heads = torch.full((2, 4, 3, 1, 8), float("nan"), device=DEVICE)
    rows = StepBatch.fixed(both.states[1], torch.zeros(2, dtype=torch.long, device=DEVICE), 2)
    attention = both.triton(both.stage, both.states[1].rings[0], rows)
    assert attention(0, heads).count_nonzero() == 0
    assert torch.equal(both.states[1].rings[0], before)


def test_a_stage_with_either_attention(kernels, monkeypatch):
    stage = make_stage(9, 2, 8, 2)
    monkeypatch.setattr(triton_attention, "_MOST_STEPS", 6)  # the longest chunks go by PyTorch
    x = torch.randn(3, 40, 16).to(DEVICE)
    results = []
    for chosen in (None, kernels):
        ring, parts, seen = init_ring(stage, 3, 4, torch.float32, DEVICE), [], 0
        state = RingKVCache(torch.zeros(3, dtype=torch.long, device=DEVICE), [ring])
        for frames in (1, 4, 3, 4, 2, 1, 1, 4):
            batch = StepBatch.of(state, range(3), [frames] * 3)
            chunk = x[:, seen * 2 : (seen + frames) * 2]
            parts.append(stage.run(chunk, *ring_attention(chosen, stage, ring, batch)))
            seen += frames
            batch.advance(state)
        results.append(torch.cat(parts, dim=1))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("width", [1, 12, 64, 130])
def test_layer_norm(kernels, dtype, width):
    norm = torch.nn.LayerNorm(width).to(DEVICE).requires_grad_(requires_grad=False)
    norm.weight.copy_(torch.randn(width))
    norm.bias.copy_(torch.randn(width))
    x = 3 * torch.randn(2, 3, width).to(DEVICE) + 5
    got, expected = TritonNorm(kernels, dtype)(x, norm), layer_norm(x, norm).to(dtype)
    assert got.dtype == dtype
    torch.testing.assert_close(got, expected, atol=2e-6, rtol=4 * torch.finfo(dtype).eps)


# Where they are used


def test_not_on_a_cpu():
    assert load_triton_kernels(torch.device("cpu")) is None


@pytest.mark.parametrize("capability", [(7, 5), (9, 0)])
def test_not_without_triton_or_on_old_gpus(monkeypatch, capability):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    home = "moss_audio_tokenizer.runtime"
    for name in ("triton", f"{home}.triton_kernels"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delattr(importlib.import_module(home), "triton_kernels", raising=False)
    assert load_triton_kernels(torch.device("cuda")) is None


# The sizes of blocks, for the shapes of v1 in bf16 on a GPU of 132 processors


def test_large_grids_are_not_split():
    plan = plan_blocks(8, 1000, 128, 64 * 12, 132)
    assert plan == Blocks(num_queries=16, num_keys=64, num_splits=1)
    assert plan_blocks(80, 1000, 128, 64 * 12, 132) == Blocks(64, 64, 1)
    assert plan_blocks(80, 1000, 256, 64 * 12, 132) == Blocks(32, 32, 1)  # in fp32


def test_small_grids_are_split_into_parts_of_two_blocks_at_least():
    assert plan_blocks(8, 1000, 128, 12, 132) == Blocks(16, 64, 4)
    assert plan_blocks(1, 125, 128, 20, 132) == Blocks(16, 64, 1)
    assert plan_blocks(20, 5, 16, 1, 132) == Blocks(32, 128, 1)
