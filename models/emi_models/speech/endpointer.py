"""Where utterances begin and end, from the probability of voice in each chunk of sound."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Endpointer", "Piece"]

RATE_HZ: Final = 16_000
EXIT_MARGIN: Final = 0.15  # below the threshold; what Silero's own segmenter and sherpa-onnx use
LEAST_EXIT: Final = 0.01


@dataclass(frozen=True, slots=True)
class Piece:
    """The next samples of an utterance, shape (n,), the last `voiced` of which are voice."""

    samples: NDArray[np.float32]
    first: bool
    last: bool
    voiced: int = 0


class Endpointer:
    """Cuts a stream of chunks into utterances. Pure: it counts samples and knows no clock.

    An utterance begins with the first chunk at `threshold`, and with up to `preroll_s` of what came before;
    it ends when `min_silence_s` has passed below `threshold` - 0.15. It may be of any length. No sample is
    in two utterances, and every chunk at the threshold is in one.
    """

    def __init__(self, threshold: float, min_silence_s: float, preroll_s: float) -> None:
        self._enter = threshold
        self._exit = max(threshold - EXIT_MARGIN, LEAST_EXIT)
        self._min_silence = round(min_silence_s * RATE_HZ)
        self._preroll_limit = round(preroll_s * RATE_HZ)
        self.reset()

    @property
    def speaking(self) -> bool:
        """Whether an utterance is under way."""
        return self._speaking

    def reset(self) -> None:
        """Forget everything; an utterance under way is over."""
        self._speaking = False
        self._silence = 0  # samples since its last voice
        self._preroll: deque[NDArray[np.float32]] = deque()

    def push(self, chunk: NDArray[np.float32], probability: float) -> list[Piece]:
        """What this chunk, shape (n,), adds: nothing in silence."""
        if not self._speaking:
            if probability < self._enter:
                self._remember(chunk)
                return []
            samples = np.concatenate((*self._preroll, chunk))
            self._preroll.clear()
            self._speaking = True
            self._silence = 0
            return [Piece(samples, first=True, last=False, voiced=chunk.size)]
        voiced = chunk.size if probability >= self._exit else 0
        self._silence = 0 if voiced else self._silence + chunk.size
        over = self._silence >= self._min_silence
        if over:
            self.reset()
        return [Piece(chunk, first=False, last=over, voiced=voiced)]

    def flush(self) -> list[Piece]:
        """The last, empty piece of the utterance under way, at a gap or the end of the stream."""
        pieces = [Piece(np.empty(0, np.float32), first=False, last=True)] if self._speaking else []
        self.reset()
        return pieces

    def _remember(self, chunk: NDArray[np.float32]) -> None:
        self._preroll.append(chunk)
        while self._preroll and sum(part.size for part in self._preroll) > self._preroll_limit:
            self._preroll.popleft()
