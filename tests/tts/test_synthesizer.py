import numpy as np
import pytest
from tiny_tts import tiny_tts

from moss_audio_tokenizer.codes import AudioCodes
from moss_audio_tokenizer.errors import CodesError, InputError, ModelMismatchError
from moss_audio_tokenizer.tts import SpeechRequest, SpeechSampling, Synthesizer

LIMITS = {"max_frames": 5, "seed": 3}


@pytest.fixture
def speaker(speaking_tts, codec) -> Synthesizer:
    return Synthesizer(speaking_tts, codec)


def voice(codec, frames: float = 2.5) -> tuple[np.ndarray, int]:
    samples = round(frames * codec.info.downsample_rate)
    noise = np.random.default_rng(0).normal(scale=0.1, size=samples)
    return noise.astype(np.float32), codec.info.sampling_rate


@pytest.mark.parametrize("prompted", [False, True])
@pytest.mark.parametrize("num_quantizers", [0, 2])
def test_streamed_speech_is_whole_speech(speaker, codec, prompted, num_quantizers):
    options = LIMITS | {"num_quantizers": num_quantizers}
    if prompted:
        options |= {"prompt_audio": voice(codec), "prompt_text": "c a"}
    whole = speaker.speak("ab", **options)
    parts = list(speaker.stream("ab", **options))
    assert len(parts) == whole.codes.shape[1] > 0
    streamed = np.concatenate(parts)
    assert streamed.shape == whole.samples.shape
    scale = np.sqrt(np.mean(whole.samples**2))
    assert np.abs(streamed - whole.samples).max() < 1e-4 * scale


def test_speech_says_what_it_is(speaker, codec):
    speech = speaker.speak("ab", **LIMITS)
    assert speech.sampling_rate == codec.info.sampling_rate
    assert speech.codes.shape[0] == codec.info.num_quantizers
    assert len(speech.samples) == speech.codes.shape[1] * codec.info.downsample_rate


def test_several_at_once_are_each_by_itself(speaker, codec):
    sampling = SpeechSampling(**LIMITS)
    requests = [SpeechRequest("ab"), SpeechRequest("c", voice(codec), "a b")]
    both = speaker.speak_many(requests, sampling)
    alone = speaker.speak("c", prompt_audio=voice(codec), prompt_text="a b", max_frames=5, seed=4)
    assert np.array_equal(both[1].codes, alone.codes)
    assert speaker.speak_many([]) == []


def test_codes_of_a_prompt_stand_for_its_recording(speaker, codec):
    samples, rate = voice(codec)
    codes = codec.encode(samples[None])
    by_codes = speaker.speak("c", prompt_codes=codes, prompt_text="a", **LIMITS)
    by_sound = speaker.speak("c", prompt_audio=(samples, rate), prompt_text="a", **LIMITS)
    assert np.array_equal(by_codes.codes, by_sound.codes)


def test_speech_that_ends_at_once_is_silence(speaker):
    short = speaker._speech(np.zeros((4, 0), np.int64), None, True)
    assert short.samples.shape == (0,)
    assert short.finished


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "empty"),
        ("  ", {}, "empty"),
        ("a7", {}, "got '7'"),
        ("a", {"prompt_text": "b"}, "needs its recording"),
        ("a", {"num_quantizers": 99}, "1 to"),
        ("a", {"temprature": 1.0}, "unknown option"),
        ("a", {"prompt_voice": 1.0}, "unknown option"),
        ("a", {"max_frames": 9999}, "expected at most"),
    ],
)
def test_what_cannot_be_said(speaker, text, options, message):
    with pytest.raises(InputError, match=message):
        speaker.speak(text, **options)


def test_a_recording_needs_its_text(speaker, codec):
    with pytest.raises(InputError, match="needs its text"):
        speaker.speak("a", prompt_audio=voice(codec))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros(100, np.float32), "prompt_audio is a ndarray; expected a pair"),
        ((np.zeros(100, np.float32), 24000.0), "rate of prompt_audio is 24000.0"),
        ((np.zeros(100, np.float32), 0), "rate of prompt_audio is 0"),
    ],
)
def test_recordings_that_cannot_be(speaker, given, message):
    with pytest.raises(InputError, match=message):
        speaker.speak("a", prompt_audio=given, prompt_text="b")


