import pytest
from natural_plan import TEST_VOICES, VOICES, Plan, Speaker, make_speakers

TEXTS = ["One fine day.", "Two fine days.", "Three fine days."]


def voices_of(speakers):
    return {voice for speaker in speakers for voice, _ in speaker.parts}


def test_training_speakers_have_no_test_voice_and_cover_the_rest():
    speakers = make_speakers("en", 100, seed=3)
    assert voices_of(speakers) == set(VOICES["en"]) - set(TEST_VOICES)
    assert len(speakers) == 24 + 100


@pytest.mark.parametrize("language", sorted(VOICES))
def test_mixtures_are_convex_and_of_one_sex(language):
    for speaker in make_speakers(language, 30, seed=0):
        assert sum(weight for _, weight in speaker.parts) == pytest.approx(1)
        assert all(weight > 0 for _, weight in speaker.parts)
        assert len({voice[1] for voice, _ in speaker.parts}) == 1


def test_a_language_with_one_voice_has_no_mixtures():
    assert [speaker.name for speaker in make_speakers("fr", 10, seed=0)] == ["ff_siwis"]


def test_test_speakers_are_the_voices_kept_for_tests():
    assert tuple(speaker.name for speaker in make_speakers("en", 9, 0, test=True)) == TEST_VOICES


@pytest.mark.parametrize("voice", TEST_VOICES)
def test_a_plan_for_training_refuses_test_voices_and_mixtures_with_them(voice):
    mixed = Speaker("mixed", ((voice, 0.1), ("af_heart", 0.9)))
    for speaker in (Speaker(voice, ((voice, 1.0),)), mixed):
        with pytest.raises(ValueError, match="test speakers"):
            Plan(TEXTS, [speaker])
    Plan(TEXTS, [mixed], every_pair=True)


def test_the_same_seed_gives_the_same_clips_in_any_order():
    first, second = (Plan(TEXTS, make_speakers("en", 8, 1), seed=1) for _ in range(2))
    numbers = range(20)
    forward = [first.clip(number) for number in numbers]
    assert forward == [second.clip(number) for number in reversed(numbers)][::-1]
    other = Plan(TEXTS, make_speakers("en", 8, 2), seed=2)
    assert forward != [other.clip(number) for number in numbers]


def test_every_text_comes_once_before_any_comes_again():
    plan = Plan(TEXTS, make_speakers("en", 0, 0))
    said = [plan.clip(number).text for number in range(9)]
    assert all(sorted(said[start : start + 3]) == sorted(TEXTS) for start in (0, 3, 6))
    assert plan.has(10_000)


def test_a_test_set_has_every_pair_of_text_and_speaker():
    plan = Plan(TEXTS, make_speakers("en", 0, 0, test=True), every_pair=True)
    pairs = {(plan.clip(n).text, plan.clip(n).speaker.name) for n in range(12)}
    assert len(pairs) == 12
    assert plan.has(11)
    assert not plan.has(12)


def test_the_share_of_mixtures_is_as_asked():
    plan = Plan(TEXTS, make_speakers("en", 20, 0), mixture_share=0.25)
    mixed = [len(plan.clip(number).speaker.parts) == 2 for number in range(400)]
    assert 0.15 < sum(mixed) / 400 < 0.35


def test_a_plan_without_texts_is_refused():
    with pytest.raises(ValueError, match="0 texts"):
        Plan([], make_speakers("en", 0, 0))


def test_the_accent_is_that_of_the_voice_with_the_most_weight():
    assert Speaker("x", (("af_sky", 0.3), ("bf_emma", 0.7))).accent == "b"
