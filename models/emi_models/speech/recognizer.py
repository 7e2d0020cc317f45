"""The seam between incremental recognition and whatever turns sound into words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Hypothesis", "RecognizedWord", "Recognizer", "Segment"]


@dataclass(frozen=True, slots=True)
class RecognizedWord:
    """One word, as the recogniser spells it, and when it was spoken."""

    text: str
    start_s: float  # seconds since the first sample that the recogniser was given after `begin`
    end_s: float
    probability: float  # the recogniser's own opinion, in [0, 1]

    def later(self, seconds: float) -> RecognizedWord:
        """The same word by a clock that started so much earlier."""
        return replace(self, start_s=self.start_s + seconds, end_s=self.end_s + seconds)


@dataclass(frozen=True, slots=True)
class Segment:
    """Words that the recogniser made in one go, and what it thinks of them; None where it has no opinion.

    Attributes:
        words: in order of time.
        complete: the recogniser closed it and went on: more sound will not lengthen it.
        no_speech: how probable it is that nothing was said, in [0, 1].
        log_probability: mean over its tokens, natural logarithm, at most 0.
        compression: how many times shorter zlib makes its text; loops compress well.
    """

    words: tuple[RecognizedWord, ...]
    complete: bool = False
    no_speech: float | None = None
    log_probability: float | None = None
    compression: float | None = None


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What a recogniser makes of the sound since `begin`."""

    segments: tuple[Segment, ...] = ()

    @property
    def words(self) -> tuple[RecognizedWord, ...]:
        """All words, in order of time."""
        return tuple(word for segment in self.segments for word in segment.words)

    def later(self, seconds: float) -> Hypothesis:
        """The same by a clock that started so much earlier."""
        return Hypothesis(
            tuple(
                replace(segment, words=tuple(word.later(seconds) for word in segment.words))
                for segment in self.segments
            )
        )


class Recognizer(Protocol):
    """Turns sound into words. Knows no clock: the same sound, cut alike, gives the same words.

    Calls come from one thread in this order: `begin`, then `accept` and `hypothesis` in any number and
    order, then `finish`; then `begin` again, or `close`. What it learns of the microphone it keeps from one
    `begin` to the next; words it does not.
    """

    @property
    def name(self) -> str:
        """Engine and model, as shown to the user."""
        ...

    @property
    def agreement(self) -> int:
        """How many of its hypotheses in a row must agree on a word before one can rely on it."""
        ...

    def begin(self, prompt: str = "") -> None:
        """Start anew; what was not finished is dropped.

        Args:
            prompt: the words said just before, for a recogniser that can make use of them.
        """
        ...

    def accept(self, samples: NDArray[np.float32]) -> None:
        """Take the next samples, shape (n,), 16 kHz mono, in [-1, 1]."""
        ...

    def hypothesis(self) -> Hypothesis:
        """The words so far; all of them may still change."""
        ...

    def finish(self) -> Hypothesis:
        """The words of all that was accepted, which is over with this call."""
        ...

    def forget(self) -> None:
        """Drop what was accepted and what was learnt of the microphone, as if just loaded."""
        ...

    def close(self) -> None:
        """Release the model."""
        ...
