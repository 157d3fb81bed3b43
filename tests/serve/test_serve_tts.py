"""A tiny CAT-TTS behind the server: what is streamed is what `Synthesizer.speak` says."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from running_server import running_server
from toy_codec import some_audio

from moss_audio_tokenizer.audio import encode_audio, load_audio
from moss_audio_tokenizer.errors import CheckpointError, InputError
from moss_audio_tokenizer.serve.settings import ServerSettings

pytest.importorskip("torch")
sys.path.append(str(Path(__file__).parents[1] / "tts"))
from tiny_tts import leaning, tiny_tts

from moss_audio_tokenizer.cli.loading import load_speaker
from moss_audio_tokenizer.speech.tts_generation import CONTINUE
from moss_audio_tokenizer.tts import Synthesizer

LIMITS = {"max_seconds": 0.4, "seed": 7}


@pytest.fixture
def speaker(make_speech_codec):
    codec = make_speech_codec()
    info = codec.info
    return Synthesizer(leaning(CONTINUE, info.num_quantizers, info.codebook_size), codec)


def served(sound, rate):
    return load_audio(io.BytesIO(sound), rate, 1)[0]


def assert_same(heard, expected):
    assert heard.shape == expected.shape
    assert np.abs(np.clip(heard, -1, 1) - np.clip(expected, -1, 1)).max() < 2e-4


def test_served_speech_is_the_speaker_s(speaker, tmp_path):
    rate = speaker.codec.info.sampling_rate
    recording = encode_audio(some_audio(6 * 640), rate, ".wav")
    prompt = (served(recording, rate)[None], rate)
    settings = ServerSettings(voice_folder=tmp_path)
    with (
        running_server(speaker.codec, settings, speaker) as running,
        running.client(timeout_seconds=100) as client,
    ):
        voice = client.add_voice(recording, "c a")["voice"]
        for options in ({}, {"temperature": 0.5, "top_k": 3, "num_quantizers": 2}):
            plain = served(client.speak("ab", **LIMITS, **options), rate)
            assert_same(plain, speaker.speak("ab", max_frames=5, seed=7, **options).samples)
            voiced = served(client.speak("ab", voice=voice, **LIMITS, **options), rate)
            expected = speaker.speak(
                "ab", max_frames=5, seed=7, prompt_audio=prompt, prompt_text="c a", **options
            )
            assert_same(voiced, expected.samples)
            assert not np.allclose(voiced, plain)
        for words, wrong in [("got '7'", {}), ("expected 1 to 4", {"num_quantizers": 5})]:
            with pytest.raises(InputError, match=words):
                client.speak("ab" if wrong else "a7", **wrong)


def test_a_folder_opens_as_a_speaker_with_half_a_codec(speaker, tmp_path):
    info = speaker.codec.info
    speaker = Synthesizer(tiny_tts(info.num_quantizers, info.codebook_size), speaker.codec)
    speaker.model.save_pretrained(tmp_path / "tts")
    speaker.codec.model.save_pretrained(tmp_path / "codec")
    loaded = load_speaker(str(tmp_path / "tts"), str(tmp_path / "codec"), num_threads=1)
    limits = {"max_frames": 5, "seed": 1, "end_temperature": 90.0}
    pieces = list(loaded.stream("ab", **limits))
    assert_same(np.concatenate(pieces), speaker.speak("ab", **limits).samples)
    assert loaded.codec.info.identity == speaker.codec.info.identity
    with pytest.raises(CheckpointError):
        load_speaker(str(tmp_path / "nothing"), str(tmp_path / "codec"))
