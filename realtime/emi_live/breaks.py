"""Spans in which nothing is to be seen or heard, because the program said so: muted sound, and pauses."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S, Clock
from emi_live.window import Condition
from emi_models import MODALITIES, Modality

__all__ = ["Breaks"]

Kind: TypeAlias = Literal["muted", "paused"]

KEPT: Final = 64  # spans; in live use nothing asks for one that is a minute old
OPEN_NS: Final = 2**62
NEAR_NS: Final = NS_PER_S // 2  # sound that stops so shortly before a break stopped for it


@dataclass(slots=True)
class _Span:
    kind: Kind
    from_ns: int
    until_ns: int = OPEN_NS

    def holds(self, t_ns: int) -> bool:
        return self.from_ns <= t_ns < self.until_ns


class Breaks:
    """Breaks by capture time: what was captured in one is not used, however late it comes. Any thread.

    Live, a break begins and ends now; in exact mode, where the media that came so far end. Muted sound is
    taken as silence, so that time goes on and no gap is seen.
    """

    def __init__(self, clock: Clock, *, exact: bool) -> None:
        self._clock = clock
        self._exact = exact
        self._lock = threading.Lock()
        self._spans: deque[_Span] = deque(maxlen=KEPT)
        self._open: dict[Kind, _Span] = {}
        self._newest_ns = 0  # in exact mode: where the media end that came so far

    def is_on(self, kind: Kind) -> bool:
        """Whether such a break goes on."""
        return kind in self._open

    def set(self, kind: Kind, on: bool) -> None:
        """Begin or end a break; a second time does nothing."""
        with self._lock:
            now_ns = self._newest_ns if self._exact else self._clock.now_ns()
            if on and kind not in self._open:
                self._open[kind] = span = _Span(kind, now_ns)
                self._spans.append(span)
            elif not on and kind in self._open:
                self._open.pop(kind).until_ns = now_ns

    def takes_picture(self, t_ns: int) -> bool:
        """Whether a picture of that time is to be looked at."""
        with self._lock:
            self._newest_ns = max(self._newest_ns, t_ns)
            return not any(span.kind == "paused" and span.holds(t_ns) for span in self._spans)

    def silence(self, samples: NDArray[np.float32], t_ns: int, rate_hz: int) -> None:
        """Make silence, in place, of the samples, shape (n,), that lie in a break; the first is of `t_ns`."""
        end_ns = t_ns + samples.size * NS_PER_S // rate_hz
        with self._lock:
            self._newest_ns = max(self._newest_ns, end_ns)
            for span in self._spans:
                if span.from_ns < end_ns and t_ns < span.until_ns:
                    first = max(0, -(-(span.from_ns - t_ns) * rate_hz // NS_PER_S))
                    last = min(samples.size, -(-(span.until_ns - t_ns) * rate_hz // NS_PER_S))
                    samples[first:last] = 0.0

    def explain(self, from_ns: int, until_ns: int) -> bool:
        """Whether sound that is missing between two times is missing because of a break."""
        with self._lock:
            return any(
                span.from_ns < until_ns and from_ns >= span.from_ns - NEAR_NS and from_ns < span.until_ns
                for span in self._spans
            )

    def at(self, end_ns: int) -> Mapping[Modality, Condition]:
        """What breaks do to the window that ends there. Words said before sound was muted stand."""
        with self._lock:
            kinds = {span.kind for span in self._spans if span.holds(end_ns)}
        if "paused" in kinds:
            return dict.fromkeys(MODALITIES, Condition("paused", "paused"))
        if "muted" in kinds:
            return {"audio": Condition("paused", "muted"), "text": Condition("ok", "muted")}
        return {}
