"""`moss-audio tts` and `moss-audio asr` on tiny models with random weights and a tiny codec."""

import itertools
import json

import numpy as np
import pytest
import soundfile
import torch

from moss_audio_tokenizer.asr import CatAsr, CatAsrConfig
from moss_audio_tokenizer.codes import AudioCodes
from moss_audio_tokenizer.hf.modeling import MossAudioTokenizerConfig, MossAudioTokenizerModel
from moss_audio_tokenizer.llm import CharacterText, language_model_config
from moss_audio_tokenizer.speech.sampling import CodeSampler
from moss_audio_tokenizer.speech.tts_generation import CONTINUE, END
from moss_audio_tokenizer.tts import CatTts, CatTtsConfig

TEXT = CharacterText("abc ")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a codec, a CAT-TTS that always continues, and a CAT-ASR."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    codec = MossAudioTokenizerModel(MossAudioTokenizerConfig.preset("tiny"))
    codec.save_pretrained(folder / "codec")
    quantizer = codec.config.codec.quantizer
    common = {
        "text_config": language_model_config(16, 1, 2, TEXT.num_tokens),
        "num_quantizers": quantizer.num_quantizers,
        "codebook_size": quantizer.codebook_size,
        "codec": codec.identity,
    }
    depth = {"depth_width": 8, "depth_layers": 1, "depth_heads": 2, "depth_key_value_heads": 2}
    sizes = {"depth_head_dim": 4, "depth_feedforward": 8, "adapter_width": 0}
    tts = CatTts(CatTtsConfig(**common, **depth, **sizes), TEXT)
    with torch.no_grad():
        # Equal logits of ending and continuing: `--max-seconds` ends it.
        tts.depth.exits[0][2].weight.zero_()
    tts.save_pretrained(folder / "tts")
    add_voices(folder / "voiced", tts, codec.identity, quantizer)
    CatAsr(CatAsrConfig(**common), TEXT).save_pretrained(folder / "asr")
    return folder


def add_voices(folder, tts, identity, quantizer):
    """The same CAT-TTS with two voices."""
    tts.save_pretrained(folder)
    (folder / "voices").mkdir()
    random = np.random.default_rng(0)
    for name, text in (("anna", "c a"), ("ben", "b")):
        size = (quantizer.num_quantizers, 4)
        codes = random.integers(0, quantizer.codebook_size, size)
        stored = AudioCodes(
            codes, 24_000, 4 * 1920, codebook_size=quantizer.codebook_size, model=identity
        )
        stored.save(folder / f"voices/{name}.moss")
        (folder / f"voices/{name}.txt").write_text(text, "utf-8")


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "voice.wav"
    noise = np.random.default_rng(0).normal(scale=0.1, size=16_000)
    soundfile.write(path, noise, 16_000)
    return path


def options(models, kind):
    return ["--model", models / kind, "--codec", models / "codec"]


def test_a_text_becomes_sound_the_same_streamed_or_whole(models, moss_audio, recording, tmp_path):
    ends = []
    for name, more in (("whole.wav", []), ("streamed.wav", ["--stream"])):
        prompt = ["--prompt-audio", recording, "--prompt-text", "c a", *more]
        arguments = ["tts", "a b", "-o", tmp_path / name, *options(models, "tts"), *prompt]
        result = moss_audio(*arguments, "--max-seconds", 0.4, "--seed", 5, "--json")
        assert result.exit_code == 0, result.stderr
        facts = json.loads(result.stdout)
        assert facts["duration_seconds"] <= 0.4
        assert ("first_sound_seconds" in facts) == bool(more)
        ends.append(facts["finished"])
    whole, streamed = (soundfile.read(tmp_path / f"{n}.wav")[0] for n in ("whole", "streamed"))
    assert len(whole) > 0
    assert ends[0] is ends[1]
    np.testing.assert_allclose(whole, streamed, atol=2 / 32768)


