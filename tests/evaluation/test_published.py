"""The paper's figures as data, beside measured ones."""

from functools import partial

import pytest
from pages import Page
from toy_codecs import byte_codec

from moss_audio_tokenizer.codes.codec import CodecInfo
from moss_audio_tokenizer.evaluation import Plan, run_evaluation, write_results
from moss_audio_tokenizer.evaluation.codecs import counts_at
from moss_audio_tokenizer.evaluation.published import (
    TABLE2_BITRATES,
    published_codecs,
    published_speech,
)
from moss_audio_tokenizer.evaluation.scoring_models import ScoringModelNames
from moss_audio_tokenizer.manifest import read_manifest


def test_table_2_is_there_by_domain_and_language():
    speech = published_codecs(["speech"], ["en"])
    assert len(speech) == 27
    ours = [one for one in speech if one.model == "MOSS-Audio-Tokenizer"]
    assert [1000 * one.kbps for one in ours] == list(TABLE2_BITRATES)
    assert [one.metrics["pesq_wb"].mean for one in ours] == [2.60, 2.87, 3.20, 3.41, 3.61, 3.69]
    assert {one.published for one in speech} == {"LibriSpeech test-clean"}
    chinese = published_codecs(["speech"], ["zh"])
    assert {one.published for one in chinese} == {"AISHELL-2"}
    assert len(published_codecs(["speech"], ["en", "zh"])) == 54
    (music,) = [one for one in published_codecs(["music"]) if one.model == "DAC" and one.kbps == 6]
    assert {name: value.mean for name, value in music.metrics.items()} == {
        "mel_distance": 0.63,
        "stft_distance": 1.87,
    }
    assert not published_codecs(["whale song"])


def test_tables_3_and_4_are_text():
    synthesis, recognition = published_speech("table3"), published_speech("table4")
    assert len(synthesis.rows) == 17
    assert synthesis.rows[-1] == ("CAT-TTS (Ours)", "Discrete AR", "1.89", "73.10", "1.23", "78.50")
    assert recognition.rows[-1] == ("CAT-ASR (Ours)", "1.7B", "2.96", "3.44")
    assert "published" in synthesis.caption


def info(num_quantizers, codebook_size):
    return CodecInfo("0" * 16, 24_000, 1, 1920, num_quantizers, codebook_size)


def test_quantizers_are_chosen_by_bitrate():
    assert counts_at(info(32, 1024), TABLE2_BITRATES) == (6, 8, 12, 16, 24, 32)
    assert counts_at(info(8, 1024), TABLE2_BITRATES) == (6, 8)


def test_a_codec_with_none_of_the_bitrates_is_measured_near_them():
    # 100 bits a second each: 800 at most, which is next to 750.
    assert counts_at(info(8, 256), TABLE2_BITRATES) == (7,)
    # 112.5 each, of which none makes a multiple of 250 below 9.
    assert counts_at(info(10, 512), (750, 1000)) == (7, 9)
    # 12.5 each: never as much as 750. 150 each: more than 100 from the first.
    assert counts_at(info(4, 2), TABLE2_BITRATES) == (4,)
    assert counts_at(info(4, 4096), (100,)) == (1,)


@pytest.fixture
def page(manifest, tmp_path):
    """Makes a page with published rows: its text, and its HTML."""
    pytest.importorskip("matplotlib")
    clips = read_manifest(manifest, split="valid")[:3]

    def make(metrics, **scoring_models):
        models = ScoringModelNames(**scoring_models)
        plan = Plan(clips, [partial(byte_codec, 1, 2)], metrics, models, num_examples=0)
        outcome = run_evaluation(plan, tmp_path / "run", lambda done, total: None)
        arguments = (tmp_path / "run", outcome, clips, "Title", "command")
        text = write_results(*arguments, published=True)
        return text, (tmp_path / "run/report.html").read_text("utf-8")

    return make


def test_a_page_shows_published_rows_and_says_so(page):
    text, html = page(("stft_distance", "stoi"))
    assert "| Mimi (published) | 8 | 1.1 | - | - | 0.910 |" in text
    assert "published, on the paper's data (MUSDB)" in text
    assert "published, on the paper&#x27;s data (LibriSpeech test-clean)" in html
    labels = {cell.get("data-label") for cell in Page(html).all("td")}
    assert {"kbps", "STOI \u2191"} <= labels


def test_a_similarity_by_another_model_is_not_shown_beside_the_papers(page):
    text, html = page(("stft_distance",), speaker_model="mfcc")
    assert "by WavLM-large and cannot be compared with that by mfcc" in text
    assert "- speaker similarity: by mfcc" in text
    assert "Speaker similarity by mfcc (higher is better)" in html
