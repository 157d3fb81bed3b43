"""The codec server: HTTP for whole files, WebSockets for live streams, one batch for all of them.

One thread (`stepping`) owns the model and its sessions; everything else is asyncio and hands it
work. It speaks to the Codec protocol and knows neither PyTorch nor ONNX: how the codec is opened
comes in as a function. FastAPI, uvicorn and the other packages of the extra `serve` are imported
nowhere else.
"""
