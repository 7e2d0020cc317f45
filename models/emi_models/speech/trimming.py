"""Where a growing buffer is cut, so that it stays short whatever is said, and no word falls into the cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emi_models.speech.agreement import CommitRule
    from emi_models.speech.recognizer import RecognizedWord, Segment

__all__ = ["Cut", "CutKind", "limit_cut", "segment_cut", "word_cut"]

CutKind = Literal["segment", "word", "limit"]
BEHIND_WORD_S: Final = 0.2  # the cut comes at most so long after the word that it follows
KEPT_S: Final = 2.0  # of sound without a word, at the last resort: the longest word under way


@dataclass(frozen=True, slots=True)
class Cut:
    """Drop the sound before `at_s`, and with it the first `gone` certain words in the buffer."""

    at_s: float
    kind: CutKind
    gone: int


def segment_cut(segments: Sequence[Segment], rule: CommitRule) -> Cut | None:
    """Behind the last completed segment of the newest hypothesis without a word that is open; or None."""
    words = [word for segment in segments for word in segment.words]
    count, cut = 0, None
    for segment in segments:
        count += len(segment.words)
        gone = rule.settled(count)
        if gone is None:
            break
        if segment.complete and segment.words and gone:
            cut = Cut(_behind(segment.words[-1], words[count:]), "segment", gone)
    return cut


def word_cut(rule: CommitRule, kind: CutKind = "word") -> Cut | None:
    """Behind the last certain word in the buffer; None if there is none."""
    certain = rule.in_buffer
    if not certain:
        return None
    return Cut(_behind(certain[-1], rule.tentative), kind, len(certain))


def limit_cut(rule: CommitRule, start_s: float, end_s: float) -> Cut:
    """Of a full buffer without a certain word to cut behind: in its second half, before the open words."""
    starts = [word.start_s for word in rule.tentative]
    at_s = max((start_s + end_s) / 2, min([end_s - KEPT_S, *starts]))
    return Cut(at_s, "limit", sum(word.end_s <= at_s for word in rule.in_buffer))


def _behind(word: RecognizedWord, following: Sequence[RecognizedWord]) -> float:
    """Behind a word and before the next: in the middle between them, which may have been timed to overlap."""
    if not following:
        return word.end_s
    return min(word.end_s + BEHIND_WORD_S, max(word.start_s, (word.end_s + following[0].start_s) / 2))
