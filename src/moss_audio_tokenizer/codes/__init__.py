"""Codes: the container, its file formats, and the protocol of what makes and reads them."""

from .codec import Codec, CodecInfo, StreamingCodec
from .container import AudioCodes

__all__ = ["AudioCodes", "Codec", "CodecInfo", "StreamingCodec"]
