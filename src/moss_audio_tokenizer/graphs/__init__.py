"""Codecs as ONNX graphs, written node by node, without tracing and without PyTorch.

Attention, ring KV caches and masks are exactly what is written here; weights are read through one
interface, from a checkpoint's files or from memory.

Legend of the shape names in the graphs' comments: N = batch x steps rows of a stage, at its rate.
"""
