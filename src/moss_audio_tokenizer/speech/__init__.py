"""Speech generation and recognition without PyTorch.

Owns text tokens and their preparation, sampling, the generation and decoding loops, and the
synthesizer and the transcriber over any codec. The models themselves are `tts` and `asr`
(PyTorch), or ONNX graphs.
"""
