"""What training runs of CAT-ASR and CAT-TTS share: data, language model, random draws, checkpoints.

The losses are in `asr_task` and `tts_task`.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from math import lcm
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Int
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from ...checkpoint.codec_checkpoint import Checkpoint, load_codec
from ...checkpoint.stored_weights import WEIGHTS_NAME, find_checkpoint
from ...errors import ConfigError, MossAudioError, TrainingError, one_line
from ...llm import (
    CharacterText,
    TextCodec,
    language_model_config,
    load_language_model,
    make_text,
)
from ...llm.bidirectional import EncoderBlock
from ...model.quantizer import ResidualQuantizer
from ...speech.text_preparation import spell
from ..checkpointing import (
    OPTIMIZER_NAME,
    Fill,
    load_optimizer,
    optimizer_tensors,
    unreadable,
    write_tensors,
)
from ..data.coded_data import CodedBatch, CodedData, CodedRow
from ..distributed import set_state, transformer_layers, whole_state
from ..loop import Loop
from ..optim import make_optimizer
from ..run_config import num_heads
from .speech_config import SpeechTrainingConfig
from .vocabulary import text_with_vocabulary

SpeechConfig = TypeVar("SpeechConfig", bound=SpeechTrainingConfig)
# Forward and backward pass together are three forward passes' work, of two operations a weight.
_OPERATIONS_A_WEIGHT = 6
# Of fast speech.
_TOKENS_A_SECOND = 25
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

    def part(self, index: int, count: int) -> "DrawnRows":
        """The rows of part ``index`` of ``count`` equal ones."""
        part, rows = self.batch.part(index, count), len(self.seeds) // count
        own = slice(index * rows, (index + 1) * rows)
        kept = None if self.num_quantizers is None else self.num_quantizers[own]
        return DrawnRows(part, kept, self.seeds[own])


class SpeechTask(nn.Module, ABC):
    """A model with its losses: one module with one forward pass, so that it can be distributed.

    Attributes:
        model: a module that holds all trained parameters; its ``save_pretrained(folder)`` writes
            config.json and model*.safetensors, which its class's ``from_pretrained(folder)`` reads.
    """

    # nn.Module knows nothing of `save_pretrained`.
    model: Any

    @abstractmethod
    def num_tokens(self, rows: DrawnRows) -> float:
        """How many targets the losses of ``rows`` are sums over, or what these weigh together."""

    @abstractmethod
    def forward(self, rows: DrawnRows, num_tokens: float) -> dict[str, Tensor]:
        """Scalars by name, each a sum over targets divided by ``num_tokens``; "total" is trained.

        Args:
            rows: the rows of one pass, on any device.
            num_tokens: the number of targets of a pass, averaged over passes and processes: the
                mean over passes and processes is then the mean over all targets, however they are
                distributed.
        """

    def padded_codes(
        self, rows: Sequence[CodedRow], num_quantizers: int = 0
    ) -> Int[Tensor, "num_quantizers rows frames"]:
        """Codes of the model's codebooks, right-padded, on its device.

        Args:
            rows: the rows.
            num_quantizers: a number of codebooks in place of the model's.
        """
        depth = num_quantizers or self.model.config.num_quantizers
        longest = max(row.num_frames for row in rows)
        padded = [
            np.pad(row.codes[:depth], ((0, 0), (0, longest - row.num_frames))) for row in rows
        ]
        return torch.from_numpy(np.stack(padded, 1).astype(np.int64)).to(self.model.device)


class SpeechTrainer(Loop[SpeechConfig, DrawnRows]):
    """A run that trains a language model on codes; arguments and errors are `Loop`'s.

    Attributes:
        data: source of the batches.
        text: text tokens of the model.
        task: the model with its losses.
        valid: held-out clips; may be empty.
        join_share: the share of the rows that are to hold several clips, if ``data.max_join`` lets
            them.
    """

    join_share = 0.5
    config: SpeechConfig
    task: SpeechTask

    @abstractmethod
    def make_task(self) -> SpeechTask:
        """The task before its first step, on any device; the same in all processes."""

    @abstractmethod
    def draw_num_quantizers(self, rows: int, random: torch.Generator) -> Int[Tensor, "rows"]:
        """Number of codebooks in use of each row, for the rows of all processes."""

    @property
    def num_quantizers(self) -> int:
        """Number of codebooks that the model knows."""
        return self.data.info.num_quantizers

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
            join_share=self.join_share,
            spell=self.spelled,
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

    def text_of_recipe(self) -> TextCodec:
        """The text tokens before the data are read; clips that they cannot express are left out."""
        return make_text(self.config.model.text or self.config.model.llm)

    def spelled(self, text: str) -> str | None:
        """A training text as the model can say it; None leaves its clip out."""
        return spell(text, self.text)

    def text_of_data(self) -> TextCodec:
        """The text tokens, with words or pieces of the data if the recipe asks for them."""
        if not isinstance(self.text, CharacterText):
            return self.text
        return text_with_vocabulary(self.text, self.config.model, self.data.texts)

    def language_model_config(self) -> PreTrainedConfig:
        """The configuration of the decoder-only model.

        Raises:
            ConfigError: the model cannot be found, or has too few tokens.
            TrainingError: rows do not fit its positions.
        """
        settings, num_tokens = self.config.model, self.text.num_tokens
        if settings.llm == "random":
            heads = num_heads(settings.width)
            found = language_model_config(settings.width, settings.num_layers, heads, num_tokens)
        else:
            found = _named_config(settings.llm)
        if num_tokens > found.vocab_size:
            raise ConfigError(
                f"the text has {num_tokens} tokens, but {settings.llm!r} knows {found.vocab_size}; "
                "set model.text to the tokenizer it was made with"
            )
        longest = self.config.data.text_seconds[1]
        steps = round(longest * (self.data.info.frame_rate + _TOKENS_A_SECOND))
        if steps > most_positions(found):
            raise TrainingError(
                f"a row takes {steps} steps of the language model, which has "
                f"{most_positions(found)}; lower data.text_seconds, whose longest is {longest:g} s"
            )
        return found

    def start_weights(self, model: Any) -> None:
        """Take over the weights that the recipe asks for: of a language model, and of the codec.

        Raises:
            ConfigError: the codec's vectors are wanted, but the recipe names no codec.
        """
        settings, codec = self.config.model, self.config.data.codec
        if settings.llm != "random" and settings.init == "pretrained":
            source, own = load_language_model(settings.llm), model.base_model
            whole = isinstance(own, type(source))  # with its output layer
            own.load_state_dict((source if whole else source.base_model).state_dict())
        if not settings.start_from_codec:
            return
        if not codec:
            raise ConfigError("model.start_from_codec is set, but data.codec is empty; name one")
        vectors = self.quantizer.code_vectors()
        model.code_embedding.start_from(vectors, self.config.seed)
        self.keep_code_vectors(model, vectors)

    @cached_property
    def quantizer(self) -> ResidualQuantizer:
        """The quantizer of the recipe's codec."""
        with Checkpoint(find_checkpoint(self.config.data.codec, {})) as opened:
            quantizer: ResidualQuantizer = load_codec(opened, "decoder").quantizer
        return quantizer

    def keep_code_vectors(self, model: Any, vectors: Tensor) -> None:
        """Store the codec's vectors in a model that generates with them; here none does."""

    def open_data(self) -> None:
        """Report the data, and find held-out clips."""
        data, wanted = self.data, self.config.validation.clips
        self.report(f"{data.num_used} of {data.num_clips} training clips are used")
        self.valid: list[CodedRow] = data.valid(wanted) if wanted else []
        self.report(f"{len(self.valid)} validation clips")

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """The precision of the recipe, without cuDNN's attention.

        cuDNN plans its attention again for every shape, and rows have many lengths.
        """
        bf16, device = self.config.precision == "bf16", self.processes.device.type
        with torch.autocast(device, torch.bfloat16, enabled=bf16), sdpa_kernel(_ATTENTION):
            yield

    def batches(self, step: int) -> Generator[DrawnRows]:
        """Batches with random draws that depend on seed, step and row alone."""
        with closing(self.data.batches(step)) as mine:
            for number, batch in enumerate(mine, start=step):
                yield self._drawn(batch, number)

    def _drawn(self, batch: CodedBatch, step: int) -> DrawnRows:
        count, processes = len(batch.rows), self.processes
        random = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        kept = self.draw_num_quantizers(count * processes.world, random)
        seeds = torch.randint(1 << 62, (count * processes.world,), generator=random).tolist()
        own = slice(processes.rank * count, (processes.rank + 1) * count)
        return DrawnRows(batch, kept[own], tuple(seeds[own]))

    def passes(self, batch: DrawnRows) -> list[DrawnRows]:
        """The parts of a batch."""
        count = self.config.accumulate
        return [batch.part(index, count) for index in range(count)]

    def num_targets(self, rows: DrawnRows) -> float:
        """The task's."""
        return self.task.num_tokens(rows)

    def losses(self, rows: DrawnRows, num_targets: float) -> dict[str, Tensor]:
        """The task's, in the precision of the recipe."""
        # Dropout draws from PyTorch's own generator, whose state no checkpoint keeps.
        torch.manual_seed(rows.seeds[0])
        with self.autocast():
            losses: dict[str, Tensor] = self.distributed(rows, num_targets)
        return losses

    def trained_module(self) -> nn.Module:
        """The language model with its code tables and heads."""
        model: nn.Module = self.task.model
        return model

    def audio_seconds(self, batch: DrawnRows) -> float:
        """The batch's."""
        return batch.batch.audio_seconds

    def operations(self) -> float:
        """Of the decoder-only model, which every frame passes; texts are not counted."""
        weights = sum(p.numel() for p in self.task.model.base_model.parameters())
        return _OPERATIONS_A_WEIGHT * weights * self.data.info.frame_rate

    def full_model(self) -> Any:
        """The model with complete weights, to use and to save.

        Collective: every rank must call this.
        """
        model: Any = self.task.model
        if not self.processes.sharded:
            return model
        full = type(model)(model.config, model.text)
        set_state(full, whole_state(model))
        full.lexicon = model.lexicon
        return full.to(self.processes.device).eval()

    def restore(self, checkpoint: Path) -> None:
        """Weights and optimizer state; refused where the recipe's codec is another one now."""
        model = self.task.model
        try:
            saved = type(model).from_pretrained(checkpoint)
        except (MossAudioError, SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise unreadable(checkpoint / WEIGHTS_NAME, error) from error
        if saved.config.codec != self.data.info.identity:
            raise TrainingError(
                f"the run in {self.output} learned the codes of model {saved.config.codec}, and "
                f"its data are those of {self.data.info.identity}; set data.codec to the model it "
                "had, or start a run in another output=DIR"
            )
        set_state(model, whole_state(saved))
        load_optimizer(checkpoint, OPTIMIZER_NAME, model, self.optimizer)

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

    def next_step(self, folder: Path) -> str:
        """How to use the trained model."""
        words = "asr IN.wav" if self.config.kind == "asr" else "tts 'SOME TEXT' -o OUT.wav"
        return f"to use it: moss-audio {words} --model {folder}"

    def validated_num_quantizers(self) -> list[int]:
        """Numbers of codebooks to validate, smallest first."""
        most = self.num_quantizers
        return sorted({min(count, most) for count in self.config.validation.num_quantizers})

    def valid_of_process(self) -> list[CodedRow]:
        """The held-out clips of this process."""
        return self.valid[self.processes.rank :: self.processes.world]


def _blocks(model: Any) -> list[nn.Module]:
    """The modules that are sharded one by one: of the language model and of encoders.

    Raises:
        ConfigError: the language model keeps them under an unknown name.
    """
    blocks: list[nn.Module] = [m for m in model.modules() if isinstance(m, EncoderBlock)]
    if isinstance(model.base_model, PreTrainedModel):
        blocks += transformer_layers(model.base_model)
    return blocks


def most_positions(config: PreTrainedConfig) -> int:
    """The number of positions that a language model has."""
    return int(getattr(config, "max_position_embeddings", 1 << 30))


def _named_config(llm: str) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(llm)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no language model at {llm!r} ({one_line(error, 200)}); set model.llm to a folder or "
            "a hub id of a decoder-only model, or to 'random'"
        ) from error
