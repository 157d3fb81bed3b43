"""Tiny CAT-TTS models with random weights, strong enough to decide."""

import torch

from moss_audio_tokenizer.llm import CharacterText, language_model_config
from moss_audio_tokenizer.speech.phonemes import Lexicon
from moss_audio_tokenizer.tts import CatTts, CatTtsConfig

TEXT = CharacterText("abc ")
LEXICON = Lexicon({"abc": "æbk", "ab": "æb", "c": "si", "b": "bi", "a": "ə"})


def tiny_tts(layers: int = 4, codebook_size: int = 8, **changes) -> CatTts:
    """Two temporal blocks, one of depth."""
    torch.set_num_threads(1)
    values = {
        "text_config": language_model_config(16, 2, 2, TEXT.num_tokens),
        "num_quantizers": layers,
        "codebook_size": codebook_size,
        "code_rank": 2,
        "depth_width": 12,
        "depth_layers": 2,
        "depth_heads": 2,
        "depth_key_value_heads": 1,
        "depth_head_dim": 6,
        "depth_feedforward": 16,
        "adapter_width": 0,
    }
    model = CatTts(CatTtsConfig(**values | changes), TEXT, seed=3).eval()
    random = torch.Generator().manual_seed(1)
    for module in model.depth.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.5, generator=random)
    return model


def spoken_tts(**changes) -> CatTts:
    """With a text encoder, whose conditions are strong; texts of a, b and c."""
    wide = {"text_config": language_model_config(64, 1, 2, TEXT.num_tokens)}
    model = tiny_tts(**(wide | {"text_encoder_layers": 1} | changes))
    model.lexicon = LEXICON
    with torch.no_grad():
        model.text_encoder.conditions.weight.mul_(20.0)
        model.text_encoder.remaining.mul_(200.0)
    return model


class Constant(torch.nn.Module):
    """In place of a norm."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Ones."""
        return torch.ones_like(x)


def leaning(towards: int, *sizes: int, **changes) -> CatTts:
    """A model that always ends, or always continues."""
    model = tiny_tts(*sizes, **changes)
    with torch.no_grad():
        model.depth.exits[0][1] = Constant()
        model.depth.exits[0][2].weight.zero_()
        model.depth.exits[0][2].weight[towards] = 10.0
    return model
