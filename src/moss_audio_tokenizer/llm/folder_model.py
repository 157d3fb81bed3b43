"""Model folders of CAT-TTS and CAT-ASR: config.json, model.safetensors and text.json.

Owns the text tokens that need transformers; those that do not are `speech.tokens`'.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel

from ..checkpoint.stored_weights import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    find_checkpoint,
    read_header,
    with_scales,
)
from ..errors import CheckpointError, ConfigError, one_line
from ..files import atomic_path, write_file
from ..speech.model_facts import ModelFacts
from ..speech.phonemes import LEXICON_NAME, Lexicon
from ..speech.tokens import (
    LETTERS,
    TEXT_NAME,
    TOKENIZER_FOLDER,
    ByteText,
    CharacterText,
    PieceText,
    TextCodec,
    up_to,
)
from ..speech.tokens import load_text as load_stored_text


class PretrainedText:
    """The tokenizer of a pretrained model, with its end-of-text token.

    Raises:
        ConfigError: there is none at ``source``, or it has no end-of-text token.
    """

    def __init__(self, source: str) -> None:
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"no tokenizer at {source!r} ({one_line(error, 200)}); name one, or 'bytes'"
            ) from error
        if self._tokenizer.eos_token_id is None:
            raise ConfigError(f"the tokenizer at {source!r} has no end-of-text token")
        if not self._tokenizer.encode("a text", add_special_tokens=False):
            raise ConfigError(
                f"the tokenizer at {source!r} makes no tokens of a text: its files are missing; "
                "name a folder that has them, or 'bytes'"
            )
        self.end = int(self._tokenizer.eos_token_id)
        self.num_tokens = len(self._tokenizer)

    def encode(self, text: str) -> list[int]:
        """The tokenizer's ids, without special tokens."""
        return self._tokenizer.encode(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """The tokenizer's text."""
        return self._tokenizer.decode(up_to(ids, self.end), skip_special_tokens=True)

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a folder."""
        self._tokenizer.save_pretrained(str(folder))


def make_text(source: str) -> TextCodec:
    """The text tokens that a recipe names.

    Args:
        source: "bytes", "letters" for the English alphabet, or folder or hub id of a tokenizer.

    Raises:
        ConfigError: there is no such tokenizer.
    """
    if source == "letters":
        return CharacterText(LETTERS)
    return ByteText() if source == "bytes" else PretrainedText(source)


def save_text(text: TextCodec, folder: Path) -> None:
    """Write text.json, and a pretrained tokenizer's files, into a model folder."""
    facts: dict[str, Any] = {"kind": "bytes"}
    if isinstance(text, PieceText):
        facts = {"kind": "pieces", "alphabet": text.alphabet, "pieces": list(text.pieces)}
    elif isinstance(text, CharacterText):
        facts = {"kind": "characters", "alphabet": text.alphabet, "words": list(text.words)}
    elif isinstance(text, PretrainedText):
        facts = {"kind": "pretrained"}
        text.save(folder / TOKENIZER_FOLDER)
    write_file(folder / TEXT_NAME, json.dumps(facts) + "\n", CheckpointError)


def load_text(folder: Path) -> TextCodec:
    """The text tokens of a model folder.

    Raises:
        CheckpointError: text.json is missing or damaged.
    """
    return load_stored_text(folder, lambda stored: PretrainedText(str(stored)))


class FolderModel(PreTrainedModel):
    """A model of transformers together with its text tokens, saved and loaded as one folder.

    Attributes:
        text: tokens of texts; constructors take the configuration and these.
        lexicon: pronunciations of words; None without.
    """

    text: TextCodec
    lexicon: Lexicon | None = None

    @property
    def facts(self) -> ModelFacts:
        """Sizes of the model."""
        return ModelFacts.of(self.config.to_dict())

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: constructors initialize all weights."""

    @classmethod
    def from_pretrained(cls, path: str | Path, **options: Any) -> Any:  # type: ignore[override]
        """Load a model for inference.

        Args:
            path: folder that `save_pretrained` or ``moss-audio train`` wrote, or a hub id.
            options: options of the hub, such as ``revision``.

        Raises:
            CheckpointError: the folder is missing, or its tensors do not fit its configuration.
        """
        folder = Path(find_checkpoint(path, options))
        config = _config(folder, cls.config_class)
        text = load_text(folder)
        try:
            stored = with_scales(read_header(folder / WEIGHTS_NAME))
            tensors = {name: torch.from_numpy(tensor.read()) for name, tensor in stored.items()}
            # On the meta device first: a config.json may ask for more memory than there is.
            with torch.device("meta"):
                _check_fit(cls(config, text), tensors, folder)
            model = cls(config, text)
        except CheckpointError:
            raise
        # A constructor of transformers may raise anything about values from a file.
        except Exception as error:
            raise CheckpointError(
                f"{folder} holds no usable model ({one_line(error, 200)})"
            ) from error
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(tensors[name])
        if (folder / LEXICON_NAME).is_file():
            model.lexicon = Lexicon.load(folder / LEXICON_NAME)
        model.eval()
        return model

    def save_pretrained(self, path: str | Path, **_: Any) -> None:  # type: ignore[override]
        """Write config.json, the weights and the text tokens; shared tensors are stored once.

        Raises:
            CheckpointError: the folder cannot be written.
        """
        folder = Path(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tensors = {
                name: parameter.detach().cpu().contiguous()
                for name, parameter in self.named_parameters()
            }
            with atomic_path(folder / WEIGHTS_NAME, error=CheckpointError) as beside:
                save_file(tensors, beside, metadata={"format": "pt"})
            self.config.architectures = [type(self).__name__]
            write_file(
                folder / CONFIG_NAME, self.config.to_json_string(use_diff=False), CheckpointError
            )
            save_text(self.text, folder)
            if self.lexicon:
                with atomic_path(folder / LEXICON_NAME, error=CheckpointError) as beside:
                    self.lexicon.save(beside)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{folder} cannot be written ({one_line(error, 200)})") from error


def _config(folder: Path, kind: Any) -> Any:
    path = folder / CONFIG_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("model_type") != kind.model_type:
            raise ConfigError(f"its model_type is {values.get('model_type')!r}")
        return kind(**{key: value for key, value in values.items() if key != "model_type"})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} describes no {kind.model_type} model ({one_line(error, 200)}); name the "
            "folder of one"
        ) from error


def _check_fit(model: Any, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Check names, shapes and finiteness of a file's tensors."""
    parameters = dict(model.named_parameters())
    differing = parameters.keys() ^ tensors.keys()
    differing |= {
        name
        for name in parameters.keys() & tensors.keys()
        if parameters[name].shape != tensors[name].shape
    }
    where = folder / WEIGHTS_NAME
    if differing:
        raise CheckpointError(
            f"{where} does not fit its config.json: {min(differing)!r} is missing, left over or of "
            "another shape"
        )
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{where} is damaged: {name!r} does not hold finite numbers")
