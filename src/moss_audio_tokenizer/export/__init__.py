"""Checkpoints to ONNX: folders of graphs that point into the checkpoint's own weights.

The graphs are written by `graphs`. PyTorch, where it is installed, only checks the result.
"""
