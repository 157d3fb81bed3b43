"""Checkpoints to ONNX: graphs that point into the checkpoint's own weights.

Built node by node, without tracing and without PyTorch: attention, rings and masks are exactly
what is written here. PyTorch, where it is installed, only checks the result.

Legend of the shape names in the graphs' comments: N = batch x steps rows of a stage, at its rate.
"""
