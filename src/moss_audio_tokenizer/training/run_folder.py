"""The folder of a run: its lock, its recipe, and the trimming of its logs on resume.

Owns the lock, recipe.json and the trimming of logs on resume; checkpoints are
`checkpointing.py`'s. Knows nothing of models.
"""

import json
import os
from pathlib import Path
from typing import Any

from ..errors import TrainingError
from ..files import take_lock, write_file
from .checkpointing import newest_run
from .run_config import RunConfig, as_dict, num_heads
from .speech.speech_config import DEPTHS

LOCK_NAME = "run.lock"
RECIPE_NAME = "recipe.json"
KIND_KEY = "kind"
METRICS_NAME = "metrics.jsonl"
VALIDATION_NAME = "validation.jsonl"

# What a resumed run may do otherwise than before; a trailing dot stands for a whole group.
RESUMABLE_KEYS = (
    "output",
    "max_steps",
    "threads",
    "checkpoint_every",
    # Keys of earlier versions.
    "log_every",
    "keep_checkpoints",
    "validation.",
    "optimizer.decay_fraction",
    "data.manifest",
    "data.sources",
    "data.workers",
    "data.cache_hours",
    "data.max_unreadable_share",
)


# Keys under other names than in recipes of earlier versions.
_MOVED_KEYS = {
    "losses.phase_hertz": "spectra.phase_hertz",
    "losses.mel_windows": "spectra.mel_windows",
    "losses.phase_windows": "spectra.phase_windows",
}
# Keys that were removed, with the values that a run can be resumed with: those that are used now.
_REMOVED_KEYS: dict[str, tuple[Any, ...]] = {
    "adversarial.betas": ([0.8, 0.99],),
    "adversarial.clip_norm": (10.0,),
    "adversarial.learning_rate": (1e-4,),
    "data.max_gain_db": (20.0,),
    "data.num_quantizers": (0,),
    "data.speed": ([0.9, 1.1],),
    "optimizer.clip_norm": (1.0,),
    "optimizer.kind": ("adamw",),
    "semantic.max_tokens": (512,),
    "semantic.tokenizer": ("", "bytes"),
    "spectra.frequency_windows": ([1024, 2048],),
    "warm_start.noise": (0.3,),
}
# Sizes of the depth Transformer in recipes of earlier versions, in the order of `_depth`.
_DEPTH_KEYS = (
    *("width", "num_layers", "num_heads", "num_key_value_heads", "head_dim", "feedforward"),
    "adapter_width",
)
_DEPTHS = {
    "paper": [1536, 4, 16, 8, 128, 8960, 2048],
    **{name: list(shape.values()) for name, shape in DEPTHS.items() if shape},
}


