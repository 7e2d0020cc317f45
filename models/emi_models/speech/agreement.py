"""When a word is committed, and where the audio buffer is cut.

A word is committed when consecutive hypotheses agree on it (LocalAgreement), or when enough audio follows
it. Committed words are found in the next hypothesis by their text, because their times change. The buffer is
cut between words, so that it stays short and no word is cut in two.
"""

from __future__ import annotations

import re
import string
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import takewhile
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from emi_models.speech.recognizer import RecognizedWord

__all__ = [
    "AlignmentEdge",
    "CommitRule",
    "Cut",
    "CutKind",
    "LocalAgreement",
    "Match",
    "limit_cut",
    "match",
    "spoken_form",
    "word_cut",
]

# Of Chinese and Japanese: two commas, full stop, exclamation mark, colon, question mark.
CJK: Final = "\u3001\uff0c\u3002\uff01\uff1a\uff1f"
EDGES: Final = string.punctuation + string.whitespace + "\u2018\u2019\u201c\u201d\u2013\u2014…¿¡" + CJK


def spoken_form(text: str) -> str:
    """A word without case and punctuation, which recognisers change from one hypothesis to the next."""
    return text.casefold().strip(EDGES)


MOVED_S: Final = 1.0  # if its time differs by more, it is another occurrence of the same word
UNIT: Final = re.compile(r"\d|[^\W\d_]+(?:['\u2019][^\W\d_]+)*")


def units(text: str) -> list[tuple[str, int]]:
    """The parts of a word that are compared, and where each begins: single digits, and runs of letters.

    A recogniser writes a number that is not finished as "415", then as "415-555", then as "4155552671".
    """
    found = [(match[0].casefold(), match.start()) for match in UNIT.finditer(text)]
    return found or [(spoken_form(text), 0)]


@dataclass(frozen=True, slots=True)
class Match:
    """A hypothesis aligned with the committed words of the same audio.

    Attributes:
        count: how many words at its start repeat the committed words.
        words: the hypothesis. A word that is committed only in part is split in two.
        retimed: the committed words; those that the hypothesis repeats in full have its times.
    """

    count: int
    words: tuple[RecognizedWord, ...]
    retimed: tuple[RecognizedWord, ...]


def match(committed: Sequence[RecognizedWord], words: Sequence[RecognizedWord], begin_s: float) -> Match:
    """Find the prefix of `words` with the least edit distance to `committed`; of equals, the nearest in time.

    The parts of a word share its weight, so "15" in place of "fifteen" costs one word. A word is split only
    if it begins with a committed word: "415-555" after "415", but not "50" after "15".

    Args:
        committed: words, in order of time.
        words: the hypothesis, in order of time.
        begin_s: when the audio of both begins.
    """
    if not committed:
        return Match(0, tuple(words), ())
    said, found = _units_of(committed), _units_of(words)
    table = _EditTable(said, found)
    end_s = committed[-1].end_s

    def distance(count: int) -> tuple[float, float]:
        if 0 < count < len(found) and found[count].place == found[count - 1].place:
            at_s = found[count].begin_s
        elif count:
            at_s = found[count - 1].word.end_s
        else:
            at_s = words[0].start_s if words else begin_s
        return round(table.edits[count][len(said)], 6), abs(at_s - end_s)

    covered = min(filter(table.may_end, range(len(found) + 1)), key=distance)
    times: dict[int, list[RecognizedWord]] = {}  # committed word: the words of the hypothesis that repeat it
    for i, j in table.pairs(covered):
        if found[i].form == said[j].form:
            times.setdefault(said[j].place, []).append(found[i].word)
    retimed = [
        _retimed(word, times.get(place, []), len(units(word.text))) for place, word in enumerate(committed)
    ]
    return _divided(words, found, covered, retimed)


