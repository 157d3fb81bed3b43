"""What the PyTorch and the ONNX face of the codec have in common; without PyTorch."""