def test_codes_of_fewer_layers_than_are_spoken_are_refused(speaker, codec):
    codes = codec.encode(voice(codec)[0][None])[:1]
    with pytest.raises(CodesError, match="expected 1 to 1"):
        speaker.speak("a", prompt_codes=codes, prompt_text="b")


def test_models_of_other_codecs_are_refused(codec):
    layers, size = codec.info.num_quantizers, codec.info.codebook_size
    with pytest.raises(ModelMismatchError, match="codes of the codec feed"):
        Synthesizer(tiny_tts(layers, size, codec="feed"), codec)
    with pytest.raises(ModelMismatchError, match="the model predicts"):
        Synthesizer(tiny_tts(layers + 1, size), codec)


def test_a_folder_and_a_codec_make_a_speaker(codec, tmp_path):
    info = codec.info
    model = tiny_tts(info.num_quantizers, info.codebook_size, codec=info.identity)
    model.save_pretrained(tmp_path)
    loaded = Synthesizer.from_pretrained(tmp_path, codec)
    expected = Synthesizer(model, codec).speak("ab", **LIMITS).codes
    assert np.array_equal(loaded.speak("ab", **LIMITS).codes, expected)
    with pytest.raises(ModelMismatchError):
        Synthesizer.from_pretrained(tmp_path)


@pytest.fixture
def folder(codec, tmp_path):
    """The folder of two voices."""
    (tmp_path / "voices").mkdir()
    for name, frames, text in (("anna", 2.5, "c a"), ("ben", 4, "b")):
        codes = codec.encode(voice(codec, frames)[0][None])
        stored = AudioCodes.of_codec(codec.info, codes, voice(codec, frames)[0].size)
        stored.save(tmp_path / f"voices/{name}.moss")
        (tmp_path / f"voices/{name}.txt").write_text(text, "utf-8")
    return tmp_path


@pytest.mark.parametrize("num_quantizers", [0, 2])
def test_a_built_in_voice_is_its_prompt(folder, speaker, codec, num_quantizers):
    loaded = Synthesizer(speaker.model, codec, folder)
    assert loaded.voices == ("anna", "ben")
    assert speaker.voices == ()
    options = LIMITS | {"num_quantizers": num_quantizers}
    for name, prompt in (
        ("anna", {"prompt_audio": voice(codec), "prompt_text": "c a"}),
        ("ben", {"prompt_audio": voice(codec, 4), "prompt_text": "b"}),
    ):
        expected = speaker.speak("ab", **prompt, **options)
        found = loaded.speak("ab", voice=name, **options)
        assert np.array_equal(found.codes, expected.codes)
        assert np.array_equal(found.samples, expected.samples)
        assert np.array_equal(loaded.speak("ab", **prompt, **options).codes, expected.codes)
        streamed = np.concatenate(list(loaded.stream("ab", voice=name, **options)))
        assert streamed.shape == expected.samples.shape
    assert np.array_equal(
        loaded.speak("ab", **options).codes, loaded.speak("ab", voice="anna", **options).codes
    )


def test_a_folder_brings_its_voices(folder, codec):
    info = codec.info
    tiny_tts(info.num_quantizers, info.codebook_size, codec=info.identity).save_pretrained(folder)
    assert Synthesizer.from_pretrained(folder, codec).voices == ("anna", "ben")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"voice": "carl"}, "no voice 'carl'; expected anna, ben"),
        ({"voice": "anna", "prompt_text": "b"}, "got the voice 'anna' and a prompt"),
        ({"voice": "anna", "prompt_codes": np.zeros((4, 2), int)}, "and a prompt; give one"),
    ],
)
def test_voices_that_cannot_be(folder, speaker, codec, options, message):
    with pytest.raises(InputError, match=message):
        Synthesizer(speaker.model, codec, folder).speak("ab", **options)
