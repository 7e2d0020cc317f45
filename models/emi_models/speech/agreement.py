"""When a word is committed, and where the sound behind committed words is cut.

A word is committed once consecutive hypotheses agree on it (LocalAgreement), or once enough sound follows
it. Committed words are found again in the next hypothesis by their text, since their times move. The buffer
is cut between words, so that it stays short and no word is cut in two.
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
    """What is compared of a word: not case and punctuation, of which recognisers change their minds."""
    return text.casefold().strip(EDGES)


MOVED_S: Final = 1.0  # further than this, a word is another one that says the same
UNIT: Final = re.compile(r"\d|[^\W\d_]+(?:['\u2019][^\W\d_]+)*")


def units(text: str) -> list[tuple[str, int]]:
    """The parts that two spellings of a word share, and where each begins in it: digits, and parts of words.

    A recogniser writes a number that is still being said as "415", then as "415-555", then as "4155552671".
    """
    found = [(match[0].casefold(), match.start()) for match in UNIT.finditer(text)]
    return found or [(spoken_form(text), 0)]


@dataclass(frozen=True, slots=True)
class Match:
    """A hypothesis next to the certain words of the same sound.

    Attributes:
        count: how many of its words, at its beginning, say what is certain.
        words: the hypothesis; a word that goes on where the certain ones end is split in two there.
        retimed: the certain words, timed as the hypothesis has those that it repeats in full.
    """

    count: int
    words: tuple[RecognizedWord, ...]
    retimed: tuple[RecognizedWord, ...]


def match(certain: Sequence[RecognizedWord], words: Sequence[RecognizedWord], begin_s: float) -> Match:
    """Find the start of `words` that is nearest to `certain`, in edits; of equals, the nearest in time.

    The parts of a word share its weight, so that "15" in place of "fifteen" is one word of difference. A word
    is split only where the part before the split continues a certain word from its beginning: "415-555" after
    "415", but not "50" after "15".

    Args:
        certain: words, in order of time.
        words: the hypothesis, in order of time.
        begin_s: where the sound of both begins.
    """
    if not certain:
        return Match(0, tuple(words), ())
    said, found = _units_of(certain), _units_of(words)
    table = _Table(said, found)
    end_s = certain[-1].end_s

    def distance(count: int) -> tuple[float, float]:
        if 0 < count < len(found) and found[count].place == found[count - 1].place:
            at_s = found[count].begin_s
        elif count:
            at_s = found[count - 1].word.end_s
        else:
            at_s = words[0].start_s if words else begin_s
        return round(table.edits[count][len(said)], 6), abs(at_s - end_s)

    covered = min(filter(table.may_end, range(len(found) + 1)), key=distance)
    times: dict[int, list[RecognizedWord]] = {}  # of certain words: those of the hypothesis that repeat them
    for i, j in table.pairs(covered):
        if found[i].form == said[j].form:
            times.setdefault(said[j].place, []).append(found[i].word)
    retimed = [
        _retimed(word, times.get(place, []), len(units(word.text))) for place, word in enumerate(certain)
    ]
    return _divided(words, found, covered, retimed)


def _retimed(word: RecognizedWord, found: Sequence[RecognizedWord], parts: int) -> RecognizedWord:
    """A certain word, timed as the words are in which so many of its parts were found, if that is it.

    "1250" in place of "1200" goes on after it, and a sentence that was said twice may be found once: behind
    their times, a cut would lose what comes next, or keep what was said.
    """
    if len(found) < parts or abs(found[0].start_s - word.start_s) > MOVED_S:
        return word
    return replace(word, start_s=found[0].start_s, end_s=found[-1].end_s)


def _divided(
    words: Sequence[RecognizedWord], found: Sequence[_Unit], covered: int, retimed: list[RecognizedWord]
) -> Match:
    """The match in which the first `covered` units of the hypothesis say what is certain."""
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
        """When it begins, if all letters of the word take the same time."""
        part = self.at / max(1, len(self.word.text))
        return self.word.start_s + part * (self.word.end_s - self.word.start_s)


def _units_of(words: Sequence[RecognizedWord]) -> list[_Unit]:
    return [
        _Unit(form, place, at, word, 1 / len(parts))
        for place, word in enumerate(words)
        for parts in [units(word.text)]
        for form, at in parts
    ]


class _Table:
    """Least edits between the first i units found and the first j said, at `edits[i][j]`, in words."""

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
        """Which of the first `count` units found stand for which of all that were said, in order."""
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
        """Whether what is certain may end before this unit: between words, or in one that began with it."""
        found, said = self._found, self._said
        if not 0 < count < len(found) or found[count].place != found[count - 1].place:
            return True
        first = next(i for i, unit in enumerate(found) if unit.place == found[count].place)
        return any(
            i == first and found[i].form == said[j].form and (not j or said[j].place != said[j - 1].place)
            for i, j in self.pairs(count)
        )


ECHO_S: Final = 0.3  # a word this close to a cut may be what the cut left of the last word before it


class CommitRule(ABC):
    """Commits a prefix of each hypothesis. Pure: it knows no sound and no clock.

    What is committed is never changed or taken back. A hypothesis is of all the sound in the buffer, so it
    begins with words that are certain already: `match` finds how many, `insert` takes those that come after.
    Certain words whose sound is still in the buffer are timed as the newest hypothesis has them, since
    recognisers time a word again in each.
    """

    def __init__(self, depth: int) -> None:
        """Remember `depth` hypotheses."""
        self._recent: deque[tuple[RecognizedWord, ...]] = deque(maxlen=depth)
        self.reset()

    @abstractmethod
    def _count(self, end_s: float) -> int:
        """How many of the tentative words are certain, the sound ending at `end_s`."""

    @property
    def tentative(self) -> tuple[RecognizedWord, ...]:
        """The words of the newest hypothesis that are not certain."""
        return self._recent[-1] if self._recent else ()

    @property
    def in_buffer(self) -> tuple[RecognizedWord, ...]:
        """The certain words whose sound has not been cut off."""
        return tuple(self._certain)

    def reset(self) -> None:
        """Forget all words, as at the start of an utterance."""
        self._certain: list[RecognizedWord] = []
        self._echo: RecognizedWord | None = None  # the certain word just before the buffer's first sample
        self._cut_s = 0.0
        self._recent.clear()

    def match(self, words: Sequence[RecognizedWord]) -> tuple[int, tuple[RecognizedWord, ...]]:
        """How many of the next hypothesis's words say what is certain already, and these words.

        Args:
            words: the hypothesis, in order of time; a word that is certain in part is split in the result.
        """
        found = match(self._certain, words, self._cut_s)
        self._certain = list(found.retimed)
        said = found.count
        if not self._certain and self._echo is not None and words:
            first = words[0]
            echoes = spoken_form(first.text) == spoken_form(self._echo.text)
            said = int(echoes and first.start_s - self._cut_s < ECHO_S)
        return said, found.words

    def insert(
        self, words: Sequence[RecognizedWord], end_s: float, *, last: bool = False
    ) -> list[RecognizedWord]:
        """Take what a hypothesis says beyond what is certain; the words that it makes certain.

        Args:
            words: those of the hypothesis from `match` on; guards may have left some out.
            end_s: where the buffer ends, by the clock of the words.
            last: no sound comes after it: all its words are certain.
        """
        self._recent.append(tuple(words))
        return self._commit(len(words) if last else self._count(end_s))

    def force(self, until_s: float) -> list[RecognizedWord]:
        """Make certain the tentative words that end by then, though not all hypotheses agree on them.

        At least half of them must be in the hypothesis before too, and none come after the last of these:
        what a recogniser invents in a noise, it does not say twice.
        """
        words = list(takewhile(lambda word: word.end_s <= until_s, self.tentative))
        if len(self._recent) < 2:
            return self._commit(len(words))
        before, now = ([spoken_form(word.text) for word in one] for one in (self._recent[-2], words))
        blocks = SequenceMatcher(None, before, now, autojunk=False).get_matching_blocks()
        if 2 * sum(block.size for block in blocks) < len(words):
            return []
        return self._commit(max((block.b + block.size for block in blocks if block.size), default=0))

    def cut(self, gone: int, at_s: float) -> list[RecognizedWord]:
        """The sound before `at_s`, and with it the first `gone` certain words, will not be heard again."""
        said, self._certain = self._certain[:gone], self._certain[gone:]
        self._echo = said[-1] if said else self._echo
        self._cut_s = at_s
        return said

    def _commit(self, count: int) -> list[RecognizedWord]:
        """Make certain the first `count` tentative words; hypotheses that have other ones are forgotten."""
        certain = list(self.tentative[:count])
        if certain:
            self._certain += certain
            agree = [words[count:] for words in self._recent if _shared(certain, words) == count]
            self._recent.clear()
            self._recent.extend(agree)
        return certain


class LocalAgreement(CommitRule):
    """Commits the longest prefix on which the last `hypotheses` agree.

    If two are to agree, one between them may say something else: Whisper makes each hypothesis from scratch,
    and behind a cut it may change between two readings each time.

    Source: Liu et al. 2020 (doi:10.21437/Interspeech.2020-2897), LA-n; for Whisper Macháček et al. 2023
    (arXiv:2307.14743, §3).
    """

    def __init__(self, hypotheses: int = 2) -> None:
        """Commit what so many hypotheses (at least 1) have said alike."""
        self._depth = hypotheses
        super().__init__(_remembered(hypotheses))

    def deepen(self, hypotheses: int) -> None:
        """Ask so many to agree from now on; those that were heard count as far as they go back."""
        self._depth = hypotheses
        self._recent = deque(self._recent, maxlen=_remembered(hypotheses))

    def _count(self, end_s: float) -> int:
        *before, newest = self._recent
        shared = sorted((_shared(newest, words) for words in before), reverse=True)
        if len(shared) < self._depth - 1:
            return 0
        agreed = shared[self._depth - 2] if self._depth > 1 else len(newest)
        if 0 < agreed == len(newest) and any(map(str.isdigit, newest[-1].text)):
            agreed -= 1  # a number may not be over
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
    """Commits at once the words that end at least `edge_s` before the sound does, by the recogniser's times.

    What AlignAtt decides while it decodes, from the frame that each token attends to most, is decided here
    from the times that the same attention gives each word after decoding: it saves the second hypothesis,
    not the decoding.

    Source: Papi et al. 2023 (arXiv:2305.11408); for Whisper Macháček & Polák 2025 (arXiv:2506.17077).
    """

    def __init__(self, edge_s: float = 0.5) -> None:
        """Keep words open that end within `edge_s` of the end of the sound."""
        super().__init__(1)
        self._edge_s = edge_s

    def _count(self, end_s: float) -> int:
        count = 0
        for word in self.tentative:
            if word.end_s > end_s - self._edge_s:
                break
            count += 1
        return count


CutKind = Literal["word", "limit"]
OVER_S: Final = 0.5  # of sound behind a word, after which it is over
BEHIND_WORD_S: Final = 0.2  # the cut comes at most so long after the word that it follows
KEPT_S: Final = 2.0  # of sound without a word, at the last resort: the longest word under way


@dataclass(frozen=True, slots=True)
class Cut:
    """Drop the sound before `at_s`, and with it the first `gone` certain words in the buffer."""

    at_s: float
    kind: CutKind
    gone: int


def word_cut(rule: CommitRule, end_s: float, kind: CutKind = "word") -> Cut | None:
    """Behind the last certain word in the buffer that is over, its sound ending at `end_s`; None if none is.

    A word at the end of the sound may have been guessed before it was said.
    """
    certain = rule.in_buffer
    count = sum(1 for _ in takewhile(lambda word: word.end_s <= end_s - OVER_S, certain))
    if not count:
        return None
    following = (*certain[count:], *rule.tentative)
    return Cut(_behind(certain[count - 1], following), kind, count)


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
