"""Scores of a transcript: word errors, what was shown and taken back, and how late each word was."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from emi_bench.speech.clips import normalise
from emi_live.clock import NS_PER_MS, NS_PER_S
from emi_models.errors import ModelUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from emi_bench.speech.playback import EmittedPacket
    from emi_live.messages import Word

__all__ = [
    "CommittedWord",
    "Display",
    "TextHistory",
    "WordHistory",
    "WordLateness",
    "WordScore",
    "displays",
    "need_jiwer",
    "score_words",
    "text_history",
    "word_history",
    "word_lateness",
]

KEPT_NS: Final = 30 * NS_PER_S  # committed words leave the packets at this age
SAME_NS: Final = NS_PER_S // 2  # between the middles of a word in two hypotheses, whose times differ
SAME_S: Final = 1.0  # from the middle of a recognised word to the true end of the word


@dataclass(frozen=True, slots=True)
class WordScore:
    """Edits, and the words that needed none."""

    words: int  # that were said
    substitutions: int
    deletions: int
    insertions: int
    pairs: tuple[
        tuple[int, int], ...
    ] = ()  # of words recognised rightly: index among the said words, and among the recognised

    @property
    def errors(self) -> int:
        """All edits."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float | None:
        """Word error rate; it may exceed 1. None if nothing was said."""
        return self.errors / self.words if self.words else None


def need_jiwer() -> None:
    """Return if word error rates can be computed.

    Raises:
        ModelUnavailableError: jiwer is not installed.
    """
    try:
        import jiwer  # noqa: F401
    except ImportError as error:
        raise ModelUnavailableError(
            "word error rates need jiwer, which is not installed: pip install 'emi-live[bench]'"
        ) from error


def score_words(said: Sequence[str], recognised: Sequence[str]) -> WordScore:
    """Align by least edits (jiwer); both as `emi_bench.speech.clips.normalise` gives them."""
    from jiwer import process_words

    found = process_words(" ".join(said), " ".join(recognised))
    pairs = [
        pair
        for chunk in found.alignments[0]
        if chunk.type == "equal"
        for pair in zip(
            range(chunk.ref_start_idx, chunk.ref_end_idx),
            range(chunk.hyp_start_idx, chunk.hyp_end_idx),
            strict=True,
        )
    ]
    return WordScore(len(said), found.substitutions, found.deletions, found.insertions, tuple(pairs))


@dataclass(frozen=True, slots=True)
class CommittedWord:
    """One word that will not change, and when it was committed."""

    text: str  # as `normalise` gives it
    middle_ns: int  # of its time span, as the recogniser states it
    committed_ns: int
    seen_ns: int  # when it was first shown, committed or not


@dataclass(slots=True)
class WordHistory:
    """All committed words, in order, and how many words were shown and taken back."""

    committed: list[CommittedWord] = field(default_factory=list)
    text: str = ""  # the same, as the recogniser writes them
    taken_back: int = 0  # words that were shown and then were not, or not at that place
    rewritten: int = 0  # the same, with changes of case and punctuation
    broken: int = 0  # committed words that changed or disappeared: must be 0

    @property
    def erasure(self) -> float | None:
        """Words taken back for each committed word."""
        return self.taken_back / len(self.committed) if self.committed else None


def word_history(shown: Sequence[EmittedPacket]) -> WordHistory:
    """Follow the packets of one clip, in order, as a reader who notes each committed word once.

    A display is all committed words and the partial words after them. A new display takes back the words of
    the display before that come after their longest common prefix.

    Source: normalised erasure, Arivazhagan et al. 2020 (arXiv:2004.03643, §3).
    """
    found = WordHistory()
    said: list[tuple[Word, int]] = []  # committed words, and when they were committed
    window: list[Word] = []  # committed words of the last packet
    tail: list[Word] = []  # its partial words
    first: dict[str, dict[int, int]] = defaultdict(dict)  # by text: middle of a word -> when first shown
    for one in shown:
        committed_now = [word for word in one.packet.words if word.committed]
        partial = [word for word in one.packet.words if not word.committed]
        fresh, broken = _since(window, committed_now, one.packet.t_ns)
        before, after = [*broken, *tail], [*fresh, *partial]
        found.broken += len(broken)
        found.taken_back += _erased(_texts(before), _texts(after))
        found.rewritten += _erased([word.text for word in before], [word.text for word in after])
        said += [(word, one.emitted_ns) for word in fresh]
        window, tail = committed_now, partial
        for word in after:
            for text in normalise(word.text):
                first[text].setdefault(_middle(word), one.emitted_ns)
    found.text = " ".join(word.text for word, _ in said)
    found.committed = [
        CommittedWord(text, _middle(word), at_ns, _first_seen(first[text], _middle(word)))
        for word, at_ns in said
        for text in normalise(word.text)
    ]
    return found


