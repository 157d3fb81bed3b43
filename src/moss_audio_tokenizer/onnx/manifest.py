"""What an export is: inputs and outputs of its graphs, and its onnx.json; see docs/onnx.md.

Standard library only. Owns the names, types, shapes and rings of graphs, which follow from the
configuration, for who writes the graphs and for who runs them; and the reading of onnx.json, which
is refused unless every key is as an export writes it, the config.json beside it says the same, and
its own hash fits. Files are `folder.py`'s.
"""

import hashlib
import json
import re
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..config import CodecConfig, TransformerStage, codec_config_from_released
from ..errors import CheckpointError

GRAPHS = ("encoder", "decoder", "encoder_step", "decoder_step")
# Frames of a whole clip that are computed at a time, unless chunk_duration says otherwise.
CHUNK_FRAMES = 25
# An input or output: its name, its type, and its axes.
Value = tuple[str, str, list[int | str]]

MANIFEST_NAME = "onnx.json"
CONFIG_NAME = "config.json"
FORMAT = 1
CODES_TYPES = ("int32", "int64")
_REQUIRED = ("config", "identity", "codes_type", "weights", "graphs", "sha256")
# What only people read, and what type it has.
_NOTES = {"producer": str, "opset": int, "precision": dict, "checks": dict}
_MOST_CHARACTERS = 60
# Far beyond any codec; more would fill the memory with descriptions of rings.
_MOST_LAYERS = 10_000


@dataclass(frozen=True)
class RingShape:
    """Keys and values of one layer, inputs and outputs of a step.

    Attributes:
        layer: counted through the encoder or the decoder.
        stage: rings of one stage have the same number of positions.
        num_heads: attention heads.
        head_dim: width of a head.
        context_steps: the attention window.
        steps_per_frame: steps that are written for each frame.
    """

    layer: int
    stage: int
    num_heads: int
    head_dim: int
    context_steps: int
    steps_per_frame: int

    def places(self, max_chunk_frames: int) -> int:
        """Positions of a ring for steps of so many frames: window, chunk less one, and a spare."""
        return self.context_steps + max_chunk_frames * self.steps_per_frame

    def names(self, kind: str) -> tuple[str, str]:
        """Names of the "key" or "value" entries that come in and that go out."""
        return f"past_key_values.{self.layer}.{kind}", f"present.{self.layer}.{kind}"

    def values(self) -> tuple[list[Value], list[Value]]:
        """Keys and values as they come in and as they go out."""
        axes: list[int | str] = ["batch", self.num_heads, f"places_{self.stage}", self.head_dim]
        names = (self.names(kind) for kind in ("key", "value"))
        past, present = zip(*names, strict=True)
        return [(name, "float32", axes) for name in past], [(n, "float32", axes) for n in present]


def rings_of(config: CodecConfig, side: str) -> list[RingShape]:
    """The state of the "encoder" or the "decoder", layer by layer."""
    encodes = side == "encoder"
    stages = config.encoder if encodes else config.decoder
    rates = config.encoder_rates if encodes else config.decoder_rates
    rings: list[RingShape] = []
    for index, (stage, rate) in enumerate(zip(stages, rates, strict=True)):
        if isinstance(stage, TransformerStage):
            width = stage.d_model // stage.num_heads
            steps = (config.context_steps(stage, rate), round(rate / config.frame_rate))
            for _ in range(stage.num_layers):
                rings.append(RingShape(len(rings), index, stage.num_heads, width, *steps))
    return rings


def given_and_results(config: CodecConfig, side: str, codes_type: str) -> tuple[Value, list[Value]]:
    """What the encoder or the decoder takes and gives for some frames, besides its state."""
    quantizer = config.quantizer
    audio: list[int | str] = ["batch", config.number_channels, "samples"]
    if side == "decoder":
        codes: list[int | str] = ["num_quantizers", "batch", "frames"]
        return ("audio_codes", codes_type, codes), [("audio", "float32", audio)]
    return ("input_values", "float32", audio), [
        ("audio_codes", codes_type, [quantizer.num_quantizers, "batch", "frames"]),
        ("encoder_hidden_states", "float32", ["batch", quantizer.input_dim, "frames"]),
    ]


