"""The configuration that all training runs share: frozen dataclasses, checked when built.

Knows nothing of codecs or language models, whose configurations add theirs to `RunConfig`. Also
how `key=value` texts change any frozen dataclass of plain values. Standard library only.
"""

import ast
import math
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, TypeVar, get_args, get_type_hints

from ..errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")
SCHEDULES = ("linear", "cosine")
# Seeds are spread over the generators' 64 bits (codec_task.py).
_LARGEST_SEED = 1 << 40


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its schedule: linear warm-up, a plateau, decay to zero.

    Attributes:
        learning_rate: the learning rate of the plateau.
        betas: the betas of AdamW.
        weight_decay: the weight decay of all parameters.
        warmup_steps: the number of steps until the plateau.
        decay_fraction: the share of the run, at its end, over which the learning rate falls.
        schedule: how it falls: "linear", or "cosine", which spares the warm-up: with a
            ``decay_fraction`` of 1 nothing is left of the plateau.
    """

    learning_rate: float = 1.5e-3
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.01
    warmup_steps: int = 200
    decay_fraction: float = 0.4
    schedule: str = "linear"

    def __post_init__(self) -> None:
        check_types(self)
        require(self.learning_rate > 0, self, "learning_rate", "a number above 0")
        require(all(0 <= beta < 1 for beta in self.betas), self, "betas", "two numbers in [0, 1)")
        require(self.weight_decay >= 0, self, "weight_decay", "0 or more")
        require(self.warmup_steps >= 0, self, "warmup_steps", "0 or more")
        require(0 <= self.decay_fraction <= 1, self, "decay_fraction", "0 to 1")
        require(self.schedule in SCHEDULES, self, "schedule", "'linear' or 'cosine'")


@dataclass(frozen=True)
class ValidationSchedule:
    """How often to validate, and on how much; what is measured is each kind of run's.

    Attributes:
        every: the number of steps between validations.
        clips: the number of clips of the split "valid", spread evenly over it; 0 for no validation.
    """

    every: int = 1000
    clips: int = 24

    def __post_init__(self) -> None:
        check_types(self)
        require(self.every >= 1, self, "every", "at least 1")
        require(self.clips >= 0, self, "clips", "0 or more")


@dataclass(frozen=True)
class RunConfig:
    """What every run has; the configuration of a kind of run is a subclass with a `kind`.

    Attributes:
        kind: what is trained, for recipe.json; a constant of the class, not a key.
        output: the folder of the run.
        max_steps: the number of optimizer steps.
        seed: the seed that everything random follows from, together with the step.
        device: "auto" takes a GPU where there is one; "cpu" or "cuda".
        precision: "fp32" or "bf16" (autocast; losses stay in float32).
        threads: the number of CPU threads; 0 leaves PyTorch's choice.
        accumulate: the number of parts that the batch of a step is computed in, one by one.
        shard: whether weights, gradients and optimizer state are sharded over the processes
            (FSDP2) instead of copied (DDP).
        peak_tflops: the peak of one device, for the utilization; 0 measures it.
        wandb: the project on Weights & Biases to log to; empty for none.
        checkpoint_every: the number of steps between checkpoints.
        keep_best: whether the checkpoint of the best validation is kept beside the newest two.
        optimizer: the optimizer of everything that trains.
        validation: how often to validate; each kind of run has a subclass here.
    """

    output: str = ""
    max_steps: int = 20_000
    seed: int = 0
    device: str = "auto"
    precision: str = "bf16"
    threads: int = 0
    accumulate: int = 1
    shard: bool = False
    peak_tflops: float = 0.0
    wandb: str = ""
    checkpoint_every: int = 1000
    keep_best: bool = True
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    validation: ValidationSchedule = field(default_factory=ValidationSchedule)

    # Without an annotation it is not a field, nor a key that a user could set.
    kind = ""

    def __post_init__(self) -> None:
        check_types(self)
        require(self.precision in ("fp32", "bf16"), self, "precision", "'fp32' or 'bf16'")
        require(self.device in DEVICES, self, "device", "'auto', 'cpu' or 'cuda'")
        for name in ("max_steps", "checkpoint_every", "accumulate"):
            require(getattr(self, name) >= 1, self, name, "at least 1")
        require(self.peak_tflops >= 0, self, "peak_tflops", "0 or more")
        require(0 <= self.seed <= _LARGEST_SEED, self, "seed", "0 to 2**40")
        require(self.threads >= 0, self, "threads", "0 or more")


ConfigType = TypeVar("ConfigType")
# The least similarity to an unknown key, from 0 to 1, for a key to be suggested.
_LEAST_SIMILARITY = 0.75


def num_heads(width: int) -> int:
    """Attention heads of a small language model: of 64 channels, of 32 below a width of 256."""
    return max(2, width // (64 if width >= 256 else 32))


def require(condition: bool, config: object, name: str, expected: str) -> None:
    """Raise a ConfigError about the field ``name`` of ``config`` unless ``condition`` holds."""
    if not condition:
        got = getattr(config, name)
        raise ConfigError(f"{type(config).__name__}.{name} is {got!r}; expected {expected}")


def check_types(config: Any) -> None:
    """Hold every field of a frozen dataclass to its annotation; whole numbers become floats.

    Raises:
        ConfigError: a value of another type, or a number that is not finite.
    """
    for name, kind in get_type_hints(type(config)).items():
        value = coerce(getattr(config, name), kind, f"{type(config).__name__}.{name}")
        object.__setattr__(config, name, value)


def coerce(value: Any, kind: Any, key: str) -> Any:
    """``value`` as a ``kind``: lists as tuples, whole numbers as floats, and no more than that.

    Raises:
        ConfigError: it is not one; the message names ``key``.
    """
    if isinstance(kind, types.GenericAlias):
        return _coerce_tuple(value, kind, key)
    if kind is float and type(value) is int:
        value = float(value) if abs(value) <= sys.float_info.max else math.inf
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise ConfigError(f"{key} is {value!r}; expected {_kind_name(kind)}")
    return value


def _coerce_tuple(value: Any, kind: types.GenericAlias, key: str) -> tuple[Any, ...]:
    kinds = get_args(kind)
    if not isinstance(value, tuple | list):
        raise ConfigError(f"{key} is {value!r}; expected {_kind_name(kind)}")
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise ConfigError(f"{key} is {value!r}; expected {len(kinds)} values")
    return tuple(coerce(item, part, key) for item, part in zip(value, kinds, strict=True))


def _kind_name(kind: Any) -> str:
    names = {int: "a whole number", float: "a finite number", bool: "True or False", str: "text"}
    if kind in names:
        return names[kind]
    parts = get_args(kind)
    if not parts:
        return str(getattr(kind, "__name__", kind))
    inner = [_kind_name(part) for part in parts if part is not Ellipsis]
    if parts[-1] is Ellipsis:
        return f"a sequence (a, b, ...) of: {inner[0]}"
    return f"({', '.join(inner)})"


def override(config: ConfigType, assignments: Iterable[str]) -> ConfigType:
    """Apply ``key=value`` strings, such as ``data.batch_size=4``, to a configuration.

    Values are Python literals; text needs no quotes. All are applied at once, so that keys which
    only make sense together can come in any order; of two for one key the later counts.

    Raises:
        ConfigError: an unknown key, or a value of the wrong type.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"got {assignment!r}; expected key=value, such as max_steps=100")
        _note_change(changes, config, key.split("."), text, key, config)
    return _apply(config, changes)


