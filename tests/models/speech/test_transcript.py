from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emi_models.speech.recognizer import Transcript


def test_a_word_keeps_its_number_from_guess_to_certainty() -> None:
    transcript = Transcript()
    first, _ = transcript.show([], ["we", "will"])
    second, withdrawn = transcript.show(["We"], ["will", "win"])
    assert [mark.number for mark in second] == [first[0].number, first[1].number, 2]
    assert withdrawn == ()
    assert transcript.erased == 0
    assert transcript.committed == 1


def test_a_revision_names_what_it_revises() -> None:
    transcript = Transcript()
    before, _ = transcript.show([], ["we", "will", "wing"])
    after, withdrawn = transcript.show(["we", "will"], ["win", "it"])
    assert after[2].revises == before[2].number
    assert after[2].number not in {mark.number for mark in before}
    assert after[3].revises is None
    assert withdrawn == ()
    assert transcript.erased == 1
    assert transcript.show(["win"], ["it"])[0] == after[2:]  # a mark is a word's for as long as it is shown


def test_a_word_taken_back_is_withdrawn_by_its_number() -> None:
    transcript = Transcript()
    before, _ = transcript.show([], ["thanks", "for", "watching"])
    after, withdrawn = transcript.show([], [])
    assert (after, set(withdrawn)) == ([], {mark.number for mark in before})
    assert transcript.erased == 3


def test_erasure_counts_what_must_be_written_again() -> None:
    transcript = Transcript()
    transcript.show([], ["a", "b", "c"])
    transcript.show([], ["a", "x", "c"])  # b and c come off the end, x and c are added
    assert transcript.erased == 2


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.sampled_from("abc"), max_size=6)), min_size=1, max_size=8
    )
)
def test_numbers_are_unique_and_every_open_word_is_accounted_for(
    displays: list[tuple[int, list[str]]],
) -> None:
    transcript = Transcript()
    open_numbers: set[int] = set()
    ever: set[int] = set()
    for committed, words in displays:
        marks, withdrawn = transcript.show(words[:committed], words[committed:])
        shown = [mark.number for mark in marks]
        new = [mark for mark in marks if mark.number not in open_numbers]
        revised = {mark.revises for mark in new if mark.revises is not None}
        assert len(set(shown)) == len(shown)
        assert revised | set(withdrawn) == open_numbers - set(shown)
        assert all(mark.number not in ever for mark in marks if mark.number not in open_numbers)
        ever |= set(shown)
        open_numbers = set(shown[committed:])
