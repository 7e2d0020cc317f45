"""Words with their times, and the text in which a mark says which of them is spoken now.

Source: "Semantic Matters" §3.2: a special token marks the present in the text, and what the network takes of
the text is the encoder's last hidden state there. In the paper the token is new and the encoder is trained
with it. A frozen encoder reads the mark as the words that it is written with: its state is the mean over
their tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "MARK",
    "MarkedEncoder",
    "TimedWord",
    "marked_text",
    "marked_tokens",
    "present_word",
    "spread_words",
]

MARK: Final = "[ATTENTION]"


class MarkedEncoder(Protocol):
    """A text encoder that gives its state at the mark."""

    def encode_marked(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The last hidden state at `MARK`, which each text has once: (len(texts), D)."""
        ...


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word and its time, in ns from the video's start."""

    text: str
    start_ns: int
    end_ns: int


def spread_words(transcript: str, end_ns: int, start_ns: int = 0) -> tuple[TimedWord, ...]:
    """The words of a text without times of its own, spread evenly from its start to its end."""
    words = transcript.split()
    length = max(0, end_ns - start_ns)
    edges = [start_ns + length * place // max(1, len(words)) for place in range(len(words) + 1)]
    return tuple(TimedWord(word, edges[place], edges[place + 1]) for place, word in enumerate(words))


def present_word(words: Sequence[TimedWord], at_ns: int, *, causal: bool = False) -> int:
    """Which word is being said: the last that has begun; -1 if there is none.

    Before the first word that is the first, unless only the past counts (`causal`): then it is none.
    """
    begun = sum(word.start_ns <= at_ns for word in words)
    if causal:
        return begun - 1
    return max(begun, 1) - 1 if words else -1


def marked_text(
    words: Sequence[TimedWord], present: int, span_s: float = 20.0, *, causal: bool = False
) -> str:
    """The words around the present one, `MARK` before that one.

    Those whose middle is within half of `span_s` to either side; with `causal`, those that end within the
    `span_s` before the present one begins, and that one.
    """
    centre_ns = words[present].start_ns
    parts = []
    for place, word in enumerate(words):
        if place == present:
            parts.append(MARK)
        if causal:
            near = place < present and word.end_ns > centre_ns - span_s * 1e9
        else:
            near = abs((word.start_ns + word.end_ns) / 2 - centre_ns) <= span_s * 0.5e9
        if near or place == present:
            parts.append(word.text)
    return " ".join(parts)


def marked_tokens(text: str, tokenize: Callable[[str], Any], most: int) -> tuple[list[int], list[int]]:
    """The ids of a text's tokens, at most `most`, and the places of those that the mark is written with.

    A text that is too long loses words from its start until the mark is within, then from its end.

    Args:
        text: with one mark.
        tokenize: a text as an object with `ids` and `offsets` (start, end in characters), cut at `most`.
        most: tokens, special ones included.
    """
    words = text.split(" ")
    while True:
        line = " ".join(words)
        start = line.index(MARK)
        found = tokenize(line)
        ids, offsets = list(found.ids), list(found.offsets)
        places = [
            place
            for place, (begin, end) in enumerate(offsets)
            if begin < end and begin < start + len(MARK) and end > start
        ]
        whole = bool(places) and offsets[places[-1]][1] >= start + len(MARK)
        before = words.index(MARK)
        if (whole and places[-1] < most - 1) or not before:
            return ids[:most], places
        words = words[max(1, before // 4) :]
