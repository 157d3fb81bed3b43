"""Batches and passes for tests, from audio at hand."""

import numpy as np
import torch

from moss_audio_tokenizer.config import CodecConfig
from moss_audio_tokenizer.training.codec.codec_config import TrainingConfig
from moss_audio_tokenizer.training.codec.codec_task import MicroBatch, MicroBatchPlanner
from moss_audio_tokenizer.training.data.audio_data import Batch


def make_batch(audio: torch.Tensor, texts: tuple[str, ...] = (), lengths=None) -> Batch:
    """Rows of audio as the data would give them, all of them real unless ``lengths`` says less."""
    rows = len(audio)
    texts = texts or ("",) * rows
    real = np.full(rows, audio.shape[-1]) if lengths is None else np.array(lengths)
    tasks = tuple("asr" if text else "" for text in texts)
    names = tuple(f"clip-{row}" for row in range(rows))
    return Batch(audio.numpy(), real, texts, tasks, names)


def make_rows(
    audio: torch.Tensor, recipe: TrainingConfig, codec: CodecConfig, step: int = 0, **batch
) -> MicroBatch:
    """The only pass of a step over ``audio``."""
    plan = MicroBatchPlanner(recipe, codec, torch.device("cpu"))
    return plan.passes(make_batch(audio, **batch), step)[0]
