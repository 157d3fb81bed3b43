"""Models of other people through transformers: codecs to compare with, and models that score.

The one place of `evaluation` that imports PyTorch; it is imported when such a model is asked for.
Weights come from safetensors files alone.
"""
