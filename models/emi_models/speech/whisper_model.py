"""faster-whisper's model, kept from looking twice at the end of a short clip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from faster_whisper import WhisperModel

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["OneLookModel"]


class _LookedEnoughError(Exception):
    """What is left of the clip is too short to be looked at again."""


class OneLookModel(WhisperModel):
    """A WhisperModel that does not transcribe by itself what little follows a clip's last word.

    faster-whisper moves its window of 30 s to the end of the last word and decodes again what follows, be it
    a tenth of a second. On a buffer that ends in the middle of a word this doubles the time and invents
    words out of half a syllable.
    """

    _found: Sequence[Any] | None = None
    _enough_s = 0.0
    _windows = 0

    @contextmanager
    def one_look(self, found: Sequence[Any], enough_s: float) -> Iterator[None]:
        """A span in which transcribing a clip stops once its words reach `enough_s`.

        Args:
            found: the segments so far, which the caller adds to as they come.
            enough_s: what begins later than this in the clip is not looked at again.
        """
        self._found, self._enough_s, self._windows = found, enough_s, 0
        try:
            yield
        except _LookedEnoughError:
            pass
        finally:
            self._found = None

    def encode(self, features: Any) -> Any:
        """As WhisperModel's; called once for each window."""
        self._windows += 1
        found = self._found
        if found and self._windows > 1 and _end_of(found[-1]) > self._enough_s:
            raise _LookedEnoughError
        return super().encode(features)


def _end_of(segment: Any) -> float:
    return float(segment.words[-1].end if segment.words else segment.end)
