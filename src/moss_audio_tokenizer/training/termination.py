"""SIGTERM as a request to stop, for as long as a run needs it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def on_sigterm(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` on SIGTERM within the block; the previous handler comes back after it.

    Python lets only the main thread set handlers: elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: stop())
    try:
        yield
    finally:
        # None: a handler that Python did not set and cannot set again.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)
