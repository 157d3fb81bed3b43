"""Counters, gauges and histograms for Prometheus: owns their names and buckets."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_STEP_BUCKETS = (0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0)
_WAIT_BUCKETS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56)
_SOUND_BUCKETS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6)
_ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_WATCHED = {
    "queued_frames": "Frames that wait for a step.",
    "clips": "Whole files in progress or waiting.",
    "session_slots": "Open slots of the sessions.",
    "session_bytes": "Memory of all slots.",
    "queued_speeches": "Texts in progress or waiting.",
    "voice_bytes": "Size of the voice cache.",
}


class Metrics:
    """The metrics of one server, in their own registry."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"moss_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"moss_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"moss_{name}", text, labels, buckets=buckets, registry=registry)

        self._streams = gauge("streams", "Open streams.", "side", "kind")
        self._opened = counter("streams_opened", "Streams that were admitted.", "side", "kind")
        self._ended = counter("streams_ended", "Streams that ended, by how.", "side", "how")
        self.refused = counter("refused", "Requests and streams that were refused.", "why")
        self._step = histogram("step_seconds", "Time of a step.", _STEP_BUCKETS, "side", "kind")
        self._rows = histogram("step_streams", "Streams in a step.", _ROW_BUCKETS, "side", "kind")
        self.frames = counter("frames", "Frames encoded or decoded.", "side")
        self._wait = histogram(
            "frame_wait_seconds", "From a live frame's input to its result.", _WAIT_BUCKETS, "side"
        )
        self._underruns = counter(
            "underruns", "Live results that came more than a frame's duration late.", "side"
        )
        self._watched = {name: gauge(name, text) for name, text in _WATCHED.items()}
        self.spoken_seconds = counter("spoken_seconds", "Seconds of synthesized speech.")
        self.speeches = counter("speeches", "Texts that were admitted, by how they ended.", "how")
        self.first_sound = histogram(
            "first_sound_seconds", "From a text's arrival to its first audio.", _SOUND_BUCKETS
        )
        self._voices = counter("voices", "Look-ups in the voice cache.", "result")

    def text(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self._registry)

    def watch(self, **figures: Callable[[], float]) -> None:
        """Set the callbacks of gauges, by their names without the prefix."""
        for name, figure in figures.items():
            self._watched[name].set_function(figure)

    def opened(self, side: str, kind: str) -> None:
        """Count an admitted stream."""
        self._opened.labels(side, kind).inc()
        self._streams.labels(side, kind).inc()

    def closed(self, side: str, kind: str, how: str) -> None:
        """Count the end of a stream."""
        self._streams.labels(side, kind).dec()
        self._ended.labels(side, how).inc()

    def stepped(self, side: str, is_live: bool, seconds: float, num_streams: int) -> None:
        """Record a step."""
        kind = "live" if is_live else "file"
        self._step.labels(side, kind).observe(seconds)
        self._rows.labels(side, kind).observe(num_streams)

    def answered(self, side: str, seconds: float, is_late: bool) -> None:
        """Record the latency of a live stream's result."""
        self._wait.labels(side).observe(seconds)
        if is_late:
            self._underruns.labels(side).inc()

    def looked_up(self, was_there: bool) -> None:
        """Count a look-up in the voice cache."""
        self._voices.labels("hit" if was_there else "miss").inc()
