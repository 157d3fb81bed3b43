"""What engines run: a job opens something heavy once a worker, and does named pieces with it.

Owns the protocol alone; engines know no job, and jobs no engine.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

# What a piece came to, as plain values.
Outcome: TypeAlias = dict[str, Any]
Report: TypeAlias = Callable[[Outcome], None]


class Job(Protocol):
    """It travels to the workers; what `open` returns stays there."""

    def open(self) -> Any:
        """What `do` works with: a codec."""
        ...

    def do(self, opened: Any, name: str) -> Outcome:
        """Do one piece of work; doing it again comes to the same."""
        ...
