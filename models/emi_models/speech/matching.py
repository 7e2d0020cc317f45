"""Which words of a hypothesis say what is certain already: found by their text, since their times wander."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from emi_models.speech.recognizer import RecognizedWord

__all__ = ["Match", "match", "spoken_form"]

EDGES: Final = string.punctuation + string.whitespace + "\u2018\u2019\u201c\u201d\u2013\u2014…¿¡"


def spoken_form(text: str) -> str:
    """What is compared of a word: not case and punctuation, of which recognisers change their minds."""
    return text.casefold().strip(EDGES)


@dataclass(frozen=True, slots=True)
class Match:
    """A hypothesis beside the certain words of the same sound.

    Attributes:
        count: how many of its words, at its beginning, say what is certain.
        retimed: the certain words, timed as the hypothesis has those that it repeats.
        reach: of each certain word, how many words of the hypothesis there are up to and with it.
    """

    count: int
    retimed: tuple[RecognizedWord, ...]
    reach: tuple[int, ...]


def match(certain: Sequence[RecognizedWord], words: Sequence[RecognizedWord], begin_s: float) -> Match:
    """Find the prefix of `words` nearest to `certain` in edits, of equals the one that ends nearest in time.

    Args:
        certain: words, in order of time.
        words: the hypothesis, in order of time.
        begin_s: where the sound of both begins.
    """
    if not certain:
        return Match(0, (), ())
    said, heard = ([spoken_form(word.text) for word in row] for row in (certain, words))
    edits = _table(said, heard)
    end_s = certain[-1].end_s

    def ends(count: int) -> float:
        if count:
            return words[count - 1].end_s
        return words[0].start_s if words else begin_s

    count = min(
        range(len(words) + 1), key=lambda count: (edits[count][len(said)], abs(ends(count) - end_s), count)
    )
    retimed, reach = list(certain), [0] * len(certain)
    i, j = count, len(said)
    while j:
        if i and edits[i][j] == edits[i - 1][j - 1] + (heard[i - 1] != said[j - 1]):
            if heard[i - 1] == said[j - 1]:
                retimed[j - 1] = replace(
                    certain[j - 1], start_s=words[i - 1].start_s, end_s=words[i - 1].end_s
                )
            reach[j - 1] = i
            i, j = i - 1, j - 1
        elif edits[i][j] == edits[i][j - 1] + 1:
            reach[j - 1] = i
            j -= 1
        else:
            i -= 1
    return Match(count, tuple(retimed), tuple(reach))


def _table(said: Sequence[str], heard: Sequence[str]) -> list[list[int]]:
    """Edits between the first i words heard and the first j said, at [i][j]."""
    rows = [list(range(len(said) + 1))]
    for i, word in enumerate(heard, start=1):
        before, row = rows[-1], [i]
        for j, other in enumerate(said, start=1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (word != other)))
        rows.append(row)
    return rows
