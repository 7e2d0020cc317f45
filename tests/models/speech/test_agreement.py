from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emi_models.speech.agreement import (
    AlignmentEdge,
    CommitRule,
    LocalAgreement,
    match,
    spoken_form,
    word_cut,
)
from emi_models.speech.recognizer import RecognizedWord

END_S = 99.0  # no matter to agreement


def said(text: str, start_s: float = 0.0, each_s: float = 0.4) -> list[RecognizedWord]:
    return [
        RecognizedWord(word, start_s + index * each_s, start_s + (index + 1) * each_s, 0.9)
        for index, word in enumerate(text.split())
    ]


def hear(rule: CommitRule, words: list[RecognizedWord], end_s: float) -> list[RecognizedWord]:
    committed, found = rule.match(words)
    return rule.insert(found[committed:], end_s)


def finish(rule: CommitRule, words: list[RecognizedWord]) -> list[RecognizedWord]:
    committed, found = rule.match(words)
    return rule.insert(found[committed:], END_S, last=True)


def texts(words: object) -> str:
    return " ".join(word.text for word in words)  # type: ignore[attr-defined]


def test_two_hypotheses_in_a_row_must_agree() -> None:
    agreement = LocalAgreement()
    assert hear(agreement, said("we will"), END_S) == []
    assert texts(hear(agreement, said("we will wing"), END_S)) == "we will"
    assert texts(agreement.partial) == "wing"
    assert hear(agreement, said("we will win the"), END_S) == []
    assert texts(hear(agreement, said("we will win the game"), END_S)) == "win the"
    assert texts(finish(agreement, said("we will win the game"))) == "game"


def test_between_two_that_agree_one_may_say_something_else() -> None:
    agreement = LocalAgreement()
    assert hear(agreement, said("them for you"), END_S) == []
    assert hear(agreement, said("the person you are calling"), END_S) == []
    assert texts(hear(agreement, said("them for you I am"), END_S)) == "them for you"
    assert texts(agreement.partial) == "I am"
    assert (
        hear(agreement, said("them for you are calling"), END_S) == []
    )  # nothing is left of the other reading
    assert texts(hear(agreement, said("them for you I am sorry"), END_S)) == "I am"


def test_more_can_be_asked_to_agree() -> None:
    agreement = LocalAgreement(3)
    assert [texts(hear(agreement, said("one two"), END_S)) for _ in range(3)] == ["", "", "one two"]
    assert [texts(hear(LocalAgreement(1), said("one two"), END_S)) for _ in range(2)] == ["one two"] * 2


def test_case_and_punctuation_are_no_disagreement() -> None:
    agreement = LocalAgreement()
    hear(agreement, said("hello, world"), END_S)
    assert texts(hear(agreement, said("Hello World."), END_S)) == "Hello World."
    assert spoken_form("“Don't!”") == "don't"


def test_a_certain_word_stays_though_later_hypotheses_hear_another() -> None:
    agreement = LocalAgreement()
    for _ in range(2):
        hear(agreement, said("i saw a cat"), END_S)
    assert hear(agreement, said("i saw a hat today"), END_S) == []
    assert texts(hear(agreement, said("i saw a hat today"), END_S)) == "today"
    assert texts(agreement.in_buffer) == "i saw a cat today"


def test_a_word_said_twice_is_two_words() -> None:
    agreement = LocalAgreement()
    for _ in range(2):
        hear(agreement, said("no"), END_S)
    hear(agreement, said("no no way"), END_S)
    assert texts(hear(agreement, said("no no way"), END_S)) == "no way"


def test_words_timed_anew_are_not_said_again() -> None:
    agreement = LocalAgreement()
    for shift in (0.0, 0.3):
        hear(agreement, said("come and see", shift), END_S)
    assert hear(agreement, said("come and see", 0.6), END_S) == []
    assert texts(agreement.in_buffer) == "come and see"


def test_what_a_cut_leaves_of_a_word_is_not_a_new_one() -> None:
    agreement = LocalAgreement()
    for _ in range(2):
        hear(agreement, said("thank you so"), END_S)
    agreement.cut(3, 1.21)  # "so" goes on for a little longer than its time said
    assert agreement.in_buffer == ()
    assert hear(agreement, said("So", 1.2, 0.1), END_S) == []
    assert texts(finish(agreement, said("so much", 1.2, 0.1))) == "much"


def test_the_same_word_well_behind_a_cut_is_a_new_one() -> None:
    agreement = LocalAgreement()
    for _ in range(2):
        hear(agreement, said("thank you so"), END_S)
    agreement.cut(3, 1.21)
    assert texts(finish(agreement, said("so much", 1.7))) == "so much"


