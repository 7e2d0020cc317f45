"""Names for the words that are shown, so that a revision can say which word it revises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from emi_models.speech.matching import spoken_form

__all__ = ["Mark", "Transcript"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A word's number, unique in its transcript, and the number of the word whose place it took."""

    number: int
    revises: int | None = None


class Transcript:
    """Numbers the words of successive displays, and counts how much of them was taken back. Pure.

    A word that is shown again keeps its number, whatever its case and punctuation. Erasure is counted as in
    simultaneous translation (Arivazhagan et al. 2020, arXiv:1912.03393, §3): the words that must be taken
    off the end of one display before the next can be written by adding.
    """

    def __init__(self) -> None:
        self._next = 0
        self._open: list[tuple[str, Mark]] = []  # shown last and not certain: spoken form, mark
        self.erased = 0  # words shown and then taken back
        self.certain = 0  # words made certain

    def show(self, certain: Sequence[str], tentative: Sequence[str]) -> tuple[list[Mark], tuple[int, ...]]:
        """The marks of the words that are shown now, and the numbers of those withdrawn without another.

        Args:
            certain: the words that have become certain since the last display.
            tentative: the words after them, which may still change.
        """
        before = [form for form, _ in self._open]
        now = [spoken_form(text) for text in (*certain, *tentative)]
        self.erased += len(before) - _common_prefix(before, now)
        marks: list[Mark] = []
        withdrawn: list[int] = []
        for kind, a0, a1, b0, b1 in SequenceMatcher(None, before, now, autojunk=False).get_opcodes():
            old = [mark for _, mark in self._open[a0:a1]]
            if kind == "equal":
                marks += old
                continue
            marks += [self._new(old[index].number if index < len(old) else None) for index in range(b1 - b0)]
            withdrawn += [mark.number for mark in old[b1 - b0 :]]
        self.certain += len(certain)
        self._open = list(zip(now, marks, strict=True))[len(certain) :]
        return marks, tuple(withdrawn)

    def _new(self, revises: int | None) -> Mark:
        self._next += 1
        return Mark(self._next - 1, revises)


def _common_prefix(before: Sequence[str], now: Sequence[str]) -> int:
    count = 0
    for old, new in zip(before, now, strict=False):
        if old != new:
            break
        count += 1
    return count
