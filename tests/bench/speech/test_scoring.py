from __future__ import annotations

import pytest

from emi_bench.speech.clips import normalise
from emi_bench.speech.scoring import score_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("And so, my fellow Americans:", "and so my fellow americans"),
        ("an ill-disposed man \u2013 don\u2019t!", "an ill disposed man don't"),
        ("'Tis the dogs' 3 ... 12 13", "tis the dogs three twelve 13"),
        ("Mr. Dashwood and Mrs Grey", "mister dashwood and missus grey"),
        ("Größe, naïve", "grösse naïve"),
        (" — …", ""),
    ],
)
def test_words_are_compared_without_case_and_punctuation(text: str, words: str) -> None:
    assert normalise(text) == words.split()


def test_words_are_aligned_by_least_edits() -> None:
    said = normalise("ask not what your country can do")
    found = score_words(said, normalise("and ask what are country can can do"))
    assert (found.words, found.substitutions, found.deletions, found.insertions) == (7, 1, 1, 2)
    assert found.rate == pytest.approx(4 / 7)
    pairs = {("ask", 1), ("what", 2), ("country", 4), ("do", 7)}
    assert pairs <= {(said[one], other) for one, other in found.pairs}
    assert len(found.pairs) == 5


def test_what_was_not_said_or_not_heard_has_a_score_too() -> None:
    nothing_said, nothing_heard = (
        score_words([], ["thanks", "for", "watching"]),
        score_words(["yes", "no"], []),
    )
    assert (nothing_said.insertions, nothing_said.rate) == (3, None)
    assert (nothing_heard.deletions, nothing_heard.rate) == (2, 1.0)
    assert score_words([], []).errors == 0
