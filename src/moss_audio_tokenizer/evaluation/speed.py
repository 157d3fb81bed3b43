"""How fast a codec is on this machine: steps of streams and whole clips, beside lower bounds.

Works with any runtime behind `StreamingCodec`. The lower bound of a figure, its floor, is the time
that its counted bytes and operations take at the machine's measured ceilings. Contents do not
matter to the time: noise and random codes will do.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from ..codes import CodecInfo, StreamingCodec
from ..config import CodecConfig, TransformerStage
from ..config.costs import SIDES, Machine, clip_costs, step_costs
from .pages import pipe_table

# Enough for a 99th percentile that is not just the slowest.
_STEPS = 120

# Sizes of the measured read and matrix product, and how often each is repeated.
_READ_BYTES = 400_000_000
_MATRIX = 1024
_RUNS = 8


@dataclass(frozen=True)
class StepSpeed:
    """Latency of one step of one or more streams.

    Attributes:
        side: "encode" or "decode".
        chunk_frames, num_streams: frames of each stream in a step, and streams together.
        when: "start" of the streams, or "past" every attention window.
        p50_ms: median over steps; p95_ms and p99_ms are percentiles.
        real_time_factor: median step over the audio's duration.
        streams_at_real_time: that such steps could carry: streams over the real-time factor.
        stream_megabytes: memory of one stream, which does not grow.
        floor_ms: the least time of a step past the window.
        times_floor: the median over the floor.
    """

    side: str
    chunk_frames: int
    num_streams: int
    when: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    real_time_factor: float
    streams_at_real_time: float
    stream_megabytes: float
    floor_ms: float
    times_floor: float


@dataclass(frozen=True)
class ClipSpeed:
    """Cost of whole clips: the median real-time factor, and the least that there could be."""

    side: str
    seconds: float
    real_time_factor: float
    floor: float
    times_floor: float


def measure_steps(
    codec: StreamingCodec,
    config: CodecConfig,
    machine: Machine,
    chunk_frames: int,
    num_streams: int,
    num_steps: int = _STEPS,
) -> Iterator[StepSpeed]:
    """Both sides, at the start of the streams and past every window."""
    for side in SIDES:
        make = codec.encoder_stream if side == "encode" else codec.decoder_stream
        stream: Any = make(num_streams, chunk_frames)
        chunk = _chunk(codec.info, side, chunk_frames)
        chunks = {stream.open(): chunk for _ in range(num_streams)}
        step = partial(stream.step, chunks)
        _timed(step, 3)  # compiles, allocates
        for slot in stream.open_slots:
            stream.reset(slot)
        window = _window_steps(config, chunk_frames)
        early = _timed(step, max(5, min(num_steps, window // 4)))
        _timed(step, window)
        late = _timed(step, num_steps)
        costs = step_costs(config, side, chunk_frames, num_streams, machine.bytes_a_value)
        floor = machine.floor_seconds(costs)
        for when, times in (("start", early), ("past", late)):
            p50, p95, p99 = np.percentile(times, [50, 95, 99])
            factor = p50 * codec.info.frame_rate / chunk_frames
            yield StepSpeed(
                *(side, chunk_frames, num_streams, when, p50 * 1e3, p95 * 1e3, p99 * 1e3, factor),
                streams_at_real_time=num_streams / factor,
                stream_megabytes=stream.engine.num_bytes() / num_streams / 1e6,
                floor_ms=floor * 1e3,
                times_floor=p50 / floor,
            )


def _window_steps(config: CodecConfig, chunk_frames: int) -> int:
    """Steps after which every window is full."""
    sides = ((config.encoder, config.encoder_rates), (config.decoder, config.decoder_rates))
    longest = max(
        config.context_steps(stage, rate) / rate
        for stages, rates in sides
        for stage, rate in zip(stages, rates, strict=True)
        if isinstance(stage, TransformerStage)
    )
    return int(np.ceil(longest * config.frame_rate / chunk_frames))


def _chunk(info: CodecInfo, side: str, num_frames: int) -> np.ndarray:
    random = np.random.default_rng(0)
    if side == "decode":
        return random.integers(info.codebook_size, size=(info.num_quantizers, num_frames))
    shape = (info.num_channels, num_frames * info.downsample_rate)
    return (0.1 * random.standard_normal(shape)).astype(np.float32)


def _timed(work: Callable[[], object], runs: int) -> list[float]:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def measure_clips(
    codec: StreamingCodec, config: CodecConfig, machine: Machine, seconds: float
) -> Iterator[ClipSpeed]:
    """Both sides of a clip of noise, the median of five runs."""
    frames = round(seconds * config.frame_rate)
    for side in SIDES:
        verb = codec.encode if side == "encode" else codec.decode
        times = _timed(partial(verb, _chunk(codec.info, side, frames)), 6)[1:]
        factor = float(np.median(times)) / seconds
        costs = clip_costs(config, side, frames, machine.bytes_a_value)
        floor = machine.floor_seconds(costs) / seconds
        yield ClipSpeed(side, seconds, factor, floor, factor / floor)


def as_json(
    machine: Machine, clips: Sequence[ClipSpeed], steps: Sequence[StepSpeed]
) -> dict[str, Any]:
    """Everything measured, as plain values."""
    return {
        "machine": asdict(machine),
        "clips": [asdict(clip) for clip in clips],
        "steps": [asdict(step) for step in steps],
    }


def as_markdown(machine: Machine, clips: Sequence[ClipSpeed], steps: Sequence[StepSpeed]) -> str:
    """Two tables and what they were measured on."""
    parts = [
        f"{machine.name}: reads {machine.bytes_a_second / 1e9:.0f} GB/s, "
        f"{machine.operations_a_second / 1e9:.0f} GFLOP/s."
    ]
    if clips:
        rows = [
            [
                *(f"{one.seconds:g} s", one.side, f"{one.real_time_factor:.4f}"),
                *(f"{one.floor:.4f}", f"{one.times_floor:.1f}"),
            ]
            for one in clips
        ]
        parts.append(pipe_table(("clip", "side", "RTF", "floor", "x floor"), rows))
    if steps:
        heads = ["side", "frames", "streams", "when", "p50 ms", "p95", "p99", "floor ms", "x floor"]
        heads += ["RTF", "streams at real time", "MB a stream"]
        parts.append(pipe_table(heads, map(_cells, steps)))
    return "\n\n".join(parts) + "\n"


def _cells(step: StepSpeed) -> list[str]:
    facts = [step.side, f"{step.chunk_frames}", f"{step.num_streams}", step.when]
    times = [f"{one:.2f}" for one in (step.p50_ms, step.p95_ms, step.p99_ms, step.floor_ms)]
    rest = [f"{step.times_floor:.1f}", f"{step.real_time_factor:.3f}"]
    return [
        *facts,
        *times,
        *rest,
        f"{step.streams_at_real_time:.0f}",
        f"{step.stream_megabytes:.1f}",
    ]


def measure_machine(num_threads: int) -> Machine:
    """Ceilings in float32 of so many threads, each on one core; takes about a second."""
    with ThreadPoolExecutor(num_threads) as pool:  # NumPy lets go of the interpreter's lock
        parts = np.array_split(np.ones(_READ_BYTES // 4, np.float32), num_threads)
        reading = _READ_BYTES / min(_timed(lambda: list(pool.map(np.sum, parts)), _RUNS))
    # Products take the threads of NumPy's own library, which are set when that is loaded.
    left = np.random.default_rng(0).standard_normal((_MATRIX, _MATRIX), np.float32)
    computing = 2 * _MATRIX**3 / min(_timed(lambda: left @ left, _RUNS))
    return Machine(f"{num_threads} threads, fp32 (NumPy's ceilings)", reading, computing, 4)
