"""What was shown, committed and taken back, on packets whose answers can be counted on the fingers."""

from __future__ import annotations

import pytest

from emi_bench.speech.scoring import score_words, word_history, word_lateness
from tests.bench.speech.packets import shown

SPOKEN = [
    shown("| so my", 1.0, 1.2),
    shown("| so my", 1.2, 1.4),  # nothing new
    shown("so | my fell", 1.5, 1.6),
    shown("so my | fellow Americas", 2.0, 2.1),
    shown("so my fellow Americans", 2.5, 3.0),
]


def test_a_word_is_certain_from_the_first_packet_that_says_so() -> None:
    found = word_history(SPOKEN)
    assert [word.text for word in found.committed] == ["so", "my", "fellow", "americans"]
    assert [word.committed_ns / 1e9 for word in found.committed] == [1.6, 2.1, 3.0, 3.0]
    assert found.text == "so my fellow Americans"


def test_a_word_is_seen_from_the_first_packet_that_shows_it_at_its_time() -> None:
    seen = {word.text: word.seen_ns / 1e9 for word in word_history(SPOKEN).committed}
    assert seen == {"so": 1.2, "my": 1.2, "fellow": 2.1, "americans": 3.0}
    again = word_history(
        [shown("| no", 1.0), shown("no", 1.5), shown("no | x", 2.0), shown("no yes no", 2.5)]
    )
    assert [word.seen_ns / 1e9 for word in again.committed] == [1.0, 2.5, 2.5]  # not that of the first no


def test_lateness_is_of_words_heard_rightly_whose_time_is_known() -> None:
    committed = word_history(SPOKEN).committed
    said = ["so", "my", "yellow", "americans"]
    late = word_lateness(
        [0.5, None, 1.5, 2.0], committed, score_words(said, [word.text for word in committed])
    )
    assert [(one.said_s, round(one.seen_ms, 6), round(one.committed_ms, 6)) for one in late] == [
        (0.5, 700.0, 1100.0),
        (2.0, 1000.0, 1000.0),
    ]


def test_words_that_are_right_by_chance_have_no_lateness() -> None:
    committed = word_history(SPOKEN).committed  # their middles are 0.25, 0.75, 1.25 and 1.75 s
    said = ["so", "my", "fellow", "americans"]
    found = score_words(said, [word.text for word in committed])
    assert [one.said_s for one in word_lateness([0.5, 1.0, 2.3, 30.0], committed, found)] == [0.5, 1.0]


def test_what_is_past_the_common_prefix_was_taken_back() -> None:
    found = word_history(SPOKEN)
    assert found.taken_back == 2  # fell, Americas
    assert found.erasure == pytest.approx(2 / 4)
    assert found.broken == 0


@pytest.mark.parametrize(
    ("displays", "taken_back", "rewritten"),
    [
        (["| a b c", "| a x c", "a x c"], 2, 2),  # c moved behind another word: a reader reads it again
        (["| a b", "|", "a b"], 2, 2),
        (["| Yes well", "| yes, well", "yes, well"], 0, 2),  # only written otherwise
        (["| a", "| a b", "a b"], 0, 0),
        (["a | b", "a", "a"], 1, 1),
    ],
)
def test_words_taken_back_are_counted(displays: list[str], taken_back: int, rewritten: int) -> None:
    found = word_history([shown(display, 1.0 + index) for index, display in enumerate(displays)])
    assert (found.taken_back, found.rewritten) == (taken_back, rewritten)


def test_certain_words_that_have_scrolled_away_are_neither_lost_nor_said_twice() -> None:
    packets = [
        shown("a b", 2.0),
        shown("b c", 30.8, first=1),  # a has been said 30 s ago
        shown("c d", 31.2, first=2),
        shown("", 90.0),
        shown("e", 91.0, first=180),
    ]
    found = word_history(packets)
    assert [word.text for word in found.committed] == ["a", "b", "c", "d", "e"]
    assert (found.taken_back, found.broken) == (0, 0)


def test_a_certain_word_that_changes_is_found_out() -> None:
    found = word_history([shown("a b", 1.0), shown("a c", 2.0)])
    assert (found.broken, found.taken_back) == (1, 1)
    assert [word.text for word in found.committed] == ["a", "b", "c"]  # as one who wrote it down has it
    assert word_history([shown("a b", 1.0), shown("", 2.0)]).broken == 2


def test_one_that_is_written_as_two_words_counts_as_two() -> None:
    found = word_history([shown("ill-disposed", 1.0)])
    assert [(word.text, word.committed_ns) for word in found.committed] == [
        ("ill", 10**9),
        ("disposed", 10**9),
    ]
