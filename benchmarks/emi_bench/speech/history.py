"""What a reader of the words saw, from the first packet to the last."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from emi_bench.speech.words import spoken
from emi_live.clock import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from emi_bench.speech.drive import Shown
    from emi_live.messages import Word

__all__ = ["CommittedWord", "History", "history_of"]

KEPT_NS: Final = 30 * NS_PER_S  # committed words leave the packets when they are as old
SAME_NS: Final = NS_PER_S // 2  # between the middles of a word in two hypotheses, which time it anew


@dataclass(frozen=True, slots=True)
class CommittedWord:
    """One spoken word that will not change, and when that was known."""

    text: str  # as `spoken` has it
    middle_ns: int  # of the time in which it was said, by the recogniser
    committed_ns: int
    seen_ns: int  # when it was first shown, certain or not


@dataclass(slots=True)
class History:
    """All words that became certain, in order, and how often the reader was shown others."""

    committed: list[CommittedWord] = field(default_factory=list)
    text: str = ""  # the same as the recogniser writes them
    taken_back: int = 0  # words that were shown and then were not, or not at that place any more
    rewritten: int = 0  # the same, as written: case and punctuation count too
    broken: int = 0  # words that were said to be certain, and then changed or went: must be 0

    @property
    def erasure(self) -> float | None:
        """Words taken back for each that became certain."""
        return self.taken_back / len(self.committed) if self.committed else None


def history_of(shown: Sequence[Shown]) -> History:
    """Follow the packets of one clip, in order, as a reader who writes down what is certain, once.

    A display is all certain words and the partial ones behind them. What a new display takes back of the one
    before are its words past the longest prefix that both have in common.

    Source: normalised erasure, Arivazhagan et al. 2020 (arXiv:2004.03643, §3).
    """
    found = History()
    said: list[tuple[Word, int]] = []  # certain words, and when they became so
    window: list[Word] = []  # those of the last packet
    tail: list[Word] = []  # its partial words
    first: dict[str, dict[int, int]] = defaultdict(dict)  # by text: middle of a word -> when first shown
    for one in shown:
        certain = [word for word in one.packet.words if word.committed]
        partial = [word for word in one.packet.words if not word.committed]
        fresh, broken = _since(window, certain, one.packet.t_ns)
        before, after = [*broken, *tail], [*fresh, *partial]
        found.broken += len(broken)
        found.taken_back += _erased(_texts(before), _texts(after))
        found.rewritten += _erased([word.text for word in before], [word.text for word in after])
        said += [(word, one.emitted_ns) for word in fresh]
        window, tail = certain, partial
        for word in after:
            for text in spoken(word.text):
                first[text].setdefault(_middle(word), one.emitted_ns)
    found.text = " ".join(word.text for word, _ in said)
    found.committed = [
        CommittedWord(text, _middle(word), at_ns, _first_seen(first[text], _middle(word)))
        for word, at_ns in said
        for text in spoken(word.text)
    ]
    return found


def _since(before: Sequence[Word], now: Sequence[Word], t_ns: int) -> tuple[Sequence[Word], list[Word]]:
    """The certain words that were not there before, and those that should be there still and are not."""
    start = before.index(now[0]) if now and now[0] in before else len(before)
    kept = 0
    for old, new in zip(before[start:], now, strict=False):
        if old != new:
            break
        kept += 1
    gone = [*before[:start], *before[start + kept :]]
    return now[kept:], [word for word in gone if word.end_ns > t_ns - KEPT_NS]


def _erased(before: Sequence[str], after: Sequence[str]) -> int:
    common = 0
    for old, new in zip(before, after, strict=False):
        if old != new:
            break
        common += 1
    return len(before) - common


def _texts(words: Iterable[Word]) -> list[str]:
    return [text for word in words for text in spoken(word.text)]


def _middle(word: Word) -> int:
    return (word.start_ns + word.end_ns) // 2


def _first_seen(times: dict[int, int], middle_ns: int) -> int:
    return min(at_ns for middle, at_ns in times.items() if abs(middle - middle_ns) <= SAME_NS)
