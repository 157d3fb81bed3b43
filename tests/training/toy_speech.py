"""Toy runs of language models on codes: every letter is said in three frames."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from moss_audio_tokenizer.asr import CatAsr, CatAsrConfig
from moss_audio_tokenizer.codes import AudioCodes
from moss_audio_tokenizer.llm import CharacterText
from moss_audio_tokenizer.speech.phonemes import Lexicon
from moss_audio_tokenizer.training.data.data_config import CodesDataConfig
from moss_audio_tokenizer.training.run_config import OptimizerConfig, override
from moss_audio_tokenizer.training.speech.speech_config import (
    DEPTHS,
    AsrTrainingConfig,
    BitratesValidation,
    LanguageModelConfig,
    TtsTrainingConfig,
)

RATE, STEP, LAYERS, BOOK, FRAMES = 8000, 640, 3, 16, 3
IDENTITY = "0123456789abcdef"
TEXTS = ("ab", "ba", "abc", "cab", "bcab", "caab", "abba", "cc ab", "b ca")
HELD_OUT = ("aba", "bc", "acba")
WORDS = sorted({word for text in (*TEXTS, *HELD_OUT) for word in text.split()})
SOUNDS = {"a": "æ", "b": "b", "c": "s"}
PRONOUNCED = {word: "".join(map(SOUNDS.get, word)) for word in WORDS}
LEXICON = Lexicon(PRONOUNCED)
SMALL = LanguageModelConfig(width=16, num_layers=1)
KINDS = ("asr", "tts")
DEPTHS["toy"] = {
    "depth_width": 16,
    "depth_layers": 1,
    "depth_heads": 2,
    "depth_key_value_heads": 1,
    "depth_head_dim": 8,
    "depth_feedforward": 32,
    "adapter_width": 0,
}


def say(text: str) -> np.ndarray:
    """Codes (layers, frames): another letter or layer, another code."""
    letters = np.repeat([ord(letter) % BOOK for letter in text], FRAMES)
    return np.stack([(letters * (layer + 3) + layer) % BOOK for layer in range(LAYERS)])


def write_codes(folder: Path, *extra: str) -> str:
    """Codes of the texts, and of ``extra`` ones for training, in files; returns their manifest."""
    lines = []
    texts = [(text, "train") for text in (*TEXTS, *extra)]
    for number, (text, split) in enumerate([*texts, *((text, "valid") for text in HELD_OUT)]):
        codes = say(text)
        shape = {"downsample_rate": STEP, "codebook_size": BOOK, "model": IDENTITY}
        clip = AudioCodes(codes, RATE, codes.shape[1] * STEP, **shape)
        clip.save(folder / f"{number:02}.moss")
        facts = {"text": text, "speaker": "one", "split": split, "seconds": clip.duration_seconds}
        lines.append(json.dumps({"path": f"{number:02}.moss"} | facts))
    path = folder / "codes.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def encoder_config(output: Path, manifest: str, lexicon: Path, **changes):
    """The same of a CAT-ASR with an encoder, which has the phoneme loss."""
    config = language_config("asr", output, manifest, **changes)
    keys = ("model.width=64", "encoder_layers=3", "frame_mask=0.2", "optimizer.learning_rate=0.003")
    return override(config, [*keys, f"lexicon={lexicon}"])


def write_aligner(folder: Path) -> Path:
    """A CAT-ASR with random weights that knows the codes and the pronunciations."""
    sizes = {"num_quantizers": LAYERS, "codebook_size": BOOK, "codec": IDENTITY}
    config = CatAsrConfig(encoder_layers=3, encoder_width=64, code_rank=2, **sizes)
    model = CatAsr(config, CharacterText("abc "), seed=1)
    model.lexicon = LEXICON
    model.save_pretrained(folder)
    return folder


def aligned_config(output: Path, manifest: str, aligner: Path, **changes):
    """A run of a CAT-TTS with a text encoder."""
    config = language_config("tts", output, manifest, aligner=str(aligner), **changes)
    return replace(config, model=replace(config.model, width=64))


def language_config(kind: str, output: Path, manifest: str, **changes):
    """Eight steps of either kind on a CPU, with two checkpoints and two validations."""
    values = {
        "output": str(output),
        "max_steps": 8,
        "device": "cpu",
        "precision": "fp32",
        "threads": 1,
        "peak_tflops": 1.0,
        "checkpoint_every": 4,
        "model": replace(SMALL, code_rank=4),
        "data": CodesDataConfig(
            manifest, codec="", batch_seconds=3.0, max_join=2, text_seconds=(0.3, 4.0)
        ),
        "optimizer": OptimizerConfig(1e-2, warmup_steps=2),
    }
    values["validation"] = BitratesValidation(every=4, clips=3, num_quantizers=(1, 32))
    if kind == "asr":
        return AsrTrainingConfig(**(values | changes))
    values["depth"] = "toy"
    return TtsTrainingConfig(**(values | changes))
