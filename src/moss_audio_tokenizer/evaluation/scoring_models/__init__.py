"""Scoring models: speaker similarity, predicted opinion scores, transcripts, error rates."""

from .registry import (
    EmbedSpeaker,
    ScoreOpinion,
    Transcribe,
    cosine,
    default_speaker_model,
    load_opinion_model,
    load_speaker_model,
    load_transcriber,
)
from .scores import Scores, ScoringModelNames, ScoringModels

__all__ = [
    "EmbedSpeaker",
    "ScoreOpinion",
    "Scores",
    "ScoringModelNames",
    "ScoringModels",
    "Transcribe",
    "cosine",
    "default_speaker_model",
    "load_opinion_model",
    "load_speaker_model",
    "load_transcriber",
]
