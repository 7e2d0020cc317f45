"""The seam between the speech stage and a speech recogniser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["RecognizedWord", "Recognizer"]


@dataclass(frozen=True, slots=True)
class RecognizedWord:
    """One word, as the recogniser spells it, and where in its utterance it was spoken."""

    text: str
    start_s: float  # seconds since the utterance's first sample
    end_s: float
    probability: float  # the recogniser's own opinion, in [0, 1]


class Recognizer(Protocol):
    """Turns growing utterances into words. Knows no clock: the same sound, cut alike, gives the same words.

    Calls come from one thread in this order: `begin`, then `accept` and `hypothesis` in any number and
    order, then `finish`; then `begin` again, or `close`. What it learns of the microphone it keeps from one
    utterance to the next; words it does not.
    """

    @property
    def name(self) -> str:
        """Engine and model, as shown to the user."""
        ...

    def begin(self) -> None:
        """Start an utterance; one that was not finished is dropped."""
        ...

    def accept(self, samples: NDArray[np.float32]) -> None:
        """Take the utterance's next samples, shape (n,), 16 kHz mono, in [-1, 1]."""
        ...

    def hypothesis(self) -> list[RecognizedWord]:
        """The words so far, in order of time; all of them may still change."""
        ...

    def finish(self) -> list[RecognizedWord]:
        """The words of the whole utterance, which is over with this call."""
        ...

    def forget(self) -> None:
        """Drop the utterance under way and what was learnt of the microphone, as if just loaded."""
        ...

    def close(self) -> None:
        """Release the model."""
        ...