def graph_values(
    config: CodecConfig, name: str, codes_type: str
) -> tuple[list[Value], list[Value]]:
    """Inputs and outputs of one of `GRAPHS`, in their order."""
    side, _, step = name.partition("_")
    given, results = given_and_results(config, side, codes_type)
    if not step:
        if side == "encoder":
            results.insert(1, ("audio_codes_lengths", codes_type, ["batch"]))
        return [given], results
    state = [ring.values() for ring in rings_of(config, side)]
    active: Value = ("active", "bool", ["batch", "frames"])
    positions: Value = ("positions", "int64", ["batch"])
    following: Value = ("next_positions", "int64", ["batch"])
    before = [value for past, _ in state for value in past]
    after = [value for _, present in state for value in present]
    return [given, active, positions, *before], [*results, following, *after]


def facts_of(config: CodecConfig, name: str, codes_type: str) -> dict[str, list[dict[str, Any]]]:
    """Inputs, outputs and rings of a graph, in their order and as a manifest has them."""
    inputs, outputs = (
        [{"name": value, "type": dtype, "shape": axes} for value, dtype, axes in values]
        for values in graph_values(config, name, codes_type)
    )
    facts = {"inputs": inputs, "outputs": outputs}
    if not name.endswith("_step"):
        return facts
    rings = rings_of(config, name.removesuffix("_step"))
    return facts | {"rings": [asdict(ring) for ring in rings]}