def _note_change(
    changes: dict[str, Any], config: Any, path: list[str], text: str, key: str, root: Any
) -> None:
    """Add a value to the tree of changes, where ``config`` has a field for it."""
    names = [item.name for item in fields(config)]
    if path[0] not in names:
        raise ConfigError(f"unknown key {key!r}; {_suggestion(root, config, key, names)}")
    current = getattr(config, path[0])
    if is_dataclass(current):
        if len(path) == 1:
            inner = ", ".join(f"{key}.{item.name}" for item in fields(current))
            raise ConfigError(f"{key!r} names a group of keys; set one of {inner}")
        _note_change(changes.setdefault(path[0], {}), current, path[1:], text, key, root)
        return
    if len(path) > 1:
        raise ConfigError(f"unknown key {key!r}; {path[0]!r} is a single value")
    changes[path[0]] = _parse(text, get_type_hints(type(config))[path[0]], key)


def _suggestion(root: Any, config: Any, key: str, names: list[str]) -> str:
    """The keys that were probably meant, and those of the group where the key was looked for."""
    known = dict(leaves(root))
    by_last = {name.rpartition(".")[2]: name for name in known}
    last = key.rpartition(".")[2]
    near = get_close_matches(key, known, 1, _LEAST_SIMILARITY)
    near += [by_last[name] for name in get_close_matches(last, by_last, 1, _LEAST_SIMILARITY)]
    meant = " or ".join(dict.fromkeys(near))
    there = f"{type(config).__name__} has {', '.join(names)}"
    return f"did you mean {meant}? {there}" if meant else there


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a configuration, such as ``data.batch_size``, with its value."""
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, value


def recipe_lines(config: Any) -> list[str]:
    """The whole configuration as ``key=value`` lines, which `override` understands."""
    return [f"{key}={value}" for key, value in leaves(config)]


def _apply(config: ConfigType, changes: dict[str, Any]) -> ConfigType:
    """A copy with a tree of changes, built from the leaves up."""
    values = {
        name: _apply(getattr(config, name), value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return replace(config, **values) if values else config  # type: ignore[type-var]


def _parse(text: str, kind: Any, key: str) -> Any:
    if kind is str:
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = text
    return coerce(value, kind, key)


def as_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain values, for JSON."""
    return asdict(config)
