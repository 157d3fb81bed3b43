"""Worker processes of any pool: how many the machine has cores for, and how each lives and dies.

Knows nothing of what they work on.
"""

import multiprocessing
import os
import signal
import threading

# A signal to a whole group of processes reaches workers too: so long may their parent still use
# them to come to an orderly end. Not for ever: a pool ends its last workers by this signal.
_GRACE_SECONDS = 2.0


def usable_cores() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prepare_worker() -> None:
    """Leave signals to the parent, who ends its workers in order, and end when it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _end_later())
    threading.Thread(target=_follow_parent, daemon=True).start()


def _end_later() -> None:
    timer = threading.Timer(_GRACE_SECONDS, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
