"""Files that cannot be read: named once each, and the end of a run when there are too many.

Owns the count and the limit; knows nothing of what is in a file.
"""

import itertools
from collections.abc import Callable

from ...errors import TrainingError

# The share of unreadable clips among those tried says nothing before so many have been.
_FEWEST_TRIED = 200


class Unreadable:
    """What could not be read of a run's clips.

    Args:
        where: what the clips are from, to tell people.
        most_share: of all clips, or of at least 200 that were tried, that may be unreadable.
        report: called with a line about every file that is skipped.

    Attributes:
        reasons: for each file that could not be read so far, what is wrong with it.
        num_clips: all clips, readable or not; to be set once it is known.
    """

    def __init__(self, where: str, most_share: float, report: Callable[[str], None]) -> None:
        self.reasons, self.num_clips = dict[str, str](), 0
        self._where, self._most_share, self._report = where, most_share, report
        self._tried: set[int] = set()

    def skip(self, name: str, reason: str) -> bool:
        """Report a file that cannot be read, once; whether it is the first time."""
        if name in self.reasons:
            return False
        self.reasons[name] = reason
        self._report(f"skipped: {reason}")
        return True

    def note(self, clip: int, name: str, reason: str | None) -> None:
        """Count clip number ``clip`` as tried, and as unreadable where there is a reason.

        Raises:
            TrainingError: too many are.
        """
        self._tried.add(clip)
        if reason is not None and self.skip(name, reason):
            self.check(self.num_clips)
            if len(self._tried) >= _FEWEST_TRIED:
                self.check(len(self._tried))

    def check(self, total: int) -> None:
        """Raise if too many of ``total`` clips could not be read.

        Raises:
            TrainingError: there is more of it, or nothing else.
        """
        count = len(self.reasons)
        if count == total or count > self._most_share * total:
            names = ", ".join(itertools.islice(self.reasons, 3))
            raise TrainingError(
                f"{count} of the {total} training clips in {self._where} cannot be read, named "
                f"above ({names}{', ...' if count > 3 else ''}); expected a share of at most "
                f"{self._most_share:g}: repair them or raise data.max_unreadable_share"
            )