def _retimed(word: RecognizedWord, found: Sequence[RecognizedWord], parts: int) -> RecognizedWord:
    """The committed word with the times of the words that repeat it, if all its parts were found nearby.

    In all other cases it keeps its times. "1250" in place of "1200" ends later, and a sentence that was said
    twice may be found once: a cut at these times would lose new words or keep old ones.
    """
    if len(found) < parts or abs(found[0].start_s - word.start_s) > MOVED_S:
        return word
    return replace(word, start_s=found[0].start_s, end_s=found[-1].end_s)


def _divided(
    words: Sequence[RecognizedWord], found: Sequence[_Unit], covered: int, retimed: list[RecognizedWord]
) -> Match:
    """The match in which the first `covered` units of the hypothesis repeat what is committed."""
    if covered == len(found):
        return Match(len(words), tuple(words), tuple(retimed))
    following = found[covered]
    place, word, at_s = following.place, following.word, following.begin_s
    if not covered or found[covered - 1].place != place:
        return Match(place, tuple(words), tuple(retimed))
    parts = (
        replace(word, text=word.text[: following.at], end_s=at_s),
        replace(word, text=word.text[following.at :], start_s=at_s),
    )
    retimed = [replace(one, start_s=min(one.start_s, at_s), end_s=min(one.end_s, at_s)) for one in retimed]
    return Match(place + 1, (*words[:place], *parts, *words[place + 1 :]), tuple(retimed))


@dataclass(frozen=True, slots=True)
class _Unit:
    """A part of a word: its form, which word, where in its text, the word, and its share of an edit."""

    form: str
    place: int
    at: int
    word: RecognizedWord
    weight: float

    @property
    def begin_s(self) -> float:
        """When it begins, if each letter of the word takes the same time."""
        part = self.at / max(1, len(self.word.text))
        return self.word.start_s + part * (self.word.end_s - self.word.start_s)


def _units_of(words: Sequence[RecognizedWord]) -> list[_Unit]:
    return [
        _Unit(form, place, at, word, 1 / len(parts))
        for place, word in enumerate(words)
        for parts in [units(word.text)]
        for form, at in parts
    ]


class _EditTable:
    """Edit distances: `edits[i][j]` is that of the first i units found and the first j said, in words."""

    def __init__(self, said: Sequence[_Unit], found: Sequence[_Unit]) -> None:
        self._said, self._found = said, found
        row = [0.0]
        for one in said:
            row.append(row[-1] + one.weight)
        self.edits = [row]
        for i, unit in enumerate(found):
            before, row = self.edits[-1], [self.edits[-1][0] + unit.weight]
            for j, one in enumerate(said):
                row.append(
                    min(before[j + 1] + unit.weight, row[j] + one.weight, before[j] + self._changed(i, j))
                )
            self.edits.append(row)

    def _changed(self, i: int, j: int) -> float:
        unit, one = self._found[i], self._said[j]
        return 0.0 if unit.form == one.form else min(unit.weight, one.weight)

    def pairs(self, count: int) -> list[tuple[int, int]]:
        """Pairs (found, said) of units that are aligned, in order: the first `count` found and all said."""
        edits, pairs = self.edits, []
        i, j = count, len(self._said)
        while i or j:
            if i and j and edits[i][j] == edits[i - 1][j - 1] + self._changed(i - 1, j - 1):
                i, j = i - 1, j - 1
                pairs.append((i, j))
            elif j and edits[i][j] == edits[i][j - 1] + self._said[j - 1].weight:
                j -= 1
            else:
                i -= 1
        return pairs[::-1]

    def may_end(self, count: int) -> bool:
        """Whether the committed text may end before this unit: between words, or within a continued word."""
        found, said = self._found, self._said
        if not 0 < count < len(found) or found[count].place != found[count - 1].place:
            return True
        first = next(i for i, unit in enumerate(found) if unit.place == found[count].place)
        return any(
            i == first and found[i].form == said[j].form and (not j or said[j].place != said[j - 1].place)
            for i, j in self.pairs(count)
        )


ECHO_S: Final = 0.3  # a word this close to a cut may be the rest of the word before the cut


