"""Worker processes of any pool: they leave signals to their parent, and end when it is gone.

Owns how a worker lives and dies; knows nothing of what it works on.
"""

import multiprocessing
import os
import signal
import threading


def prepare_worker() -> None:
    """Leave signals to the parent, who ends its workers in order, and end when it is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
