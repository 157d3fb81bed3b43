"""The semantic head: a language model that is fed [task][hidden states of a clip][text].

Owns the sequences, the cross-entropy on the text alone and greedy reading; knows nothing of
codecs, data or optimisers. Source: training.md section 4 (the paper's equation 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from ..llm import TextCodec
from ..llm.llm import cache_argument

# The order is that of the rows of `SemanticHead.tasks`.
TASKS = ("asr", "ms_asr", "caption")


@dataclass
class SemanticOutput:
    """Of one batch.

    Attributes:
        loss_sum: cross-entropy, summed over the target tokens.
        num_tokens: target tokens, the end of every text included.
        num_correct: those that the model ranks first.
    """

    loss_sum: Float[Tensor, ""]
    num_tokens: int
    num_correct: Float[Tensor, ""]


class SemanticHead(nn.Module):
    """Adapter, task tokens and language model, all of them trained.

    Args:
        language_model: decoder-only, of transformers.
        text: its tokenizer.
        latent_width: channels of the hidden states, which are the decoder's input.
        seed: of the adapter's and the task tokens' weights.
    """

    def __init__(
        self, language_model: Any, text: TextCodec, latent_width: int, seed: int = 0
    ) -> None:
        super().__init__()
        self.language_model = language_model
        self.text = text
        width = language_model.get_input_embeddings().embedding_dim
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.adapter = nn.Linear(latent_width, width)
            self.tasks = nn.Embedding(len(TASKS), width)
            nn.init.normal_(self.tasks.weight, std=0.02)

    def targets(self, text: str) -> list[int]:
        """The ids to predict: the text's, then the end."""
        return [*self.text.encode(text), self.text.end]

    def forward(
        self,
        hidden: Float[Tensor, "batch frames width"],
        num_frames: Sequence[int],
        texts: Sequence[str],
        tasks: Sequence[str],
    ) -> SemanticOutput:
        """Cross-entropy of the texts; rows whose text is empty are left out.

        Args:
            hidden: what the decoder gets, right-padded.
            num_frames: frames of each row that are no padding.
            texts: what is said in each row.
            tasks: of `TASKS`, for each row with a text.
        """
        rows = [row for row, text in enumerate(texts) if text]
        if not rows:
            return self._untouched(hidden)
        targets = [self.targets(texts[row]) for row in rows]
        prompts = [self._prompt(hidden[row], num_frames[row], tasks[row]) for row in rows]
        states = self._states(prompts, targets)
        logits = self.language_model.get_output_embeddings()(states).float()
        wanted = torch.tensor([token for ids in targets for token in ids], device=hidden.device)
        return SemanticOutput(
            loss_sum=F.cross_entropy(logits, wanted, reduction="sum"),
            num_tokens=len(wanted),
            num_correct=(logits.detach().argmax(-1) == wanted).sum().float(),
        )

    def _prompt(self, hidden: Tensor, num_frames: int, task: str) -> Float[Tensor, "steps width"]:
        number = torch.tensor([TASKS.index(task)], device=hidden.device)
        return torch.cat((self.tasks(number), self.adapter(hidden[:num_frames])))

    def _states(self, prompts: list[Tensor], targets: list[list[int]]) -> Tensor:
        """The model's states that predict the targets of all rows, one after another."""
        embed = self.language_model.get_input_embeddings()
        device = prompts[0].device
        known = [torch.tensor(ids[:-1], dtype=torch.long, device=device) for ids in targets]
        rows = [
            torch.cat((prompt, embed(ids).to(prompt.dtype)))
            for prompt, ids in zip(prompts, known, strict=True)
        ]
        mask = pad_sequence([torch.ones(len(row), device=device) for row in rows], True)
        states = self.language_model.base_model(
            inputs_embeds=pad_sequence(rows, batch_first=True),
            attention_mask=mask.long(),
            use_cache=False,
        ).last_hidden_state
        return torch.cat(
            [
                states[row, len(prompt) - 1 : len(prompt) - 1 + len(ids)]
                for row, (prompt, ids) in enumerate(zip(prompts, targets, strict=True))
            ]
        )

    def _untouched(self, hidden: Tensor) -> SemanticOutput:
        """Nothing to read, but a graph through every weight: sharded processes move together."""
        states = self._states([self._prompt(hidden[0], 1, TASKS[0])], [[self.text.end]])
        logits = self.language_model.get_output_embeddings()(states)
        zero = 0.0 * logits.float().sum()
        return SemanticOutput(loss_sum=zero, num_tokens=0, num_correct=zero.detach())

    @torch.no_grad()
    def read(
        self, hidden: Float[Tensor, "frames width"], task: str = "asr", max_tokens: int = 128
    ) -> str:
        """What the model reads from one clip, greedily."""
        steps = self._prompt(hidden, len(hidden), task)[None]
        embed = self.language_model.get_input_embeddings()
        cache = cache_argument(self.language_model, DynamicCache())
        ids: list[int] = []
        while len(ids) < max_tokens:
            token = self.language_model(inputs_embeds=steps, **cache).logits[0, -1].argmax()
            if int(token) == self.text.end:
                break
            ids.append(int(token))
            steps = embed(token[None, None])
        return self.text.decode(ids)
