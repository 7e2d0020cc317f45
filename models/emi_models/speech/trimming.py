"""Where a growing buffer is cut, so that it stays short whatever is said, and no word falls into the cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emi_models.speech.recognizer import RecognizedWord, Segment

__all__ = ["Cut", "CutKind", "cut_after", "segment_cut", "word_cut"]

CutKind = Literal["segment", "word", "limit"]
BEHIND_WORD_S: Final = 0.2  # the cut comes at most so long after the word that it follows


@dataclass(frozen=True, slots=True)
class Cut:
    """Drop the sound before `at_s`."""

    at_s: float
    kind: CutKind


def segment_cut(
    segments: Sequence[Segment], offset_s: float, certain_end_s: float | None, start_s: float
) -> Cut | None:
    """At the end of the last completed segment all of whose words are certain; None if there is none.

    Args:
        segments: of the hypothesis, timed from `offset_s`.
        offset_s: the time of the hypothesis's first sample.
        certain_end_s: when the last certain word ends.
        start_s: where the buffer begins: a cut there would be none.
    """
    if certain_end_s is None:
        return None
    ends = [
        segment.words[-1].end_s + offset_s
        for segment in segments
        if segment.complete and segment.words and segment.words[-1].end_s + offset_s <= certain_end_s
    ]
    return Cut(ends[-1], "segment") if ends and ends[-1] > start_s else None


def word_cut(
    certain: Sequence[RecognizedWord], tentative: Sequence[RecognizedWord], start_s: float
) -> Cut | None:
    """Behind the last certain word in the buffer; None if there is none."""
    if not certain:
        return None
    at_s = cut_after(certain[-1], tentative)
    return Cut(at_s, "word") if at_s > start_s else None


def cut_after(word: RecognizedWord, following: Sequence[RecognizedWord]) -> float:
    """Behind a word and before the next: in the middle of the pause between them, if there is one."""
    latest = word.end_s + BEHIND_WORD_S
    next_s = next((other.start_s for other in following if other.start_s >= word.start_s), None)
    return word.end_s if next_s is None else min(latest, max(word.end_s, (word.end_s + next_s) / 2))