class RunFolder:
    """A run's folder, held by one process until `close`.

    Args:
        output: the folder, made if it is not there.

    Raises:
        TrainingError: no folder is named, it cannot be made, or another run holds it.
    """

    def __init__(self, output: str) -> None:
        if not output:
            raise TrainingError("no output folder; set output=DIR")
        self.path = Path(output)
        taken = TrainingError(
            f"{output!r} is in use by another run; wait for its end or set another output=DIR"
        )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = take_lock(self.path / LOCK_NAME, taken)
        except OSError as error:
            raise TrainingError(f"cannot write in {output!r}: {error.strerror}") from error

    def close(self) -> None:
        """Let another run have the folder. The lock also ends with the process, however it ends."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def checkpoint_for(self, config: RunConfig, resume: bool) -> Path | None:
        """The checkpoint to start from; None for a fresh start. Changes nothing.

        Raises:
            TrainingError: a fresh start in the folder of a run, nothing to resume, or a recipe
                that is not the run's.
        """
        newest = newest_run(self.path)
        if not resume:
            if newest is not None:
                raise TrainingError(f"{self.path} holds a run; pass --resume or another output=DIR")
            return None
        if newest is None:
            raise TrainingError(f"nothing to resume in {self.path}: it has no whole checkpoint")
        self._check_recipe(config)
        return newest

    def _check_recipe(self, config: RunConfig) -> None:
        changes = [
            f"{key} was {before!r} and is {now!r}"
            for key, (before, now) in changed_keys(self.path, config).items()
            if not _is_resumable(key)
        ]
        if changes:
            raise TrainingError(
                f"the recipe is not that of the run in {self.path}: {'; '.join(changes)}; resume "
                "with the values it had, or start a run in another output=DIR"
            )

    def begin(self, config: RunConfig, step: int) -> None:
        """Note the recipe and its kind, and cut from the logs what came after ``step``."""
        recipe = {KIND_KEY: config.kind} | as_dict(config)
        write_file(self.path / RECIPE_NAME, json.dumps(recipe, indent=2) + "\n", TrainingError)
        for name in (METRICS_NAME, VALIDATION_NAME):
            if (self.path / name).exists():
                _trim_log(self.path / name, step)


def read_recipe(folder: Path) -> tuple[str, dict[str, Any]]:
    """The kind of the run in ``folder`` and its recipe, as it comes back from JSON.

    Raises:
        TrainingError: it cannot be read, or is none.
    """
    path = folder / RECIPE_NAME
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(
            f"cannot tell what run this is: {path} cannot be read ({error}); start a run in "
            "another output=DIR"
        ) from error
    if not isinstance(recipe, dict):
        raise TrainingError(f"{path} holds {type(recipe).__name__}; expected a recipe")
    # Before there were other kinds, none was noted.
    return str(recipe.pop(KIND_KEY, "codec")), recipe


def changed_keys(folder: Path, config: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Keys by which a recipe is not that of the run in ``folder``: what they were and are.

    A recipe from before a key existed had what is the default now.

    Raises:
        TrainingError: the recipe there cannot be read, or is of another kind.
    """
    kind, recipe = read_recipe(folder)
    if kind != config.kind:
        raise TrainingError(
            f"{folder} holds a run of kind {kind!r}, and this recipe is of kind {config.kind!r}; "
            "resume with a recipe of that run's kind, or set another output=DIR"
        )
    now = _flat(as_json(config))
    before = _flat(as_json(type(config)())) | _of_today(_flat(recipe), now, kind)
    pairs = {key: (before.get(key), now.get(key)) for key in sorted(before.keys() | now.keys())}
    return {key: (was, is_now) for key, (was, is_now) in pairs.items() if was != is_now}


def as_json(config: RunConfig) -> dict[str, Any]:
    """The recipe as it comes back from JSON: lists where there were tuples."""
    return json.loads(json.dumps(as_dict(config)))


def _trim_log(path: Path, step: int) -> None:
    """Keep the lines up to ``step``: those after it come again, and the last may be torn."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = "".join(line for line in lines if _is_logged_by(line, step))
    write_file(path, kept, TrainingError)


def _is_logged_by(line: str, step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step) and line.endswith("\n")
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _flat(recipe: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and their values."""
    flat: dict[str, Any] = {}
    for key, value in recipe.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _of_today(recipe: dict[str, Any], now: dict[str, Any], kind: str) -> dict[str, Any]:
    """A recipe of an earlier version with the keys of this one; what has no such key stays."""
    recipe = {_MOVED_KEYS.get(key, key): value for key, value in recipe.items()}
    sizes = [recipe.get(f"depth.{key}") for key in _DEPTH_KEYS]
    for name in (name for name, shape in _DEPTHS.items() if shape == sizes):
        recipe = {key: value for key, value in recipe.items() if not key.startswith("depth.")}
        recipe["depth"] = name
    today = dict(_REMOVED_KEYS)
    joined = recipe.get("data.max_join", 1) > 1
    today["data.join_share"] = ((0.2,) if kind == "asr" else (0.5,)) if joined else (0.2, 0.5)
    # Of the loss of durations, which only an aligner brings; that of today is another one.
    today["place_weight"] = () if recipe.get("aligner") else (1.0, 4.0)
    for group in ("model", "semantic"):
        today[f"{group}.num_heads"] = (num_heads(int(recipe.get(f"{group}.width", 0))),)
    return {
        key: value for key, value in recipe.items() if key in now or value not in today.get(key, ())
    }


def _is_resumable(key: str) -> bool:
    return any(
        key.startswith(allowed) if allowed.endswith(".") else key == allowed
        for allowed in RESUMABLE_KEYS
    )
