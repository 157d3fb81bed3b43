"""The compiled kernels against float64 NumPy, and where there are none."""

import hashlib
import math
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from moss_audio_tokenizer.runtime import compiled
from moss_audio_tokenizer.runtime.compiled import CompiledStage, load_kernels, pack
from moss_audio_tokenizer.runtime.inference_stack import InferenceStack
from moss_audio_tokenizer.runtime.ring_cache import RingStage


@pytest.fixture(scope="module")
def kernels():
    found = load_kernels()
    if found is None:
        pytest.skip("Numba is not installed, or has no threads")
    return found


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# Functions


def test_gelu(kernels):
    x = np.concatenate((np.linspace(-12, 12, 100_001), [0.0, 1e-30, 300, -300])).astype(np.float32)
    y = x[None].copy()
    kernels.gelu(y)
    exact = x.astype(np.float64)
    exact = exact * 0.5 * (1 + np.vectorize(math.erf)(exact / math.sqrt(2)))
    assert (np.abs(y[0] - exact) / np.maximum(1, np.abs(x))).max() < 5e-7


@pytest.mark.parametrize("scale", [1e-3, 1, 10, 1e4])
@pytest.mark.parametrize("count", [1, 2, 63, 64])
def test_softmax(kernels, scale, count):
    scores = random(64) * np.float32(scale)
    kept = scores.copy()
    exact = np.exp(scores[:count].astype(np.float64) - scores[:count].max())
    exact /= exact.sum()
    factor = kernels.softmax(scores, count, np.empty(64, np.int32))
    # A float32 score of 1e4 is itself only known to 1e-3.
    tolerance = 4e-7 + 2e-7 * scale
    assert np.abs(scores[:count] * factor - exact).max() < tolerance
    assert (scores[count:] == kept[count:]).all()


def test_softmax_leaves_out_what_is_hidden(kernels):
    scores = random(64)
    scores[10:] = kernels._HIDDEN
    shown = np.exp(scores[:10].astype(np.float64))
    factor = kernels.softmax(scores, 64, np.empty(64, np.int32))
    assert np.abs(scores[:10] * factor - shown / shown.sum()).max() < 4e-7
    assert scores[10:].max() < 1e-30
    # Times a value, it is not to come near the least floats, on which processors are slow.
    assert scores[10:].min() > 1e7 * np.finfo(np.float32).tiny


@pytest.mark.parametrize("width", [1, 2, 12, 64, 257])
@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (1e-4, 0), (10, 100)])
def test_normalise(kernels, width, scale, offset):
    x, weight, bias = (
        random(3, width) * scale + offset,
        random(width, seed=1),
        random(width, seed=2),
    )
    x = x.astype(np.float32)
    y = np.full((3, width + 5), 7, np.float32)
    kernels.normalise(x, weight, bias, y)
    exact = x.astype(np.float64)
    mean, variance = exact.mean(1, keepdims=True), exact.var(1, keepdims=True)
    exact = (exact - mean) / np.sqrt(variance + 1e-5) * weight + bias
    assert np.abs(y[:, :width] - exact).max() < 2e-6 * max(1, offset)
    assert (y[:, width:] == 7).all()


@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (64, 4), (65, 7), (200, 130)])
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("tasks", [1, 2])
def test_products(kernels, outputs, inputs, rows, tasks):
    x, weight = random(rows, inputs), random(outputs, inputs, seed=1)
    packed = pack(weight, kernels.LANES)
    padded = np.zeros((rows, packed.shape[1]), np.float32)
    padded[:, :inputs] = x
    y = np.full((rows, len(packed) * kernels.LANES), np.nan, np.float32)
    kernels.project(padded, packed, y, tasks)
    exact = x.astype(np.float64) @ weight.astype(np.float64).T
    assert np.abs(y[:, :outputs] - exact).max() < 1e-6 * max(inputs, 4)
    assert (y[:, outputs:] == 0).all()
    before = y.copy()
    kernels.add_product(padded, packed, packed.shape[1], y, 0)
    np.testing.assert_allclose(y, 2 * before, rtol=1e-5, atol=1e-5)