@pytest.fixture
def frames_before_the_end(monkeypatch):
    """Have every speech end after so many frames of its own."""

    def end_after(count: int) -> None:
        decisions = itertools.cycle([CONTINUE] * count + [END])
        monkeypatch.setattr(CodeSampler, "choice", lambda *_: np.array([next(decisions)]))

    return end_after


@pytest.mark.parametrize("more", [[], ["--stream"]])
@pytest.mark.parametrize(("count", "finished"), [(4, True), (5, False)])
def test_speech_that_is_cut_off_says_so(
    models, moss_audio, frames_before_the_end, tmp_path, count, finished, more
):
    output = tmp_path / "x.wav"
    arguments = ["tts", "a b", "-o", output, *options(models, "tts"), "--max-seconds", 0.4, *more]
    frames_before_the_end(count)
    line = moss_audio(*arguments).stdout
    assert line.startswith(str(output))
    assert ("cut off at the longest length" in line) is not finished
    frames_before_the_end(count)
    facts = json.loads(moss_audio(*arguments, "--json").stdout)
    assert facts["finished"] is finished
    assert facts["duration_seconds"] == pytest.approx(count * 0.08)


@pytest.mark.parametrize("seconds", ["nan", "inf", "-3", "0", "1e308"])
def test_lengths_that_cannot_be_are_refused_before_the_model_is_loaded(refused, tmp_path, seconds):
    model = ["--model", tmp_path / "none"]
    line = refused("tts", "a", "-o", tmp_path / "x.wav", *model, "--max-seconds", seconds)
    assert "--max-seconds is" in line


def test_folders_are_made_for_speech_alone(
    models, refused, moss_audio, frames_before_the_end, tmp_path
):
    output = tmp_path / "new" / "sub" / "x.wav"
    assert "none" in refused("tts", "a", "-o", output, "--model", tmp_path / "none")
    assert "got '7'" in refused("tts", "a 7", "-o", output, *options(models, "tts"))
    assert not (tmp_path / "new").exists()
    for more in ([], ["--stream"]):
        frames_before_the_end(1)
        spoken = ["tts", "a", "-o", output, *options(models, "tts"), *more]
        assert moss_audio(*spoken, "--max-seconds", 0.2).exit_code == 0
        output.unlink()


def test_speech_goes_into_no_folder(refused, tmp_path):
    for name in ("out/", "out.wav/", "out"):
        line = refused("tts", "a", "-o", f"{tmp_path}/{name}", "--model", tmp_path / "none")
        assert line.rstrip().endswith("should end in .wav or .flac")
    assert not list(tmp_path.iterdir())


def test_sound_goes_down_a_pipe(models, moss_audio):
    """`test_cli_bundled_speech.py` does so in a process of its own."""
    arguments = ["tts", "a b", "--stream", "-o", "-", *options(models, "tts")]
    result = moss_audio(*arguments, "--max-seconds", 0.4, "--seed", 5)
    assert result.exit_code == 0, result.stderr
    assert len(result.stdout_bytes) % (2 * 1920) == 0
    assert len(result.stdout_bytes) > 0


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("", [], "the text is empty"),
        ("a 7", [], "got '7'"),
        ("a", ["--prompt-text", "b"], "needs its recording"),
        ("a", ["--num-quantizers", 99], "num_quantizers is 99"),
        ("a", ["--max-seconds", 9999], "expected at most"),
        ("a", ["--temperature", 0], "temperature is 0"),
        ("a", ["--prompt-audio", "none.wav", "--prompt-text", "b"], "none.wav"),
    ],
)
def test_what_cannot_be_said(models, refused, tmp_path, text, more, message):
    line = refused("tts", text, "-o", tmp_path / "x.wav", *options(models, "tts"), *more)
    assert message in line
    assert not list(tmp_path.glob("*.wav"))


