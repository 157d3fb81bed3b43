"""Checkpoints on disk: where they are, what their tensors are called, and what is in them.

All but `codec_checkpoint`, which builds PyTorch modules, work without PyTorch.
"""
