"""Scoring models: speaker similarity, predicted opinion scores, transcripts, error rates."""
