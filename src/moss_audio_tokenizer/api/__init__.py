"""What the PyTorch and the ONNX interface of the codec share; without PyTorch."""
