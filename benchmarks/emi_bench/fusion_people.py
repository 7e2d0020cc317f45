"""Many people, one network: how long windows wait in a `SharedEngine`, and how many come too late.

Each person is a thread that asks for a window at each hop, from a random moment on. Batches form by
themselves: what comes while the network is busy is the next batch.
"""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from emi_bench.fusion.report import PeopleResult
from emi_bench.measurement import Distribution
from emi_engine.protocol import WindowLateError
from emi_live.sharing import SharedEngine

if TYPE_CHECKING:
    from emi_engine.protocol import FusionEngine

__all__ = ["measure_people"]


def measure_people(
    network: str, name: str, engine: FusionEngine, people: int, hop_s: float, seconds: float
) -> PeopleResult:
    """Let so many people ask one engine, at real pace; the engine is closed at the end.

    Args:
        network: its name.
        name: of the engine.
        engine: the network that all share.
        people: threads that ask.
        hop_s: between two windows of each, and the deadline of each.
        seconds: how long.
    """
    from emi_engine.parity import probe_window  # PyTorch, which takes a second to load

    pause, window = threading.Event(), probe_window(engine.shapes, 1, 0)
    with SharedEngine(engine, most=64) as shared, ThreadPoolExecutor(people) as pool:
        shared.infer(window)
        calls, rows = shared.calls, shared.rows
        began_s = time.monotonic() + hop_s

        def ask(seed: int) -> list[float]:
            due_s = began_s + random.Random(seed).random() * hop_s  # noqa: S311  # nothing secret
            taken_ms = []
            while due_s < began_s + seconds:
                pause.wait(max(0.0, due_s - time.monotonic()))
                try:
                    shared.infer(window, hop_s)
                    taken_ms.append(1000 * (time.monotonic() - due_s))
                except WindowLateError:
                    pass  # counted by the engine
                due_s += hop_s * (1 + max(0, int((time.monotonic() - due_s) / hop_s)))
            return taken_ms

        taken_ms = [ms for each in pool.map(ask, range(people)) for ms in each]
        return PeopleResult(
            network=network,
            engine=name,
            people=people,
            windows_per_s=len(taken_ms) / seconds,
            asked_per_s=people / hop_s,
            wall_ms=Distribution.of(taken_ms),
            batch=(shared.rows - rows) / max(1, shared.calls - calls),
            late=shared.late,
        )