def read_manifest(path: Path) -> tuple[dict[str, Any], CodecConfig]:
    """A manifest and the configuration in it, both checked.

    Raises:
        CheckpointError: a key is missing, impossible, or contradicts another.
    """
    manifest = _read_object(path)
    found = manifest.get("format")
    if isinstance(found, bool) or found != FORMAT:
        raise CheckpointError(
            f"{path} has format {_shown(found)}; expected {FORMAT}: export again with this version"
        )
    missing = [key for key in _REQUIRED if key not in manifest]
    if missing:
        raise CheckpointError(f"{path} lacks {missing[0]!r}; export again")
    _check_names(path, manifest)
    _check_files(path, manifest)
    config = _config(path, manifest["config"])
    _check_graphs(path, manifest, config)
    if sealed(manifest) != manifest:
        raise CheckpointError(
            f"{path} was altered after the export: its values do not have the sha256 that it "
            "states; export again, or copy the whole folder again"
        )
    return manifest, config


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with ``sha256``, the hash of all its other values, in whatever order they are."""
    values = {key: value for key, value in manifest.items() if key != "sha256"}
    text = json.dumps(values, sort_keys=True)
    return values | {"sha256": hashlib.sha256(text.encode()).hexdigest()}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise CheckpointError(f"{path} cannot be read (nested too deeply); export again") from None
    except (OSError, ValueError) as problem:
        raise CheckpointError(f"{path} cannot be read ({problem}); export again") from problem
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{path} has format {type(found).__name__!r}; expected an object: export again"
        )
    return found


def _shown(value: object) -> str:
    """The beginning of a value, however large it is."""
    text = reprlib.repr(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."


def _refuse(path: Path, key: str, found: object, expected: str) -> None:
    raise CheckpointError(f"{path}: {key} is {_shown(found)}; expected {expected}: export again")


def _check_names(path: Path, manifest: Mapping[str, Any]) -> None:
    identity, codes_type = manifest["identity"], manifest["codes_type"]
    if not isinstance(identity, str) or not re.fullmatch("[0-9a-f]{16}", identity):
        _refuse(path, "identity", identity, "16 hexadecimal digits")
    if codes_type not in CODES_TYPES:
        _refuse(path, "codes_type", codes_type, " or ".join(CODES_TYPES))
    for key, kind in _NOTES.items():
        if not isinstance(manifest.get(key, kind()), kind):
            _refuse(path, key, manifest[key], f"a value of type {kind.__name__}")


def _check_files(path: Path, manifest: Mapping[str, Any]) -> None:
    """Names, sizes and hashes of weights and graphs; there is at least one of each."""
    for key in ("weights", "graphs"):
        entries = manifest[key]
        if not isinstance(entries, dict) or not (entries or key == "weights"):
            _refuse(path, key, entries, "an object with an entry for each file")
        for name, entry in entries.items():
            _check_file(path, f"{key}.{name}", entry)
    for name, entry in manifest["graphs"].items():
        if not isinstance(entry.get("file"), str):
            _refuse(path, f"graphs.{name}.file", entry.get("file"), "the name of a file")


def _check_file(path: Path, key: str, entry: Any) -> None:
    if not isinstance(entry, dict):
        _refuse(path, key, entry, "an object with bytes and sha256")
    size, digest = entry.get("bytes"), entry.get("sha256")
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        _refuse(path, f"{key}.bytes", size, "a number of bytes")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        _refuse(path, f"{key}.sha256", digest, "64 hexadecimal digits")


def _config(path: Path, released: Any) -> CodecConfig:
    """The configuration, which must be that of config.json where there is one."""
    if not isinstance(released, dict):
        _refuse(path, "config", released, "an object with the keys of a config.json")
    projects = released.get("always_project")
    if not isinstance(projects, bool):
        _refuse(path, "config.always_project", projects, "true or false")
    config = _built(path, released, projects)
    beside = path.with_name(CONFIG_NAME)
    if beside.is_file():
        other = _built(beside, _read_object(beside), projects)
        if other != config:
            raise CheckpointError(
                f"{path} describes another codec than {CONFIG_NAME} beside it "
                f"({_difference(config, other)}); export again"
            )
    return config


def _built(path: Path, released: Mapping[str, Any], always_project: bool) -> CodecConfig:
    try:
        config = codec_config_from_released(released, always_project=always_project)
        _check_size(config)
        return config
    except (ArithmeticError, LookupError, TypeError, ValueError) as problem:
        raise CheckpointError(f"{path}: config: {problem}; export again") from problem


def _check_size(config: CodecConfig) -> None:
    stages = [
        stage for stage in config.encoder + config.decoder if isinstance(stage, TransformerStage)
    ]
    layers = sum(stage.num_layers for stage in stages)
    if layers > _MOST_LAYERS:
        raise ValueError(f"{layers} layers; expected at most {_MOST_LAYERS}")


def _difference(config: CodecConfig, other: CodecConfig) -> str:
    """The first value in which two configurations differ."""
    for mine, theirs in ((config, other), (config.quantizer, other.quantizer)):
        for key, value in vars(mine).items():
            if key != "quantizer" and value != vars(theirs)[key]:
                return f"{key} is {_shown(value)}, not {_shown(vars(theirs)[key])}"
    return "quantizers of other types"


def _check_graphs(path: Path, manifest: Mapping[str, Any], config: CodecConfig) -> None:
    """Inputs, outputs and rings must be those that the configuration gives."""
    for name, entry in manifest["graphs"].items():
        if name not in GRAPHS:
            _refuse(path, "the name of a graph", name, f"one of {', '.join(GRAPHS)}")
        try:
            expected = facts_of(config, name, manifest["codes_type"])
        except (ArithmeticError, ValueError) as problem:  # a window without end
            raise CheckpointError(f"{path}: config: {problem}; export again") from problem
        for key, facts in expected.items():
            if entry.get(key) != facts:
                raise CheckpointError(
                    f"{path}: graphs.{name}.{key} is {_shown(entry.get(key))}, which is not "
                    "what its config and codes_type give; export again"
                )