def _since(before: Sequence[Word], now: Sequence[Word], t_ns: int) -> tuple[Sequence[Word], list[Word]]:
    """The committed words that are new, and those that are missing too early."""
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
    return [text for word in words for text in normalise(word.text)]


def _middle(word: Word) -> int:
    return (word.start_ns + word.end_ns) // 2


def _first_seen(times: dict[int, int], middle_ns: int) -> int:
    return min(at_ns for middle, at_ns in times.items() if abs(middle - middle_ns) <= SAME_NS)


@dataclass(frozen=True, slots=True)
class WordLateness:
    """Of one word, in milliseconds since its end; negative: it was guessed before its end."""

    said_s: float  # when it ended
    seen_ms: float  # first shown, committed or not
    committed_ms: float  # committed


def word_lateness(
    ends_s: Sequence[float | None], committed: Sequence[CommittedWord], found: WordScore
) -> list[WordLateness]:
    """The lateness of each committed word that is right and has a known time, in order.

    Args:
        ends_s: when each word that was said ended; None: unknown.
        committed: the recognised words.
        found: the alignment of the two. If few words are right, some are paired by chance: words recognised
            more than a second from where they were said are left out.
    """
    late = []
    for said, recognised in found.pairs:
        word, end_s = committed[recognised], ends_s[said]
        if end_s is not None and abs(word.middle_ns / NS_PER_S - end_s) <= SAME_S:
            end_ms = end_s * 1e3
            late.append(
                WordLateness(end_s, word.seen_ns / NS_PER_MS - end_ms, word.committed_ns / NS_PER_MS - end_ms)
            )
    return late


@dataclass(frozen=True, slots=True)
class Display:
    """What a reader sees from `at_s` on: all committed text, and the text after it that may change."""

    at_s: float  # since the first sample was captured
    committed: str
    partial: str


def displays(shown: Sequence[EmittedPacket]) -> list[Display]:
    """The packets of one clip, in order, as a reader sees them: committed words stay."""
    found: list[Display] = []
    said: list[str] = []
    window: list[Word] = []
    for one in shown:
        now = [word for word in one.packet.words if word.committed]
        fresh, _ = _since(window, now, one.packet.t_ns)
        said += [word.text for word in fresh]
        window = now
        partial = " ".join(word.text for word in one.packet.words if not word.committed)
        found.append(Display(one.emitted_ns / NS_PER_S, " ".join(said), partial))
    return found


@dataclass(frozen=True, slots=True)
class TextHistory:
    """All committed words, in order, from displays alone: some systems give no times of words."""

    words: list[str]  # as `normalise` gives them
    committed_s: list[float]  # since when each of them was committed and did not change any more
    seen_s: list[float]  # when it was first shown at this place, committed or not
    taken_back: int  # words that were shown and then were not, or not at that place
    broken: int  # of these, words that were committed

    @property
    def erasure(self) -> float | None:
        """Words taken back for each committed word."""
        return self.taken_back / len(self.words) if self.words else None


def text_history(shown: Iterable[Display]) -> TextHistory:
    """Follow displays in order. The place of a word is its number in the display.

    Erasure is that of `word_history`; a word that was first shown at another place, because a word before it
    came or went, counts as first shown at its last place.
    """
    words: list[str] = []
    committed_s: list[float] = []
    before: list[str] = []
    first: dict[tuple[int, str], float] = {}
    taken_back = broken = 0
    for one in shown:
        now = normalise(one.committed)
        gone = _erased(words, now)
        broken += gone
        kept = len(words) - gone
        committed_s = committed_s[:kept] + [one.at_s] * (len(now) - kept)
        words = now
        display = [*now, *normalise(one.partial)]
        taken_back += _erased(before, display)
        before = display
        for place in enumerate(display):
            first.setdefault(place, one.at_s)
    seen_s = [first[place] for place in enumerate(words)]
    return TextHistory(words, committed_s, seen_s, taken_back, broken)
