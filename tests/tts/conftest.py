"""What the tests of speech share."""

import pytest
import torch
from tiny_tts import leaning, tiny_tts

from moss_audio_tokenizer.hf.modeling import MossAudioTokenizerConfig, MossAudioTokenizerModel
from moss_audio_tokenizer.hf.torch_codec import TorchCodec
from moss_audio_tokenizer.speech.tts_generation import CONTINUE
from moss_audio_tokenizer.tts import CatTts


@pytest.fixture(scope="session")
def tts() -> CatTts:
    """Four layers of eight codes."""
    return tiny_tts()


@pytest.fixture(scope="session")
def codec() -> TorchCodec:
    """The preset "tiny", with fresh weights."""
    torch.manual_seed(0)
    return TorchCodec(MossAudioTokenizerModel(MossAudioTokenizerConfig.preset("tiny")))


@pytest.fixture(scope="session")
def speaking_tts(codec: TorchCodec) -> CatTts:
    """Speaks the codes of `codec`, without end."""
    info = codec.info
    return leaning(CONTINUE, info.num_quantizers, info.codebook_size, codec=info.identity)
