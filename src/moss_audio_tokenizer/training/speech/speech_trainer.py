"""What training runs of CAT-ASR and CAT-TTS share: data, language model and random draws.

The losses are in `asr_task` and `tts_task`.
"""

from abc import abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import lcm
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from ...checkpoint.codec_checkpoint import Checkpoint, load_codec
from ...checkpoint.hub import find_checkpoint
from ...errors import ConfigError, TrainingError
from ...llm import CharacterText, TextCodec, language_model_config, make_text
from ...speech.text_preparation import spell
from ..checkpointing import OPTIMIZER_NAME, Fill, optimizer_tensors, write_tensors
from ..data import CodedBatch, CodedData, CodedRow
from ..distributed import set_state, whole_state
from ..loop import Loop
from ..module_task import (
    HeldOutLosses,
    ModuleTask,
    held_out_losses,
    load_module,
    restore_module,
)
from ..optim import make_optimizer
from .speech_config import AsrTrainingConfig, LanguageModelConfig, TtsTrainingConfig
from .vocabulary import text_with_vocabulary

LanguageConfig = TypeVar("LanguageConfig", AsrTrainingConfig, TtsTrainingConfig)
# Forward and backward pass together are three forward passes' work, of two operations a weight.
_OPERATIONS_A_WEIGHT = 6
_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass(frozen=True)
class DrawnRows:
    """Rows of one pass, with the random draws of the step.

    Attributes:
        batch: the rows.
        num_quantizers: number of codebooks of each row that are in use; None for all.
        seeds: a seed of each row, for all other random numbers.
    """

    batch: CodedBatch
    num_quantizers: Int[Tensor, "rows"] | None
    seeds: tuple[int, ...]

    @property
    def names(self) -> Sequence[str]:
        """Names of the rows."""
        return self.batch.names

    @property
    def audio_seconds(self) -> float:
        """Seconds of audio of all rows."""
        return self.batch.audio_seconds

    def part(self, index: int, count: int) -> "DrawnRows":
        """The rows of part ``index`` of ``count`` equal ones."""
        part, rows = self.batch.part(index, count), len(self.seeds) // count
        own = slice(index * rows, (index + 1) * rows)
        kept = None if self.num_quantizers is None else self.num_quantizers[own]
        return DrawnRows(part, kept, self.seeds[own])


