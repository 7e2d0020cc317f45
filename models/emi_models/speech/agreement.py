"""When a word is certain: once hypotheses in a row agree on it, or once enough sound lies behind it."""

from __future__ import annotations

import string
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from emi_models.speech.recognizer import RecognizedWord

__all__ = ["AlignmentEdge", "CommitRule", "LocalAgreement", "spoken_form"]

EDGES: Final = string.punctuation + string.whitespace + "\u2018\u2019\u201c\u201d\u2013\u2014…¿¡"
ECHO_S: Final = 0.3  # a word this close to a cut may be what the cut left of the last word before it
EARLIER_S: Final = 0.2  # a word that ends this long before the last certain one is not a new one


def spoken_form(text: str) -> str:
    """What is compared of a word: not case and punctuation, of which recognisers change their minds."""
    return text.casefold().strip(EDGES)


class CommitRule(ABC):
    """Commits a prefix of each hypothesis. Pure: it knows no sound and no clock.

    What is committed is never changed or taken back. A hypothesis is of all the sound in the buffer, so it
    begins with words that are certain already; they are found by their text (the prefix of least edit
    distance, of equals the one that ends nearest to where they ended), since recognisers time a word anew
    in each hypothesis.
    """

    def __init__(self, depth: int) -> None:
        """Remember `depth` hypotheses."""
        self._depth = depth
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

    @property
    def last_end_s(self) -> float | None:
        """When the newest certain word ends; None without one."""
        return self._last_end_s

    def reset(self) -> None:
        """Forget all words, as at the start of an utterance."""
        self._certain: list[RecognizedWord] = []
        self._echo: list[RecognizedWord] = []  # certain words just before the buffer's first sample
        self._cut_s = 0.0
        self._last_end_s: float | None = None
        self._recent: deque[tuple[RecognizedWord, ...]] = deque(maxlen=self._depth)

    def insert(self, words: Sequence[RecognizedWord], end_s: float) -> list[RecognizedWord]:
        """Take the next hypothesis of the buffer, in order of time; the words that it makes certain.

        Args:
            words: the hypothesis.
            end_s: where the buffer ends, by the clock of the words.
        """
        self._recent.append(tuple(self._beyond_certain(words)))
        return self._commit(self._count(end_s))

    def finish(self, words: Sequence[RecognizedWord]) -> list[RecognizedWord]:
        """Take the last hypothesis, after which no sound comes: all its words become certain."""
        self._recent.append(tuple(self._beyond_certain(words)))
        return self._commit(len(self.tentative))

    def force(self, until_s: float) -> list[RecognizedWord]:
        """Make certain, agreed upon or not, the tentative words that end by then."""
        count = 0
        for word in self.tentative:
            if word.end_s > until_s:
                break
            count += 1
        return self._commit(count)

    def cut(self, at_s: float) -> None:
        """The sound before `at_s` will not be in the next hypotheses."""
        gone = [word for word in self._certain if word.end_s <= at_s]
        self._echo = gone[-1:] or self._echo
        self._certain = self._certain[len(gone) :]
        self._cut_s = at_s

    def _commit(self, count: int) -> list[RecognizedWord]:
        newest = self.tentative
        certain = list(newest[:count])
        if certain:
            self._certain += certain
            self._last_end_s = certain[-1].end_s
            for index, words in enumerate(self._recent):
                self._recent[index] = words[count:]
        return certain

    def _beyond_certain(self, words: Sequence[RecognizedWord]) -> list[RecognizedWord]:
        rest = list(words[_prefix_said(self._certain, words, self._cut_s) :])
        if not self._certain and self._echo and rest:
            first, before = rest[0], self._echo[-1]
            if first.start_s - self._cut_s < ECHO_S and spoken_form(first.text) == spoken_form(before.text):
                rest = rest[1:]
        while rest and self._last_end_s is not None and rest[0].end_s < self._last_end_s - EARLIER_S:
            rest = rest[1:]
        return rest


class LocalAgreement(CommitRule):
    """Commits the longest prefix on which the last `hypotheses` agree.

    Source: Liu et al. 2020 (doi:10.21437/Interspeech.2020-2897), LA-n; for Whisper Macháček et al. 2023
    (arXiv:2307.14743, §3).
    """

    def __init__(self, hypotheses: int = 2) -> None:
        """Commit what `hypotheses` in a row (at least 1) have said alike."""
        super().__init__(hypotheses)

    def _count(self, end_s: float) -> int:
        if len(self._recent) < self._depth:
            return 0
        agreed = 0
        for column in zip(*self._recent, strict=False):
            if len({spoken_form(word.text) for word in column}) > 1:
                break
            agreed += 1
        return agreed


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


def _prefix_said(certain: Sequence[RecognizedWord], words: Sequence[RecognizedWord], begin_s: float) -> int:
    """How many of `words` say what `certain` said; the sound of both begins at `begin_s`."""
    if not certain:
        return 0
    said = [spoken_form(word.text) for word in certain]
    end_s = certain[-1].end_s
    row = list(range(len(said) + 1))  # edits between no word and the first j certain ones
    best, least = 0, (row[-1], abs(end_s - begin_s))
    for count, word in enumerate(words, start=1):
        heard = spoken_form(word.text)
        diagonal, row[0] = row[0], count
        for j, other in enumerate(said, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (heard != other))
        found = (row[-1], abs(end_s - word.end_s))
        if found < least:
            best, least = count, found
    return best