@pytest.mark.parametrize(
    ("before", "now", "committed"),
    [
        ("", "thank you so much", ""),
        ("and the sun is", "thank you for the show", ""),  # one word by chance
        ("for one two three four", "or one two three four", "or one two three four"),
        ("one two three", "one or two three four five", "one or two three"),
    ],
)
def test_only_what_the_hypothesis_before_says_too_can_be_forced(
    before: str, now: str, committed: str
) -> None:
    agreement = LocalAgreement(3)
    for text in (before, now):
        hear(agreement, said(text), END_S)
    assert texts(agreement.force(END_S)) == committed


def test_what_is_forced_is_certain_without_agreement() -> None:
    """If there is one hypothesis only, nothing speaks against it."""
    agreement = LocalAgreement()
    hear(agreement, said("one two three"), END_S)
    assert texts(agreement.force(0.9)) == "one two"
    assert texts(agreement.partial) == "three"
    assert texts(agreement.in_buffer) == "one two"


def test_by_alignment_a_word_is_certain_once_enough_sound_lies_behind_it() -> None:
    edge = AlignmentEdge(0.5)
    assert texts(hear(edge, said("we will win"), 1.3)) == "we will"
    assert texts(edge.partial) == "win"
    assert hear(edge, said("we will wing"), 1.69) == []
    assert texts(hear(edge, said("we will win the"), 1.75)) == "win"


def test_nothing_is_carried_into_the_next_utterance() -> None:
    agreement = LocalAgreement()
    hear(agreement, said("one"), END_S)
    agreement.reset()
    assert hear(agreement, said("one"), END_S) == []
    assert agreement.in_buffer == ()


def test_a_new_word_is_not_taken_for_one_that_later_hypotheses_leave_out() -> None:
    agreement = LocalAgreement()
    for _ in range(2):
        hear(agreement, said("yes"), END_S)
    assert texts(finish(agreement, said("i know", 0.4))) == "i know"


def test_a_certain_word_stretched_too_far_does_not_swallow_the_next() -> None:
    agreement = LocalAgreement()
    for _ in range(2):
        hear(agreement, [RecognizedWord("three", 1.0, 2.0, 0.9)], END_S)
    later = [RecognizedWord("three", 1.0, 1.2, 0.9), RecognizedWord("four", 1.3, 1.7, 0.9)]
    hear(agreement, later, END_S)
    assert texts(hear(agreement, later, END_S)) == "four"


def test_committed_words_get_the_times_of_the_newest_hypothesis() -> None:
    agreement = LocalAgreement()
    for shift in (0.0, 0.1, 0.3):
        hear(agreement, said("come and see", shift), END_S)
    assert [word.start_s for word in agreement.in_buffer] == [
        word.start_s for word in said("come and see", 0.3)
    ]


@pytest.mark.parametrize(
    ("earlier", "later", "rest"),
    [
        ("call 415", "Call 4155552671 now", "5552671 now"),
        ("call 415", "Call 415-555 now", "555 now"),
        ("it costs 12", "It costs $1250, and", "50, and"),
        ("it costs 1200", "It costs $1250, and", "and"),
        ("he is ill", "He is ill-disposed to", "disposed to"),
        ("room 12", "room 12 is", "is"),
    ],
)
def test_of_a_number_that_grows_only_the_rest_is_new(earlier: str, later: str, rest: str) -> None:
    agreement = LocalAgreement(1)
    agreement.insert(said(earlier), END_S)
    agreement.force(END_S)
    assert texts(agreement.in_buffer) == earlier
    new = finish(agreement, said(later))
    assert texts(new) == rest
    assert all(word.start_s <= word.end_s for word in (*agreement.in_buffer, *new))


@pytest.mark.parametrize(
    ("earlier", "later", "rest"),
    [
        ("we are 15", "we are 50 people", "people"),
        ("we are 50", "we are 15 people", "people"),
        ("we are 15", "we are 1 5 people", "people"),
        ("we are 1 5", "we are 15 people", "people"),
        ("we are fifteen", "we are 15 people", "people"),
        ("we are 15", "we are fifteen people", "people"),
        ("we are twenty one", "we are 21 people", "people"),
        ("room 15 and 50", "room 15 and 15 are", "are"),
        ("room 15 and 50", "room 50 and 50 are", "are"),
        ("call 1 5 0", "call 150 and 51", "and 51"),
        ("in 1950", "in 1915 and 1950", "and 1950"),
        ("press 1", "press 1 5 times", "5 times"),
        ("press 5", "press 15 times", "times"),
    ],
)
def test_numbers_that_share_digits_are_not_taken_for_parts_of_each_other(
    earlier: str, later: str, rest: str
) -> None:
    agreement = LocalAgreement(1)
    agreement.insert(over_time(earlier), END_S)
    agreement.force(END_S)
    assert texts(finish(agreement, over_time(later))) == rest


def over_time(text: str) -> list[RecognizedWord]:
    """Each word takes 0.4 s, and a number of more than two digits 0.2 s for each digit."""
    words, at_s = [], 0.0
    for word in text.split():
        length_s = 0.2 * max(2, sum(map(str.isdigit, word)))
        words.append(RecognizedWord(word, at_s, at_s + length_s, 1.0))
        at_s += length_s
    return words


