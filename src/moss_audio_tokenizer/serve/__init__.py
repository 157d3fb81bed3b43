"""The codec server: HTTP for whole files, WebSockets for live streams, one batch for both.

One thread (`batching`) owns the codec and its sessions; everything else is asyncio and passes
work to it. The server uses the Codec protocol and knows neither PyTorch nor ONNX: a function that
opens the codec is passed in. FastAPI, uvicorn and the other packages of the extra `serve` are
imported only here.
"""