class CommitRule(ABC):
    """Commits a prefix of each hypothesis. Pure: no audio, no clock.

    Committed words never change. A hypothesis covers all audio in the buffer, so it begins with words that
    are committed already: `match` counts them, and `insert` takes the words after them. Committed words whose
    audio is still in the buffer get the times of the newest hypothesis, because each hypothesis times them
    again.
    """

    def __init__(self, depth: int) -> None:
        """Keep the last `depth` hypotheses."""
        self._recent: deque[tuple[RecognizedWord, ...]] = deque(maxlen=depth)
        self.reset()

    @abstractmethod
    def _count(self, end_s: float) -> int:
        """How many of the partial words to commit; the audio ends at `end_s`."""

    @property
    def partial(self) -> tuple[RecognizedWord, ...]:
        """The words of the newest hypothesis that are not committed."""
        return self._recent[-1] if self._recent else ()

    @property
    def in_buffer(self) -> tuple[RecognizedWord, ...]:
        """The committed words whose audio is still in the buffer."""
        return tuple(self._committed)

    def reset(self) -> None:
        """Forget all words, as at the start of an utterance."""
        self._committed: list[RecognizedWord] = []
        self._echo: RecognizedWord | None = None  # the committed word just before the buffer's first sample
        self._cut_s = 0.0
        self._recent.clear()

    def match(self, words: Sequence[RecognizedWord]) -> tuple[int, tuple[RecognizedWord, ...]]:
        """How many words at the start of the next hypothesis are committed already, and all its words.

        Args:
            words: the hypothesis, in order of time. A word that is committed in part is split in the result.
        """
        found = match(self._committed, words, self._cut_s)
        self._committed = list(found.retimed)
        said = found.count
        if not self._committed and self._echo is not None and words:
            first = words[0]
            echoes = spoken_form(first.text) == spoken_form(self._echo.text)
            said = int(echoes and first.start_s - self._cut_s < ECHO_S)
        return said, found.words

    def insert(
        self, words: Sequence[RecognizedWord], end_s: float, *, last: bool = False
    ) -> list[RecognizedWord]:
        """Take the words of a hypothesis after the committed ones; return the words that are now committed.

        Args:
            words: the words after those that `match` counted; guards may have removed some.
            end_s: when the buffer ends, by the clock of the words.
            last: no audio follows, so all words are committed.
        """
        self._recent.append(tuple(words))
        return self._commit(len(words) if last else self._count(end_s))

    def force(self, until_s: float) -> list[RecognizedWord]:
        """Commit the partial words that end by `until_s`, although not all hypotheses agree on them.

        At least half of them must be in the hypothesis before as well. Words after the last one that both
        have are not committed: what a recogniser invents in noise, it does not repeat.
        """
        words = list(takewhile(lambda word: word.end_s <= until_s, self.partial))
        if len(self._recent) < 2:
            return self._commit(len(words))
        before, now = ([spoken_form(word.text) for word in one] for one in (self._recent[-2], words))
        blocks = SequenceMatcher(None, before, now, autojunk=False).get_matching_blocks()
        if 2 * sum(block.size for block in blocks) < len(words):
            return []
        return self._commit(max((block.b + block.size for block in blocks if block.size), default=0))

    def cut(self, gone: int, at_s: float) -> list[RecognizedWord]:
        """Note that the audio before `at_s` is gone, with the first `gone` committed words; return these."""
        said, self._committed = self._committed[:gone], self._committed[gone:]
        self._echo = said[-1] if said else self._echo
        self._cut_s = at_s
        return said

    def _commit(self, count: int) -> list[RecognizedWord]:
        """Commit the first `count` partial words, and forget hypotheses that begin with other words."""
        committed = list(self.partial[:count])
        if committed:
            self._committed += committed
            agree = [words[count:] for words in self._recent if _shared(committed, words) == count]
            self._recent.clear()
            self._recent.extend(agree)
        return committed