def test_a_number_that_may_go_on_is_not_certain_yet() -> None:
    agreement = LocalAgreement()
    assert [texts(hear(agreement, said("it costs 1200"), END_S)) for _ in range(3)] == ["", "it costs", ""]
    hear(agreement, said("it costs 1250 dollars"), END_S)
    assert texts(hear(agreement, said("it costs $1250 dollars"), END_S)) == "$1250 dollars"


def test_deeper_agreement_counts_earlier_hypotheses() -> None:
    agreement = LocalAgreement(2)
    hear(agreement, said("one"), END_S)
    agreement.deepen(3)
    assert hear(agreement, said("one"), END_S) == []
    assert texts(hear(agreement, said("one"), END_S)) == "one"


def test_the_text_says_where_certain_words_end_though_their_times_have_moved() -> None:
    """A word before a pause is stretched over the pause; by its time it would be said twice."""
    committed = said("the leader arrives")
    stretched = [*said("the leader"), RecognizedWord("arrives", 0.8, 4.9, 0.9), *said("when our", 4.9)]
    assert match(committed, stretched, 0.0).count == 3
    early = [*said("the leader", 0.0, 0.1), RecognizedWord("arrives", 0.2, 0.3, 0.9), *said("when our", 0.9)]
    assert match(committed, early, 0.0).count == 3


def test_of_matches_with_as_many_edits_the_nearest_in_time_is_taken() -> None:
    committed = said("we win")
    assert match(committed, said("he sees a cat"), 0.0).count == 2
    assert match(committed, said("he sees a cat", 0.8), 0.0).count == 0


def test_a_number_written_in_another_way_leaves_what_comes_behind_it_in_the_buffer() -> None:
    """The hypothesis has "twelve hundred and fifty" as one number, but only 1200 is committed."""
    agreement = LocalAgreement(1)
    agreement.insert(said("it costs 1200"), END_S)
    agreement.force(END_S)
    hear(agreement, [*said("it costs"), RecognizedWord("1250", 0.8, 2.4, 0.9)], END_S)
    cut = word_cut(agreement, 3.0)
    assert cut is not None
    assert cut.at_s < 1.5


def test_a_sentence_said_twice_and_found_once_keeps_its_time() -> None:
    agreement = LocalAgreement()
    for _ in range(2):
        hear(agreement, said("we will win we will win"), END_S)
    hear(agreement, said("we will win"), END_S)
    assert [word.start_s for word in agreement.in_buffer] == [
        word.start_s for word in said("we will win we will win")
    ]


def test_no_cut_behind_a_word_that_the_sound_ends_with() -> None:
    """It may have been guessed before it was said."""
    agreement = LocalAgreement()
    for _ in range(2):
        hear(agreement, said("we will win"), 1.2)
    cut = word_cut(agreement, 1.3)
    assert cut is not None
    assert cut.gone == 2
    assert cut.at_s == pytest.approx(0.8)
    assert word_cut(agreement, 0.4) is None


@given(st.lists(st.sampled_from("ab"), max_size=7), st.lists(st.sampled_from("abc"), max_size=7))
def test_a_match_is_the_nearest_prefix_and_in_order(committed: list[str], words: list[str]) -> None:
    found = match(said(" ".join(committed)), said(" ".join(words)), 0.0)
    assert 0 <= found.count <= len(words)
    assert len(found.retimed) == len(committed)
    assert [word.text for word in found.words] == words
    if words[: len(committed)] == committed and committed:
        assert found.count == len(committed)


hypotheses = st.lists(st.lists(st.sampled_from("abcd"), max_size=8), max_size=12)


@given(hypotheses, st.integers(1, 3), st.lists(st.integers(0, 3), max_size=4))
def test_whatever_is_heard_committed_text_only_grows(
    heard: list[list[str]], depth: int, cuts: list[int]
) -> None:
    agreement = LocalAgreement(depth)
    committed: list[RecognizedWord] = []
    for index, words in enumerate(heard):
        committed += hear(agreement, said(" ".join(words)), END_S)
        shown = [*committed, *agreement.partial]
        assert shown[: len(committed)] == committed
        in_buffer = list(agreement.in_buffer)
        assert texts(in_buffer) == texts(committed[len(committed) - len(in_buffer) :])
        if index < len(cuts):
            assert texts(agreement.cut(cuts[index], 0.0)) == texts(in_buffer[: cuts[index]])
    committed += finish(agreement, said(" ".join(heard[-1]) if heard else ""))
    assert agreement.partial == ()


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=10), st.integers(1, 3))
def test_what_is_heard_alike_often_enough_is_committed_once(words: list[str], depth: int) -> None:
    agreement = LocalAgreement(depth)
    committed = [word for _ in range(depth + 3) for word in hear(agreement, said(" ".join(words)), END_S)]
    assert [word.text for word in committed] == words
