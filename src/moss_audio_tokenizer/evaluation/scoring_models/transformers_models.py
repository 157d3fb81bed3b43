"""Speaker verification, opinion scores and speech recognition by models of transformers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ...errors import CheckpointError
from ..pretrained import load_feature_extractor, load_pretrained, transformers_class


def embedder(path: str) -> Callable[[np.ndarray, int], np.ndarray]:
    """A speaker-verification model (WavLM, wav2vec 2.0 x-vectors, ...): samples -> embedding."""
    model, features = load_pretrained("AutoModelForAudioXVector", path), _features(path)

    @torch.inference_mode()
    def embed(samples: np.ndarray, sampling_rate: int) -> np.ndarray:
        embedding: np.ndarray = model(**features(samples, sampling_rate)).embeddings[0].numpy()
        return embedding

    return embed


def rater(path: str) -> Callable[[np.ndarray, int], float]:
    """A model of one output, such as a predictor of mean opinion scores: samples -> score.

    Raises:
        CheckpointError: the model has several outputs.
    """
    model, features = load_pretrained("AutoModelForAudioClassification", path), _features(path)
    if model.config.num_labels != 1:
        raise CheckpointError(
            f"the model at {path!r} has {model.config.num_labels} outputs; expected one, the score"
        )

    @torch.inference_mode()
    def rate(samples: np.ndarray, sampling_rate: int) -> float:
        return float(model(**features(samples, sampling_rate)).logits)

    return rate


def transcriber(path: str) -> Callable[[np.ndarray, int], str]:
    """A speech recognition model by the pipeline of transformers: samples -> text."""
    pipeline = transformers_class("pipeline")
    try:
        safe = {"use_safetensors": True}
        recognise = pipeline("automatic-speech-recognition", path, device="cpu", model_kwargs=safe)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"no speech recognition model at {path!r} ({error})") from error

    def text_of(samples: np.ndarray, sampling_rate: int) -> str:
        sound = {"raw": samples.astype(np.float32), "sampling_rate": sampling_rate}
        return str(recognise(sound)["text"])

    return text_of


def _features(path: str) -> Callable[[np.ndarray, int], Any]:
    """The model's own preparation of samples."""
    extract = load_feature_extractor(path)

    def prepare(samples: np.ndarray, sampling_rate: int) -> Any:
        sound = samples.astype(np.float32)
        return extract(sound, sampling_rate=sampling_rate, return_tensors="pt")

    return prepare
