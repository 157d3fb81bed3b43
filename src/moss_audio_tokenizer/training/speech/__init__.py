"""Training CAT-TTS and CAT-ASR on codes and text."""
