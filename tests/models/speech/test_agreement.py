from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emi_models.speech.agreement import AlignmentEdge, LocalAgreement, spoken_form
from emi_models.speech.recognizer import RecognizedWord

END_S = 99.0  # no matter to agreement


def said(text: str, start_s: float = 0.0, each_s: float = 0.4) -> list[RecognizedWord]:
    return [
        RecognizedWord(word, start_s + index * each_s, start_s + (index + 1) * each_s, 0.9)
        for index, word in enumerate(text.split())
    ]


def texts(words: object) -> str:
    return " ".join(word.text for word in words)  # type: ignore[attr-defined]


def test_two_hypotheses_in_a_row_must_agree() -> None:
    agreement = LocalAgreement()
    assert agreement.insert(said("we will"), END_S) == []
    assert texts(agreement.insert(said("we will wing"), END_S)) == "we will"
    assert texts(agreement.tentative) == "wing"
    assert agreement.insert(said("we will win the"), END_S) == []
    assert texts(agreement.insert(said("we will win the game"), END_S)) == "win the"
    assert texts(agreement.finish(said("we will win the game"))) == "game"


def test_more_can_be_asked_to_agree() -> None:
    agreement = LocalAgreement(3)
    assert [texts(agreement.insert(said("one two"), END_S)) for _ in range(3)] == ["", "", "one two"]
    assert [texts(LocalAgreement(1).insert(said("one two"), END_S)) for _ in range(2)] == ["one two"] * 2


def test_case_and_punctuation_are_no_disagreement() -> None:
    agreement = LocalAgreement()
    agreement.insert(said("hello, world"), END_S)
    assert texts(agreement.insert(said("Hello World."), END_S)) == "Hello World."
    assert spoken_form("“Don't!”") == "don't"


def test_a_certain_word_stays_though_later_hypotheses_hear_another() -> None:
    agreement = LocalAgreement()
    for _ in range(2):
        agreement.insert(said("i saw a cat"), END_S)
    assert agreement.insert(said("i saw a hat today"), END_S) == []
    assert texts(agreement.insert(said("i saw a hat today"), END_S)) == "today"
    assert texts(agreement.in_buffer) == "i saw a cat today"


def test_a_word_said_twice_is_two_words() -> None:
    agreement = LocalAgreement()
    for _ in range(2):
        agreement.insert(said("no"), END_S)
    agreement.insert(said("no no way"), END_S)
    assert texts(agreement.insert(said("no no way"), END_S)) == "no way"


def test_words_timed_anew_are_not_said_again() -> None:
    agreement = LocalAgreement()
    for shift in (0.0, 0.3):
        agreement.insert(said("come and see", shift), END_S)
    assert agreement.insert(said("come and see", 0.6), END_S) == []
    assert texts(agreement.in_buffer) == "come and see"


def test_what_a_cut_leaves_of_a_word_is_not_a_new_one() -> None:
    agreement = LocalAgreement()
    for _ in range(2):
        agreement.insert(said("thank you so"), END_S)
    agreement.cut(1.21)  # "so" goes on for a little longer than its time said
    assert agreement.in_buffer == ()
    assert agreement.insert(said("So", 1.2, 0.1), END_S) == []
    assert texts(agreement.finish(said("so much", 1.2, 0.1))) == "much"


def test_the_same_word_well_behind_a_cut_is_a_new_one() -> None:
    agreement = LocalAgreement()
    for _ in range(2):
        agreement.insert(said("thank you so"), END_S)
    agreement.cut(1.21)
    assert texts(agreement.finish(said("so much", 1.7))) == "so much"


def test_what_is_forced_is_certain_without_agreement() -> None:
    agreement = LocalAgreement()
    agreement.insert(said("one two three"), END_S)
    assert texts(agreement.force(0.9)) == "one two"
    assert texts(agreement.tentative) == "three"
    assert agreement.last_end_s == 0.8


def test_by_alignment_a_word_is_certain_once_enough_sound_lies_behind_it() -> None:
    edge = AlignmentEdge(0.5)
    assert texts(edge.insert(said("we will win"), 1.3)) == "we will"
    assert texts(edge.tentative) == "win"
    assert edge.insert(said("we will wing"), 1.69) == []
    assert texts(edge.insert(said("we will win the"), 1.75)) == "win"


def test_nothing_is_carried_into_the_next_utterance() -> None:
    agreement = LocalAgreement()
    agreement.insert(said("one"), END_S)
    agreement.reset()
    assert agreement.insert(said("one"), END_S) == []
    assert agreement.in_buffer == ()


hypotheses = st.lists(st.lists(st.sampled_from("abcd"), max_size=8), max_size=12)


@given(hypotheses, st.integers(1, 3), st.lists(st.floats(0, 4), max_size=4))
def test_whatever_is_heard_committed_text_only_grows(
    heard: list[list[str]], depth: int, cuts: list[float]
) -> None:
    agreement = LocalAgreement(depth)
    certain: list[RecognizedWord] = []
    for index, words in enumerate(heard):
        certain += agreement.insert(said(" ".join(words)), END_S)
        shown = [*certain, *agreement.tentative]
        assert shown[: len(certain)] == certain
        in_buffer = list(agreement.in_buffer)
        assert in_buffer == certain[len(certain) - len(in_buffer) :]
        if index < len(cuts):
            agreement.cut(cuts[index])
    certain += agreement.finish(said(" ".join(heard[-1]) if heard else ""))
    assert agreement.tentative == ()


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=10), st.integers(1, 3))
def test_what_is_heard_alike_often_enough_is_committed_once(words: list[str], depth: int) -> None:
    agreement = LocalAgreement(depth)
    certain = [word for _ in range(depth + 3) for word in agreement.insert(said(" ".join(words)), END_S)]
    assert [word.text for word in certain] == words