def test_a_prompt_without_text_and_wrong_outputs(models, refused, recording, tmp_path):
    own = options(models, "tts")
    prompted = ["--prompt-audio", recording]
    assert "needs its text" in refused("tts", "a", "-o", tmp_path / "x.wav", *own, *prompted)
    assert ".wav" in refused("tts", "a", "-o", tmp_path / "x.mp3", *own)
    assert "--stream" in refused("tts", "a", "-o", "-", *own)
    over = [*own, *prompted, "--prompt-text", "b"]
    assert "would be overwritten" in refused("tts", "a", "-o", recording, *over)
    assert "describes no cat-tts" in refused(
        "tts", "a", "-o", tmp_path / "x.wav", *options(models, "asr")
    )


def test_recordings_and_codes_are_read_alike(models, moss_audio, recording, tmp_path):
    codes = tmp_path / "voice.moss"
    assert moss_audio("encode", recording, "-o", codes, "--model", models / "codec").exit_code == 0
    arguments = ["asr", recording, codes, *options(models, "asr"), "--json", "--beams", 2]
    result = moss_audio(*arguments)
    assert result.exit_code == 0, result.stderr
    files = json.loads(result.stdout)["files"]
    assert [item["input"] for item in files] == [str(recording), str(codes)]
    assert files[0]["text"] == files[1]["text"]


