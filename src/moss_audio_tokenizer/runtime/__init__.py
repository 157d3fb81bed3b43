"""Inference with a trained codec: whole clips, chunk by chunk, and streams.

The modules in `model` are the reference that is trained; this package computes the same
function of the same weights faster. Weight norm, layer scales and the affine parts of the
quantizer are folded into the weights, and streams keep their keys and values in ring KV
caches. One `InferenceStage` computes every Transformer stage; how it attends is an
`Attention` that it is given. Knows nothing of files, formats or callers.
"""

import os

import torch

# A forked child has none of the threads that PyTorch's parallel regions would wait for.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