def check_tiles(kernels, dtype):
    """Every size of a tile, alone and beside others, and sums of several stretches of terms."""
    weight = torch.from_numpy(random(130, 200, seed=1)).to(dtype)
    packed = torch.from_numpy(pack(weight.float().numpy(), kernels.LANES)).to(dtype)
    if dtype != torch.float32:
        packed = packed.view(torch.int16)
    stored = packed.numpy()
    if dtype == torch.bfloat16:
        stored = stored.view(np.uint16)
    for rows in range(1, 2 * kernels.TILE_ROWS + 3):
        x = random(rows, 200, seed=rows)
        for terms in (4, 64, 148, 200):
            y = np.ones((rows, 4 * kernels.LANES), np.float32)
            kernels.add_product(x, stored, terms, y, kernels.LANES)
            exact = x[:, :terms].astype(np.float64) @ weight[:, :terms].double().numpy().T
            assert np.abs(y[:, 64:194] - 1 - exact).max() < 2e-4
            assert (y[:, :64] == 1).all()
            assert (y[:, 194:] == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_products_by_tiles(kernels, dtype):
    check_tiles(kernels, dtype)


@pytest.mark.usefixtures("kernels")
def test_tiles_for_any_processor(tmp_path):
    # In a process of its own: Numba compiles for one processor.
    script = (
        "import torch\n"
        "from moss_audio_tokenizer.runtime import kernels\n"
        "from test_kernels import check_tiles\n"
        "assert kernels.TILE_LANES == 16\n"
        f"assert kernels.READS_HALVES == {platform.machine() != 'x86_64'}\n"
        "check_tiles(kernels, torch.float32)\n"
        "check_tiles(kernels, torch.bfloat16)\n"
    )
    environment = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", script]
    subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parent)


def test_what_is_compiled_is_made_anew_with_its_instructions(kernels):
    text = Path(kernels.__file__).with_name("instructions.py").read_bytes()
    assert hashlib.sha256(text).hexdigest()[:16] == kernels.INSTRUCTIONS


def test_halves_are_rounded_where_the_processor_cannot_read_them(kernels, monkeypatch):
    stage = SimpleNamespace(_dtype=torch.float16, _kernels=kernels)
    weights = random(2, 4, seed=1)
    monkeypatch.setattr(kernels, "READS_HALVES", False)
    stored = CompiledStage._stored(stage, weights)
    assert stored.dtype == np.float32
    assert np.array_equal(stored, weights.astype(np.float16).astype(np.float32))


def test_rotations_far_from_the_start(kernels):
    frequencies = 10_000.0 ** -(np.arange(4) / 4)
    streams = np.array([[0, 0, 3], [1, 10**8, 3]])
    got = kernels.rotations_of(streams, 3, frequencies)
    steps = np.array([0, 1, 2, 10**8, 10**8 + 1, 10**8 + 2])
    # Reduced in whole numbers: 2 pi of the first frequency, which is 1, are exact enough in Python.
    exact = [[math.fmod(int(step) * f, 2 * math.pi) for f in frequencies] for step in steps]
    np.testing.assert_allclose(got[..., 0], np.cos(exact), atol=3e-7)
    np.testing.assert_allclose(got[..., 1], np.sin(exact), atol=3e-7)


@pytest.mark.parametrize("context", [1, 5, 63, 64, 65, 128])
def test_what_is_hidden(kernels, context):
    """By its definition: step k of the past lies at k modulo the places."""
    places = 128
    for position in [*range(0, 140, 9), 127, 128, 129, 1000, 10**8 + 3]:
        scores = np.zeros(places, np.float32)
        kernels.hide(scores, position, context, places, places)
        first = max(0, position - context + 1)
        seen = {step % places for step in range(first, position + 1)}
        assert set(np.flatnonzero(scores == 0)) == seen
        partly = np.zeros(places, np.float32)
        kernels.hide(partly, position, context, places, 64)
        assert (partly[:64] == scores[:64]).all()
        assert (partly[64:] == 0).all()


# Where they are used


def steppers_of(make_codec, dtype=torch.float32):
    codec = make_codec()
    stack = InferenceStack(codec.decoder, codec.config.decoder_rates, 100.0, dtype)
    return [stage for stage in stack.steppers if not isinstance(stage, torch.nn.Module)]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_used_on_a_cpu(make_codec, dtype):
    assert all(isinstance(stage, CompiledStage) for stage in steppers_of(make_codec, dtype))


def test_without_numba(make_codec, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert load_kernels() is None
    assert all(isinstance(stage, RingStage) for stage in steppers_of(make_codec))


@pytest.mark.parametrize("error", [ValueError, RuntimeError, ImportError])
def test_without_threads_or_a_cache(make_codec, monkeypatch, error):
    pytest.importorskip("numba")

    def fail(kernels):
        raise error("no threading layer could be loaded")

    monkeypatch.setattr(compiled, "_probe", fail)
    assert load_kernels() is None
    assert all(isinstance(stage, RingStage) for stage in steppers_of(make_codec))


@pytest.mark.usefixtures("kernels")
def test_the_number_of_threads_stays_the_callers():
    # In a process of its own: Numba starts its threads once.
    script = (
        "import torch\n"
        "from moss_audio_tokenizer.runtime.compiled import load_kernels\n"
        "torch.set_num_threads(1)\n"
        "assert torch.get_num_threads() == 1\n"
        "assert load_kernels() is not None\n"
        "assert torch.get_num_threads() == 1, torch.get_num_threads()\n"
    )
    environment = os.environ | {"NUMBA_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
