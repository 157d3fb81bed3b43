"""`load_codec` chooses a runtime, and refuses options that the runtime does not have."""

import pytest

from moss_audio_tokenizer import load_codec
from moss_audio_tokenizer.errors import ConfigError
from moss_audio_tokenizer.onnx.tokenizer import OnnxCodec


def test_options_of_pytorch_choose_pytorch_or_are_refused():
    assert isinstance(load_codec("bundled", num_threads=1), OnnxCodec)
    codec = load_codec("bundled", attention="flex_attention", num_threads=1, parts="decoder")
    assert codec.model.attention_implementation == "flex_attention"
    assert codec.model.encoder is None
    assert load_codec("bundled", compute_dtype="bf16").model.compute_dtype_name == "bf16"
    for option in ({"compute_dtype": "bf16"}, {"attention": "sdpa"}):
        with pytest.raises(ConfigError, match="take the backend torch"):
            load_codec("bundled", backend="onnx", **option)
