"""The semantic head: a language model over [task][hidden states of a clip][text].

Owns the sequences, the cross-entropy of the text and greedy decoding; knows nothing of codecs,
data or optimizers. Source: the paper's equation 1.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import DynamicCache

from .llm import TextCodec
from .llm.llm import TextLoss, cache_argument, text_loss, text_states
from .manifest import TASKS


class SemanticHead(nn.Module):
    """Adapter, task tokens and language model, all of which are trained.

    Args:
        language_model: a decoder-only model of transformers.
        text: text tokens of the model.
        latent_width: channels of the hidden states, the input of the codec's decoder.
        seed: seed of the random weights of adapter and task tokens.
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
            # A vector for each of `manifest.TASKS`, in their order.
            self.tasks = nn.Embedding(len(TASKS), width)
            nn.init.normal_(self.tasks.weight, std=0.02)

    def targets(self, text: str) -> list[int]:
        """The tokens to predict: those of the text, and the end token."""
        return [*self.text.encode(text), self.text.end]

    def forward(
        self,
        hidden: Float[Tensor, "batch frames width"],
        num_frames: Sequence[int],
        texts: Sequence[str],
        tasks: Sequence[str],
    ) -> TextLoss:
        """Cross-entropy of the texts; rows whose text is empty are left out.

        Args:
            hidden: hidden states of the clips, right-padded.
            num_frames: number of frames of each row without padding.
            texts: transcript or caption of each row.
            tasks: one of `TASKS` for each row with a text.
        """
        rows = [row for row, text in enumerate(texts) if text]
        if not rows:
            return self._untouched(hidden)
        targets = [self.targets(texts[row]) for row in rows]
        prompts = [self._prompt(hidden[row], num_frames[row], tasks[row]) for row in rows]
        return self._loss(prompts, targets)

    def _loss(self, prompts: list[Tensor], targets: list[list[int]]) -> TextLoss:
        states = text_states(self.language_model, prompts, targets)
        return text_loss(self.language_model, states, prompts, targets)

    def _prompt(self, hidden: Tensor, num_frames: int, task: str) -> Float[Tensor, "steps width"]:
        number = torch.tensor([TASKS.index(task)], device=hidden.device)
        return torch.cat((self.tasks(number), self.adapter(hidden[:num_frames])))

    def _untouched(self, hidden: Tensor) -> TextLoss:
        """A loss of zero with a graph through every weight, which sharded training needs."""
        found = self._loss([self._prompt(hidden[0], 1, TASKS[0])], [[self.text.end]])
        zero = 0.0 * found.loss_sum
        return TextLoss(loss_sum=zero, num_tokens=0, num_correct=zero.detach())

    @torch.no_grad()
    def read(
        self, hidden: Float[Tensor, "frames width"], task: str = "asr", max_tokens: int = 128
    ) -> str:
        """The text of one clip, decoded greedily."""
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
