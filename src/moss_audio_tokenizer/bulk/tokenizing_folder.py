"""The folder of a run: its lock, its plan, the shards that are complete, and the results.

Owns ``plan.json`` (written when the plan is whole), ``plan/``, ``shards/``, ``errors.jsonl`` and
``summary.json``. A shard is whole once its manifest is there; its data are written before.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..codes.shards import manifest_path
from ..errors import MALFORMED, BulkError, InputError, MossAudioError
from ..files import take_lock, write_file
from .shard_plan import PlannedShard, write_planned

PLAN_NAME = "plan.json"
SUMMARY_NAME = "summary.json"
ERRORS_NAME = "errors.jsonl"
_LOCK_NAME = "run.lock"
_FORMAT = 1
_OURS = {PLAN_NAME, SUMMARY_NAME, ERRORS_NAME, _LOCK_NAME, "plan", "shards"}


class RunFolder:
    """A folder that `tokenize` fills.

    Args:
        path: made when it is claimed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan_path = path / "plan"
        self.shards_path = path / "shards"

    @contextmanager
    def claimed(self, resume: bool) -> Iterator[None]:
        """Hold the folder against other runs.

        Raises:
            InputError: it holds something, and no run is to be resumed; or another's files.
            BulkError: another run holds it, or it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._check_free(resume)
            taken = BulkError(f"{str(self.path)!r} is in use by another run; wait for its end")
            lock = take_lock(self.path / _LOCK_NAME, taken)
        except OSError as error:
            if isinstance(error, MossAudioError):
                raise
            raise BulkError(f"cannot write in {str(self.path)!r}: {error.strerror}") from error
        try:
            for folder in (self.plan_path, self.shards_path):
                folder.mkdir(exist_ok=True)
            yield
        finally:
            os.close(lock)  # which lets go of it, as does the end of the process

    def _check_free(self, resume: bool) -> None:
        there = {path.name for path in self.path.iterdir()}
        if there - _OURS:
            raise InputError(
                f"{str(self.path)!r} holds other files; name a folder that is empty or not there"
            )
        if PLAN_NAME in there and not resume:
            raise InputError(
                f"{str(self.path)!r} holds a run; continue with --resume, or name another folder"
            )

    def plan(self) -> dict[str, Any] | None:
        """The plan, once it is whole.

        Raises:
            BulkError: it is damaged.
        """
        path = self.path / PLAN_NAME
        if not path.is_file():
            return None
        try:
            plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if plan["format"] != _FORMAT:
                raise ValueError(f"its format is {plan['format']}")
        except MALFORMED as error:
            raise BulkError(
                f"{path} is not a plan ({error}); tokenize into a new folder"
            ) from error
        return plan

    def write_plan(
        self, shards: Iterable[PlannedShard], settings: dict[str, Any], errors: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Write the plan: the shards' parts first, so that a plan is whole if there is one."""
        for path in self.plan_path.iterdir():  # of a planning that was killed
            path.unlink()
        listed = []
        for shard in shards:
            write_planned(self.plan_path, shard)
            seconds = round(shard.seconds, 3)
            listed.append({"name": shard.name, "clips": len(shard.clips), "seconds": seconds})
        plan = {"format": _FORMAT, "settings": settings, "shards": listed, "errors": errors}
        self.write_json(self.path / PLAN_NAME, plan)
        return plan

    def manifest(self, name: str) -> dict[str, Any] | None:
        """The manifest of a shard that is whole, or None."""
        try:
            path = manifest_path(self.shards_path, name)
            if not path.exists():  # as earlier versions wrote it
                path = self.shards_path / f"{name}.json"
            manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            path = self.shards_path / manifest["file"]
            whole = path.is_dir() or path.stat().st_size == manifest["bytes"]
        except MALFORMED:
            return None
        return manifest if whole else None

    def sweep(self) -> None:
        """Remove what killed workers left behind."""
        for path in self.shards_path.glob(".moss-*.partial"):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def write_json(self, path: Path, values: Any) -> None:
        """Write a JSON file, whole or not at all."""
        write_file(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n", BulkError)

    def write_results(self, summary: dict[str, Any], errors: Iterable[dict[str, Any]]) -> None:
        """Write the list of errors, and then the summary: a folder with one is complete."""
        lines = (json.dumps(error, ensure_ascii=False) + "\n" for error in errors)
        write_file(self.path / ERRORS_NAME, "".join(lines), BulkError)
        self.write_json(self.path / SUMMARY_NAME, summary)
