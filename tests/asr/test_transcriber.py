import numpy as np
import pytest
import torch

from moss_audio_tokenizer.asr import CatAsr, CatAsrConfig, Transcriber
from moss_audio_tokenizer.errors import AudioError, CodesError, ModelMismatchError
from moss_audio_tokenizer.hf.modeling import MossAudioTokenizerConfig, MossAudioTokenizerModel
from moss_audio_tokenizer.hf.torch_codec import TorchCodec
from moss_audio_tokenizer.llm import CharacterText, language_model_config

TEXT = CharacterText("abc ")


@pytest.fixture(scope="module")
def codec() -> TorchCodec:
    torch.manual_seed(0)
    return TorchCodec(MossAudioTokenizerModel(MossAudioTokenizerConfig.preset("tiny")))


def model_for(own: TorchCodec, **changes) -> CatAsr:
    info = own.info
    values = {
        "text_config": language_model_config(16, 2, 2, TEXT.num_tokens),
        "num_quantizers": info.num_quantizers,
        "codebook_size": info.codebook_size,
        "codec": info.identity,
    }
    return CatAsr(CatAsrConfig(**values | changes), TEXT, seed=1).eval()


def sound(seconds: float, rate: int, channels: int = 1) -> tuple[np.ndarray, int]:
    random = np.random.default_rng(round(10 * seconds))
    return random.normal(scale=0.1, size=(channels, round(seconds * rate))).astype("f4"), rate


def test_sound_of_any_rate_is_read_in_the_order_it_came(codec):
    transcriber = Transcriber(model_for(codec), codec)
    clips = [sound(0.9, 16_000, 2), sound(0.3, 24_000), sound(0.6, 48_000)]
    together = transcriber.transcribe(clips, num_quantizers=2)
    assert together == [transcriber.transcribe([clip], num_quantizers=2)[0] for clip in clips]


def test_a_folder_and_a_codec_make_a_transcriber(codec, tmp_path):
    model = model_for(codec)
    model.save_pretrained(tmp_path)
    codes = [codec.encode(sound(0.5, 24_000)[0])]
    loaded = Transcriber.from_pretrained(tmp_path, codec)
    assert loaded.transcribe_codes(codes) == Transcriber(model, codec).transcribe_codes(codes)
    with pytest.raises(ModelMismatchError, match="name the codec"):
        Transcriber.from_pretrained(tmp_path)


def test_models_of_other_codes_are_refused(codec):
    with pytest.raises(ModelMismatchError, match="codebooks of 3 entries"):
        Transcriber(model_for(codec, codec="", codebook_size=3), codec)


def test_what_cannot_be_read(codec):
    transcriber = Transcriber(model_for(codec), codec)
    with pytest.raises(AudioError):
        transcriber.transcribe([(np.zeros(0, "f4"), 24_000)])
    with pytest.raises(CodesError):
        transcriber.transcribe([sound(0.3, 24_000)], num_quantizers=99)
    assert transcriber.transcribe([]) == []
