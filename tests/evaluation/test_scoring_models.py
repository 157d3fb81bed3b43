"""Scores by functions of the user's, and error rates."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from moss_audio_tokenizer.errors import CheckpointError, InputError, MissingDependencyError
from moss_audio_tokenizer.evaluation.scoring_models import (
    ScoringModelNames,
    ScoringModels,
    default_speaker_model,
    load_opinion_model,
    load_speaker_model,
    load_transcriber,
)
from moss_audio_tokenizer.evaluation.text_normalization import (
    Transcript,
    compare,
    normalized,
    normalizer,
)


@pytest.fixture
def signals():
    time = np.arange(16_000) / 16_000
    return np.sin(2 * np.pi * 200 * time), np.sin(2 * np.pi * 5_000 * time)


def test_functions_of_the_users_score(signals):
    names = ScoringModelNames("toy_codecs:embedder@2", "toy_codecs:rater", "toy_codecs:recogniser")
    assert list(names.by_metric) == ["speaker_similarity", "opinion_score", "wer", "cer"]
    pytest.importorskip("jiwer")
    low, high = signals
    same, other = (ScoringModels(names).score(low, one, "One, two, three!") for one in (low, high))
    assert same.values["speaker_similarity"] == pytest.approx(1.0)
    assert other.values["speaker_similarity"] < 0.2
    assert same.values["opinion_score"] == pytest.approx(1.0, abs=1e-3)
    assert same.values["wer"] == pytest.approx(1 / 3)
    # "two" and "too" differ in one of eleven letters.
    assert same.values["cer"] == pytest.approx(1 / 11)
    found = same.transcript
    assert (found.read, found.num_words, found.num_characters) == ("one too three", 3, 11)


def test_the_reference_is_embedded_once_for_all_versions(signals, monkeypatch):
    scoring_models = ScoringModels(ScoringModelNames(speaker_model="toy_codecs:embedder@1"))
    calls = []
    embed = scoring_models._embed
    monkeypatch.setattr(scoring_models, "_embed", lambda *one: calls.append(1) or embed(*one))
    for _ in range(3):
        scoring_models.score(*signals, "")
    assert len(calls) == 1 + 3


def test_without_models_there_are_no_scores(signals):
    assert ScoringModelNames().by_metric == {}
    assert ScoringModels(ScoringModelNames()).score(*signals, "text").values == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It\N{RIGHT SINGLE QUOTATION MARK}s ONE, two -- three!", "it's one two three"),
        ("  ", ""),
        ("snake_case 3.5", "snake case 3 5"),
        ("Füße; \N{LATIN SMALL LIGATURE FI}n", "füsse fin"),
        ("你好\N{FULLWIDTH COMMA}世界。", "你好 世界"),
    ],
)
def test_text_is_compared_without_case_and_punctuation(text, expected):
    assert normalized(text) == normalized(expected) == expected


def test_error_rates_are_those_of_edits():
    pytest.importorskip("jiwer")
    assert compare("a b c d", "a x c") == Transcript("a x c", 0.5, 0.5, 4, 4)
    assert compare("a b", "") == Transcript("", 1.0, 1.0, 2, 2)
    undefined = compare("", "a")
    assert math.isnan(undefined.wer)
    assert math.isnan(undefined.cer)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(MissingDependencyError, match=r"jiwer.*\[eval\]"):
        compare("a", "a")
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(MissingDependencyError, match="pip install pocketsphinx"):
        ScoringModels(ScoringModelNames(asr_model="pocketsphinx"))


def test_pocketsphinx_hears_something_or_nothing():
    pytest.importorskip("pocketsphinx")
    scores = ScoringModels(ScoringModelNames(asr_model="pocketsphinx"))
    silence = np.zeros(16_000)
    found = scores.score(silence, silence, "hello")
    assert isinstance(found.transcript.read, str)
    assert 0.0 < found.values["wer"] <= 5.0


def test_what_pocketsphinx_hears_does_not_depend_on_the_order_of_clips():
    pytest.importorskip("pocketsphinx")
    scoring_models = ScoringModels(ScoringModelNames(asr_model="pocketsphinx"))
    random = np.random.default_rng(0)
    hiss, hum = 0.1 * random.standard_normal(8_000), 0.02 * np.sin(0.05 * np.arange(8_000))
    transcript = [
        scoring_models.score(clip, clip, "a").transcript.read for clip in (hiss, hum, hiss, hum)
    ]
    assert transcript[:2] == transcript[2:]


@pytest.mark.parametrize("name", ["toy_codecs:nothing", "no_such_module:f", "toy_codecs:RATE"])
def test_a_function_that_is_not_there_is_refused(name):
    with pytest.raises(InputError, match=name.partition(":")[0]):
        ScoringModels(ScoringModelNames(opinion_model=name))


@pytest.mark.parametrize(
    ("load", "name", "module", "package"),
    [
        (load_transcriber, "whisper", "faster_whisper", "faster-whisper"),
        (load_speaker_model, "resemblyzer", "resemblyzer", "resemblyzer"),
        (load_opinion_model, "dnsmos", "speechmos.dnsmos", "speechmos"),
    ],
)
def test_a_missing_scoring_model_is_named_in_one_line(load, name, module, package, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"needs {package}.*\[judges\]") as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(InputError, match=r"--speaker-model 'resemblizer' is unknown.*resemblyzer"):
        load_speaker_model("resemblizer")
    with pytest.raises(InputError, match="expected a folder, as in wavlm:"):
        load_speaker_model("wavlm")


class FakeWhisper:
    def __init__(self, source, **settings):
        if source == "huge":
            raise RuntimeError("no such\nsize")

    supported_languages = ("de", "en")

    def transcribe(self, samples, language, **settings):
        assert samples.dtype == np.float32
        if language:
            return [SimpleNamespace(text=language)], None
        return [SimpleNamespace(text=" One, two"), SimpleNamespace(text=" three.")], None


def test_whisper_reads_sound_through_its_package(monkeypatch, tmp_path, signals):
    module = SimpleNamespace(WhisperModel=FakeWhisper)
    monkeypatch.setitem(sys.modules, "faster_whisper", module)
    transcribe = load_transcriber("whisper:base")
    assert transcribe(signals[0], 16_000) == "One, two three."
    assert transcribe(signals[0][:100], 16_000) == ""
    assert load_transcriber("whisper:base@de")(signals[0], 16_000) == "de"
    assert load_transcriber("whisper:@en")(signals[0], 16_000) == "en"
    with pytest.raises(InputError, match=r"does not know the language 'english'; expected a code"):
        load_transcriber("whisper:base@english")
    with pytest.raises(CheckpointError, match=r"no such size.*whisper:FOLDER"):
        load_transcriber("whisper:huge")
    with pytest.raises(CheckpointError, match=r"expected a folder with model\.bin"):
        load_transcriber(f"whisper:{tmp_path}")
    (tmp_path / "model.bin").touch()
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(CheckpointError, match=r": config\.json, tokenizer\.json is missing"):
        load_transcriber(f"whisper:{tmp_path.name}")


def test_whisper_may_be_in_a_folder_whose_name_has_an_at_sign(monkeypatch, tmp_path, signals):
    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=FakeWhisper))
    folder = tmp_path / "models@v2" / "base@int8"
    folder.mkdir(parents=True)
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (folder / name).touch()
    assert load_transcriber(f"whisper:{folder}")(signals[0], 16_000) == "One, two three."
    assert load_transcriber(f"whisper:{folder}@de")(signals[0], 16_000) == "de"
    with pytest.raises(CheckpointError, match=r"no Whisper at '.*models@v2/base'"):
        load_transcriber(f"whisper:{folder.parent / 'base'}")


def test_packages_embed_and_rate(monkeypatch, signals):
    def embed(samples):
        return samples[:4]

    encoder = SimpleNamespace(embed_utterance=embed)
    voices = SimpleNamespace(
        VoiceEncoder=lambda device, verbose: encoder,
        preprocess_wav=lambda samples, source_sr: samples[1000:],
    )
    monkeypatch.setitem(sys.modules, "resemblyzer", voices)
    opinions = SimpleNamespace(run=lambda samples, rate: {"ovrl_mos": float(samples.max())})
    monkeypatch.setitem(sys.modules, "speechmos", SimpleNamespace(dnsmos=opinions))
    monkeypatch.setitem(sys.modules, "speechmos.dnsmos", opinions)
    assert default_speaker_model() == "resemblyzer"
    names = ScoringModelNames("resemblyzer", "dnsmos")
    scores = ScoringModels(names).score(signals[0], 3 * signals[0], "")
    assert scores.values["speaker_similarity"] == pytest.approx(1.0)
    assert scores.values["opinion_score"] == 1.0  # clipped, as speechmos demands
    silence = ScoringModels(names).score(signals[0], 0 * signals[0], "")
    assert math.isnan(silence.values["speaker_similarity"])


def test_texts_are_normalized_as_seed_tts_eval_does():
    english, chinese = normalizer("seed-tts", "en"), normalizer("seed-tts", "zh")
    assert english("It's a well-known, FACT.") == "it's a wellknown fact"
    assert chinese("\u4f60\u597d\uff0c\u4e16\u754c\u3002") == "\u4f60 \u597d \u4e16 \u754c"
    with pytest.raises(InputError, match="expected plain, whisper, seed-tts"):
        normalizer("loose")


def test_texts_are_normalized_as_whisper_does(monkeypatch):
    monkeypatch.setitem(sys.modules, "whisper_normalizer.basic", None)
    with pytest.raises(MissingDependencyError, match="whisper-normalizer"):
        normalizer("whisper", "fr")
    monkeypatch.undo()
    pytest.importorskip("whisper_normalizer")
    english = normalizer("whisper", "en")
    assert english("Mr. Colour won't pay twenty-five dollars") == ("mister color will not pay $25")


def test_the_normalization_belongs_to_the_name_of_the_model():
    plain, seed = (
        ScoringModelNames(asr_model="whisper", text_normalization=name)
        for name in ("plain", "seed-tts")
    )
    assert plain.by_metric["wer"] == "whisper"
    assert seed.by_metric["wer"] == "whisper (seed-tts texts)"