def test_one_bad_file_does_not_stop_the_others(models, moss_audio, recording, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    result = moss_audio("asr", tmp_path / "bad.wav", recording, *options(models, "asr"))
    assert result.exit_code == 2
    assert result.stdout.startswith(f"{recording}: ")
    assert "bad.wav" in result.stderr


def test_codes_of_too_few_layers_are_named_and_the_others_read(
    models, moss_audio, recording, tmp_path
):
    few, model = tmp_path / "few.moss", ["--model", models / "codec"]
    assert moss_audio("encode", recording, "-o", few, "--num-quantizers", 1, *model).exit_code == 0
    reading = ["asr", few, recording, *options(models, "asr"), "--num-quantizers", 2]
    result = moss_audio(*reading)
    assert result.exit_code == 2
    assert result.stdout.startswith(f"{recording}: ")
    assert f"{few}: num_quantizers is 2; expected 1 to 1" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    files = json.loads(moss_audio(*reading, "--json").stdout)["files"]
    assert [sorted(item) for item in files] == [
        ["error", "input"],
        ["duration_seconds", "input", "text", "words"],
    ]


def test_a_recording_that_is_named_twice_is_printed_twice(models, moss_audio, recording):
    result = moss_audio("asr", recording, recording, *options(models, "asr"))
    assert result.exit_code == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert first == second
    assert first.startswith(f"{recording}: ")


def test_codes_of_another_codec_are_refused(models, refused, moss_audio, recording, tmp_path):
    moss_audio("encode", recording, "-o", tmp_path / "other.moss")
    line = refused("asr", tmp_path / "other.moss", *options(models, "asr"))
    assert "name the codec that made them" in line
    assert "knows codes of the codec" in refused("asr", recording, "--model", models / "asr")


def test_info_tells_what_a_folder_is(models, json_of, refused):
    facts = json_of("info", models / "tts")
    assert facts["kind"] == "text to speech"
    assert facts["parameters"]["total"] == sum(
        p.numel() for p in CatTts.from_pretrained(models / "tts").parameters()
    )
    assert json_of("info", models / "asr")["language_model"] == "qwen2"


def test_info_of_a_folder_without_weights(models, refused, tmp_path):
    (tmp_path / "config.json").write_text((models / "asr" / "config.json").read_text())
    assert "no such file" in refused("info", tmp_path)


@pytest.mark.parametrize("kind", ["tts", "asr"])
def test_without_an_installed_model_a_line_says_how_to_train_one(
    refused, recording, kind, monkeypatch, tmp_path
):
    monkeypatch.setattr("moss_audio_tokenizer.speech.model_facts.BUNDLED_SPEECH", tmp_path)
    given = ["hello"] if kind == "tts" else [recording]
    assert f"moss-audio train {kind}_tiny" in refused(kind, *given)


@pytest.mark.parametrize("text", [" ", "?!", "\U0001f600"])
def test_texts_without_words_are_refused_before_the_model_is_looked_for(refused, text):
    assert "give" in refused("tts", text, "--model", "nowhere/at/all")


def test_exported_folders_say_the_same(
    models, moss_audio, recording, frames_before_the_end, tmp_path
):
    for kind in ("tts", "asr"):
        result = moss_audio("export", "onnx", models / kind, "-o", tmp_path / kind)
        assert result.exit_code == 0, result.stderr
        assert "temporal.onnx" in result.stdout
    codec = ["--codec", models / "codec", "--backend"]
    sounds = []
    for folder, backend in ((models, "torch"), (tmp_path, "onnx")):
        if backend == "onnx":
            exported = moss_audio("export", "onnx", models / "codec", "-o", tmp_path / "codec")
            assert exported.exit_code == 0, exported.stderr
            codec[1] = tmp_path / "codec"
        output = tmp_path / f"{backend}.wav"
        more = ["--model", folder / "tts", *codec, backend, "--max-seconds", 0.3]
        frames_before_the_end(3)
        result = moss_audio("tts", "a b", "-o", output, *more)
        assert result.exit_code == 0, result.stderr
        sounds.append(soundfile.read(output)[0])
        result = moss_audio("asr", recording, "--model", folder / "asr", *codec, backend)
        assert result.exit_code == 0, result.stderr
        sounds.append(result.stdout)
    np.testing.assert_allclose(sounds[0], sounds[2], atol=2 / 32768)
    assert sounds[1] == sounds[3]


def test_silence_gives_no_text(models, moss_audio, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(24_000), 24_000)
    result = moss_audio("asr", tmp_path / "silence.wav", *options(models, "asr"))
    assert (result.exit_code, result.stdout) == (0, "\n")


def test_voices_are_listed(models, moss_audio, json_of):
    assert moss_audio("tts", "--list-voices", "--model", models / "voiced").stdout == "anna\nben\n"
    listed = json_of("tts", "--list-voices", "--model", models / "voiced")
    assert listed == {"voices": ["anna", "ben"], "default": "anna"}
    none = moss_audio("tts", "--list-voices", "--model", models / "tts")
    assert (none.stdout, none.stderr) == ("", "this model has no built-in voices\n")
    assert json_of("tts", "--list-voices", "--model", models / "tts")["voices"] == []
    assert json_of("info", models / "voiced")["voices"] == ["anna", "ben"]


def test_a_voice_is_chosen_by_name(models, moss_audio, frames_before_the_end, tmp_path):
    sounds = []
    for voice in ((), ("--voice", "anna"), ("--voice", "ben")):
        frames_before_the_end(3)
        arguments = ["tts", "a b", "-o", tmp_path / "x.wav", *options(models, "voiced"), *voice]
        result = moss_audio(*arguments)
        assert result.exit_code == 0, result.stderr
        sounds.append(soundfile.read(tmp_path / "x.wav")[0])
    assert np.array_equal(sounds[0], sounds[1])
    assert not np.array_equal(sounds[0], sounds[2])


def test_voices_that_are_not_there(models, refused, recording, tmp_path):
    line = ["tts", "a", "-o", tmp_path / "x.wav", "--voice", "carl"]
    assert "no voice 'carl'; expected anna, ben" in refused(*line, *options(models, "voiced"))
    assert "has no built-in voices" in refused(*line, *options(models, "tts"))
    prompt = ["--prompt-audio", recording, "--prompt-text", "b"]
    assert "got --voice and --prompt-audio" in refused(*line, *options(models, "voiced"), *prompt)
    assert "--list-voices" in refused("tts", "-o", tmp_path / "x.wav")
