"""How far a codec is within a clip, for programs that show it.

Codecs work through clips chunk by chunk and report that here. The report is kept for each thread,
so that codecs need no argument for it and know nothing of screens.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_report: ContextVar[Callable[[int, int], None] | None] = ContextVar("report", default=None)


@contextmanager
def watched(report: Callable[[int, int], None]) -> Iterator[None]:
    """Have ``report`` called with the frames done and the frames in all, in this thread."""
    token = _report.set(report)
    try:
        yield
    finally:
        _report.reset(token)


def reported(chunks: Iterable[slice], num_frames: int) -> Iterator[slice]:
    """The same chunks of a clip; each is reported as done when the next one is asked for."""
    report = _report.get()
    for chunk in chunks:
        yield chunk
        if report is not None:
            report(chunk.stop, num_frames)
