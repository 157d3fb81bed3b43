"""Tasks that must be gone before what they use is released."""

import asyncio
from typing import Any

_PATIENCE_SECONDS = 0.05


async def end_tasks(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks and wait until they have ended; what they raise is nobody's business any more.

    Again and again: before Python 3.12, `asyncio.wait_for` forgets that it was cancelled if what
    it waits for is done at that moment, and its task would go on for ever.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_PATIENCE_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)