class LanguageTrainer(Loop[LanguageConfig, DrawnRows]):
    """A run that trains a language model on codes; arguments and errors are `Loop`'s.

    Attributes:
        data: source of the batches.
        text: text tokens of the model.
        valid: held-out clips; may be empty.
    """

    config: LanguageConfig

    @abstractmethod
    def make_task(self) -> ModuleTask[DrawnRows]:
        """The task before its first step, on any device; the same in all processes."""

    def build(self) -> None:
        """Open the data, which determine the codes and the text tokens, and make the model."""
        settings, processes = self.config, self.processes
        multiple = lcm(settings.data.row_multiple, settings.accumulate)
        self.text = recipe_text = self.text_of_recipe()
        self.data = CodedData(
            replace(settings.data, row_multiple=multiple),
            settings.seed,
            processes.rank,
            processes.world,
            self.report,
            device=str(processes.device),
            spell=lambda text: spell(text, recipe_text),
            count_tokens=lambda text: len(recipe_text.encode(text)),
        )
        self.text = self.text_of_data()
        self.task = self.make_task().to(processes.device)
        self.task.train()
        blocks = _blocks(self.task.model) if processes.sharded else []
        self.distributed = processes.distribute(self.task, blocks)
        self.optimizer = make_optimizer(self.task.model, settings.optimizer)
        if self.config.precision == "bf16" and self.processes.device.type == "cpu":
            # In 16 bits on a CPU the gradients of PyTorch's own attention take the longest.
            for module in self.task.modules():
                if isinstance(module, PreTrainedModel):
                    module.set_attn_implementation("eager")

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """The precision of the recipe, without cuDNN's attention.

        cuDNN plans its attention again for every shape, and rows have many lengths.
        """
        bf16 = self.config.precision == "bf16"
        device = self.processes.device.type
        with torch.autocast(device, torch.bfloat16, enabled=bf16), sdpa_kernel(_ATTENTION):
            yield

    def passes(self, batch: DrawnRows) -> list[DrawnRows]:
        """The parts of a batch."""
        count = self.config.accumulate
        return [batch.part(index, count) for index in range(count)]

    def num_targets(self, rows: DrawnRows) -> int:
        """The task's."""
        return self.task.num_tokens(rows)

    def losses(self, rows: DrawnRows, num_targets: float) -> dict[str, Tensor]:
        """The task's, in the precision of the recipe."""
        with self.autocast():
            losses: dict[str, Tensor] = self.distributed(rows, num_targets)
        return losses

    def trained_module(self) -> nn.Module:
        """The language model with its code tables and heads."""
        model: nn.Module = self.task.model
        return model

    def full_model(self) -> Any:
        """The model with complete weights, to use and to save.

        Collective: every rank must call this.
        """
        model: Any = self.task.model
        if not self.processes.sharded:
            return model
        full = type(model)(model.config, model.text)
        set_state(full, whole_state(model))
        return full.to(self.processes.device).eval()

    def restore(self, checkpoint: Path) -> None:
        """Weights and optimizer state; refused where the recipe's codec is another one now."""
        saved = load_module(checkpoint, type(self.task.model))
        learned = getattr(saved.config, "codec", "")
        if learned != self.data.info.identity:
            raise TrainingError(
                f"the run in {self.output} learned the codes of model {learned}, and its data are "
                f"those of {self.data.info.identity}; set data.codec to the model it had, or start "
                "a run in another output=DIR"
            )
        restore_module(checkpoint, saved, self.task.model, self.optimizer)

    def next_step(self, folder: Path) -> str:
        """How to use the trained model."""
        words = "asr IN.wav" if self.config.kind == "asr" else "tts 'SOME TEXT' -o OUT.wav"
        return f"to use it: moss-audio {words} --model {folder}"

    def checkpoint_files(self) -> Fill:
        """The model in its own format, and the optimizer state."""
        moments = optimizer_tensors(self.task.model, self.optimizer)
        model = self.full_model()

        def fill(folder: Path) -> None:
            model.save_pretrained(folder)
            write_tensors(folder / OPTIMIZER_NAME, moments)

        return fill

    def final_files(self) -> Fill:
        """The model in its own format."""
        fill: Fill = self.full_model().save_pretrained
        return fill

    def audio_seconds(self, batch: DrawnRows) -> float:
        """The batch's."""
        return batch.audio_seconds

    def held_out_losses(self, task: Any, batches: Iterable[DrawnRows]) -> HeldOutLosses:
        """The losses of a task on held-out rows; all processes must call it, with their own."""
        return held_out_losses(task, batches, self.processes, self.autocast)

    def text_of_recipe(self) -> TextCodec:
        """The text tokens before the data are read; clips that they cannot express are left out."""
        return make_text(self.config.model.text or self.config.model.llm)

    def text_of_data(self) -> TextCodec:
        """The text tokens, with words or pieces of the data if the recipe asks for them."""
        if not isinstance(self.text, CharacterText):
            return self.text
        return text_with_vocabulary(self.text, self.config.model, self.data.texts)

    def open_data(self) -> None:
        """Report the data, and find held-out clips."""
        data, wanted = self.data, self.config.validation.clips
        self.report(f"{data.num_used} of {data.num_clips} training clips are used")
        self.valid: list[CodedRow] = data.valid(wanted) if wanted else []
        self.report(f"{len(self.valid)} validation clips")

    def batches(self, step: int) -> Generator[DrawnRows]:
        """Batches with random draws that depend on seed, step and row alone."""
        mine = self.data.batches(step)
        try:
            for number, batch in enumerate(mine, start=step):
                yield self._drawn(batch, number)
        finally:
            mine.close()

    def _drawn(self, batch: CodedBatch, step: int) -> DrawnRows:
        count, processes = len(batch.rows), self.processes
        random = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        kept = self.draw_num_quantizers(count * processes.world, random)
        seeds = torch.randint(1 << 62, (count * processes.world,), generator=random).tolist()
        own = slice(processes.rank * count, (processes.rank + 1) * count)
        return DrawnRows(batch, kept[own], tuple(seeds[own]))

    @abstractmethod
    def draw_num_quantizers(self, rows: int, random: torch.Generator) -> Int[Tensor, "rows"]:
        """Number of codebooks in use of each row, for the rows of all processes."""

    def operations(self) -> float:
        """Operations of the weights that every frame passes; texts are not counted."""
        weights = sum(p.numel() for p in self.passed_weights())
        return _OPERATIONS_A_WEIGHT * weights * self.data.info.frame_rate

    @abstractmethod
    def passed_weights(self) -> list[Tensor]:
        """The weights that every frame passes."""

    def validated_num_quantizers(self) -> list[int]:
        """Numbers of codebooks to validate, smallest first."""
        most = self.data.info.num_quantizers
        return sorted({min(count, most) for count in self.config.validation.num_quantizers})

    def mine(self) -> list[CodedRow]:
        """The held-out clips of this process."""
        return self.valid[self.processes.rank :: self.processes.world]

    def start_from_codec(self, model: Any) -> None:
        """Initialize code embeddings with the codec's own vectors, if the recipe asks for it.

        Raises:
            ConfigError: the recipe names no codec.
        """
        if not self.config.model.start_from_codec:
            return
        if not self.config.data.codec:
            raise ConfigError("model.start_from_codec is set, but data.codec is empty; name one")
        with Checkpoint(find_checkpoint(self.config.data.codec, {})) as opened:
            quantizer = load_codec(opened, "decoder").quantizer
        model.code_embedding.start_from(quantizer.code_vectors(), self.config.seed)


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The modules that are sharded one by one: the blocks of the language model.

    Raises:
        ConfigError: the language model keeps them under an unknown name.
    """
    nested: Any = getattr(model, "temporal", None) or getattr(model, "language_model", model)
    found = getattr(nested.base_model, "layers", None)
    if found is None:
        raise ConfigError(
            f"shard is set, but a {type(nested).__name__} keeps its layers under an unknown name; "
            "set shard=False, or take a language model such as Qwen2"
        )
    return list(found)


def language_model_settings(
    config: LanguageModelConfig, text: TextCodec
) -> tuple[PreTrainedConfig, str]:
    """The configuration of the decoder-only model, and the source of its weights; "" for random.

    Raises:
        ConfigError: the model cannot be found, or has too few tokens.
    """
    if config.llm == "random":
        sizes = (config.width, config.num_layers, config.num_heads, text.num_tokens)
        return language_model_config(*sizes), ""
    try:
        found = AutoConfig.from_pretrained(config.llm)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"no language model at {config.llm!r} ({reason}); set model.llm to a folder or a hub "
            "id of a decoder-only model, or to 'random'"
        ) from error
    if text.num_tokens > found.vocab_size:
        raise ConfigError(
            f"the text has {text.num_tokens} tokens, but {config.llm!r} knows {found.vocab_size}; "
            "set model.text to the tokenizer it was made with"
        )
    return found, config.llm if config.init == "pretrained" else ""


def padded_codes(
    rows: Sequence[CodedRow], num_quantizers: int, device: torch.device
) -> Int[Tensor, "num_quantizers rows frames"]:
    """Codes of the first codebooks, right-padded."""
    longest = max(row.num_frames for row in rows)
    padded = [
        np.pad(row.codes[:num_quantizers], ((0, 0), (0, longest - row.num_frames))) for row in rows
    ]
    return torch.from_numpy(np.stack(padded, 1).astype(np.int64)).to(device)


def check_steps(steps: int, config: PreTrainedConfig, longest_seconds: float) -> None:
    """Check that rows fit the positions of the language model.

    Raises:
        TrainingError: they do not.
    """
    most = int(getattr(config, "max_position_embeddings", 1 << 30))
    if steps > most:
        raise TrainingError(
            f"a row takes {steps} steps of the language model, which has {most}; lower "
            f"data.text_seconds, whose longest is {longest_seconds:g} s"
        )