class LocalAgreement(CommitRule):
    """Commits the longest prefix on which the last `hypotheses` agree.

    If two must agree, one between them may differ: Whisper makes each hypothesis from scratch, and after a
    cut it may alternate between two readings.

    Source: Liu et al. 2020 (doi:10.21437/Interspeech.2020-2897), LA-n; for Whisper Macháček et al. 2023
    (arXiv:2307.14743, §3).
    """

    def __init__(self, hypotheses: int = 2) -> None:
        """`hypotheses`: how many must agree, at least 1."""
        self._depth = hypotheses
        super().__init__(_remembered(hypotheses))

    def deepen(self, hypotheses: int) -> None:
        """From now on, this many hypotheses must agree. Those that are kept still count."""
        self._depth = hypotheses
        self._recent = deque(self._recent, maxlen=_remembered(hypotheses))

    def _count(self, end_s: float) -> int:
        *before, newest = self._recent
        shared = sorted((_shared(newest, words) for words in before), reverse=True)
        if len(shared) < self._depth - 1:
            return 0
        agreed = shared[self._depth - 2] if self._depth > 1 else len(newest)
        if 0 < agreed == len(newest) and any(map(str.isdigit, newest[-1].text)):
            agreed -= 1  # a number may still continue
        return agreed


def _remembered(hypotheses: int) -> int:
    return 3 if hypotheses == 2 else hypotheses


def _shared(one: Sequence[RecognizedWord], other: Sequence[RecognizedWord]) -> int:
    """How many words both begin with."""
    pairs = zip(one, other, strict=False)
    return sum(
        1 for _ in takewhile(lambda pair: spoken_form(pair[0].text) == spoken_form(pair[1].text), pairs)
    )


class AlignmentEdge(CommitRule):
    """Commits the words that end at least `edge_s` before the audio ends, by the recogniser's times.

    AlignAtt decides while it decodes, from the frame that each token attends to most. This class decides
    after decoding, from the word times that the same attention gives. So it saves the second hypothesis, not
    the decoding.

    Source: Papi et al. 2023 (arXiv:2305.11408); for Whisper Macháček & Polák 2025 (arXiv:2506.17077).
    """

    def __init__(self, edge_s: float = 0.5) -> None:
        """`edge_s`: words that end within so many seconds of the end of the audio stay partial."""
        super().__init__(1)
        self._edge_s = edge_s

    def _count(self, end_s: float) -> int:
        count = 0
        for word in self.partial:
            if word.end_s > end_s - self._edge_s:
                break
            count += 1
        return count


CutKind = Literal["word", "limit"]
OVER_S: Final = 0.5  # a word is finished when so much audio follows it
BEHIND_WORD_S: Final = 0.2  # a cut is at most so long after the word before it
KEPT_S: Final = 2.0  # at the buffer's limit so much audio is kept: the longest word that may be unfinished


@dataclass(frozen=True, slots=True)
class Cut:
    """Drop the audio before `at_s`, and with it the first `gone` committed words in the buffer."""

    at_s: float
    kind: CutKind
    gone: int


def word_cut(rule: CommitRule, end_s: float, kind: CutKind = "word") -> Cut | None:
    """A cut behind the last finished committed word; None if there is none. The audio ends at `end_s`.

    A word at the end of the audio may have been guessed before it was spoken.
    """
    committed = rule.in_buffer
    count = sum(1 for _ in takewhile(lambda word: word.end_s <= end_s - OVER_S, committed))
    if not count:
        return None
    following = (*committed[count:], *rule.partial)
    return Cut(_behind(committed[count - 1], following), kind, count)


def limit_cut(rule: CommitRule, start_s: float, end_s: float) -> Cut:
    """A cut of a full buffer without a committed word: in its second half, before the partial words."""
    starts = [word.start_s for word in rule.partial]
    at_s = max((start_s + end_s) / 2, min([end_s - KEPT_S, *starts]))
    return Cut(at_s, "limit", sum(word.end_s <= at_s for word in rule.in_buffer))


def _behind(word: RecognizedWord, following: Sequence[RecognizedWord]) -> float:
    """When to cut between a word and the next: in the middle, also if their times overlap."""
    if not following:
        return word.end_s
    return min(word.end_s + BEHIND_WORD_S, max(word.start_s, (word.end_s + following[0].start_s) / 2))
