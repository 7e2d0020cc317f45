from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emi_models.speech.guards import GUARDS, Guards, GuardSettings, last_loop, loops
from emi_models.speech.recognizer import Hypothesis, RecognizedWord, Segment


class Voice:
    """Voice in the given spans."""

    def __init__(self, *spans: tuple[float, float]) -> None:
        self._spans = spans

    def any_between(self, start_s: float, end_s: float) -> bool:
        return any(begin < end_s and end > start_s for begin, end in self._spans)


EVERYWHERE = Voice((-1e9, 1e9))


def spoken(text: str) -> tuple[RecognizedWord, ...]:
    return tuple(RecognizedWord(word, i * 0.5, i * 0.5 + 0.4, 0.9) for i, word in enumerate(text.split()))


GOOD = Segment(spoken("thank you very much"), no_speech=0.1, log_probability=-0.3)


def texts(words: list[RecognizedWord]) -> str:
    return " ".join(word.text for word in words)


def test_what_is_sound_passes() -> None:
    guards = Guards()
    words = guards.passed(Hypothesis((GOOD,)), EVERYWHERE)
    assert texts(words) == "thank you very much"
    assert words == list(GOOD.words)
    assert not guards.dropped


@pytest.mark.parametrize(
    ("guard", "bad"),
    [
        ("no_speech", replace(GOOD, no_speech=0.61)),
        ("log_probability", replace(GOOD, log_probability=-1.01)),
    ],
)
def test_each_guard_drops_a_segment_by_itself_and_counts_its_words(guard: str, bad: Segment) -> None:
    guards = Guards()
    assert texts(guards.passed(Hypothesis((bad, GOOD)), EVERYWHERE)) == "thank you very much"
    assert guards.dropped == {guard: 4}
    assert guard in GUARDS


def test_a_guard_can_be_switched_off_and_needs_an_opinion() -> None:
    off = Guards(GuardSettings(None, None, None))
    bad = replace(GOOD, no_speech=1.0, log_probability=-9.0)
    assert len(off.passed(Hypothesis((bad,)), EVERYWHERE)) == 4
    silent = Segment(GOOD.words)
    assert len(Guards().passed(Hypothesis((silent,)), EVERYWHERE)) == 4


def test_a_word_where_nobody_was_heard_is_dropped() -> None:
    guards = Guards()
    words = guards.passed(Hypothesis((GOOD,)), Voice((0.0, 0.9)))
    assert texts(words) == "thank you very"  # the third begins 0.1 s after the voice, within the margin
    assert guards.dropped == {"voice": 1}


@pytest.mark.parametrize(
    ("heard", "kept"),
    [
        ("no no no", "no no no"),
        ("no no no no", "no"),
        ("so la la la la la then", "so la then"),
        ("thank you thank you", "thank you thank you"),
        ("thank you thank you thank you", "thank you"),
        ("well i am here i am here I am here. now", "well i am here now"),
        ("a b a b a", "a b a b a"),
        ("", ""),
    ],
)
def test_a_loop_leaves_its_first_turn(heard: str, kept: str) -> None:
    looping = loops(heard.split())
    assert " ".join(word for place, word in enumerate(heard.split()) if place not in looping) == kept


def test_a_text_that_compresses_too_well_is_dropped_but_not_for_its_loop() -> None:
    strange = Segment(
        spoken(" ".join(f"amongst{end} the{end} tents{end} of{end} the{end}" for end in "abcdefgh"))
    )
    guards = Guards()
    assert guards.passed(Hypothesis((strange,)), EVERYWHERE) == []
    assert guards.dropped == {"compression": 40}
    loop = Segment(spoken("no " * 40 + "that is so funny"))
    assert texts(Guards().passed(Hypothesis((loop,)), EVERYWHERE)) == "no that is so funny"


@pytest.mark.parametrize(
    "laughter", ["Hahahahahahaha", "Fuhuhuhuhuhuhuhuh", "FAAFAAFAAFAAFAAFAAFAAF", "aaaaaaah"]
)
def test_laughter_is_no_word(laughter: str) -> None:
    guards = Guards()
    heard = Hypothesis((Segment(spoken(f"{laughter} that is funny")),))
    assert texts(guards.passed(heard, EVERYWHERE)) == "that is funny"
    assert guards.dropped == {"repetition": 1}


def test_a_loop_is_counted() -> None:
    guards = Guards()
    guards.passed(Hypothesis((Segment(spoken("la " * 60)),)), EVERYWHERE)
    assert guards.dropped == {"repetition": 59}


def test_what_is_certain_already_is_not_judged_but_makes_a_loop_longer() -> None:
    guards = Guards()
    bad = Segment(spoken("no no no no stop"), log_probability=-0.2)
    kept = guards.passed(Hypothesis((bad,)), Voice((1.5, 9.0)), said=3)
    assert texts(kept) == "stop"
    assert guards.dropped == {"repetition": 1}


def test_a_sound_that_begins_with_certain_words_is_not_silent() -> None:
    guards = Guards()
    silent = Hypothesis((replace(GOOD, no_speech=0.9),))
    assert texts(guards.passed(silent, EVERYWHERE, said=2)) == "very much"
    assert guards.passed(silent, EVERYWHERE) == []


@pytest.mark.parametrize(
    ("heard", "kept"),
    [
        ("the price is one two three four five six one two three four five six one", 9),
        ("very very very very", 1),
        ("a b c a b", 5),
        ("To lower it, to lower it. To lower", 3),
        ("no loop at all", 4),
        ("", 0),
    ],
)
def test_of_a_text_that_was_stopped_the_last_loop_leaves_its_first_turn(heard: str, kept: int) -> None:
    words = heard.split()
    assert last_loop(words) == set(range(kept, len(words)))


def test_only_a_text_that_was_stopped_has_a_last_loop() -> None:
    words = spoken("one two three four five six one two three four five six")
    guards = Guards()
    assert len(guards.passed(Hypothesis((Segment(words),)), EVERYWHERE)) == 12
    assert len(guards.passed(Hypothesis((GOOD, Segment(words, stopped=True))), EVERYWHERE)) == 10
    assert guards.dropped == {"repetition": 6}


@given(st.lists(st.sampled_from("ab"), max_size=30))
@example(list("abaaaabbabbabab"))
def test_no_loop_is_left(heard: list[str]) -> None:
    looping = loops(heard)
    kept = [word for place, word in enumerate(heard) if place not in looping]
    assert loops(kept) == set()
    assert 0 not in looping  # the first turn stays
