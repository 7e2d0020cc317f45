"""How late words are, of those that were heard rightly: from the end of a word to when it was shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emi_live.clock import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emi_bench.speech.history import CommittedWord
    from emi_bench.speech.score import Score

__all__ = ["Lateness", "lateness"]

SAME_S: Final = 1.0  # from the middle of a word, as it was heard, to its end, as it was said


@dataclass(frozen=True, slots=True)
class Lateness:
    """Of one word, in milliseconds since it had been said; negative: it was guessed before its end."""

    said_s: float  # when it ended
    seen_ms: float  # first shown, certain or not
    committed_ms: float  # became certain


def lateness(
    ends_s: Sequence[float | None], committed: Sequence[CommittedWord], found: Score
) -> list[Lateness]:
    """Of each word that became certain, is what was said, and has a known time, in order.

    Args:
        ends_s: when each word that was said ended; None: not known.
        committed: what was heard.
        found: the alignment of the two. Where hardly a word is right it pairs some by chance: those that were
            heard more than a second from where they were said are left out.
    """
    late = []
    for said, heard in found.pairs:
        word, end_s = committed[heard], ends_s[said]
        if end_s is not None and abs(word.middle_ns / NS_PER_S - end_s) <= SAME_S:
            end_ms = end_s * 1e3
            late.append(
                Lateness(end_s, word.seen_ns / NS_PER_MS - end_ms, word.committed_ns / NS_PER_MS - end_ms)
            )
    return late
