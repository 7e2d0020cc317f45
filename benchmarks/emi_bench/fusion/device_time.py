"""The GPU's own time, by CUDA events: without Python, the launch's wait and the copies of window and answer.

Not run on a GPU so far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from emi_bench.fusion.cases import Enqueues

__all__ = ["between_events", "device_clock"]


def device_clock(engine: Enqueues) -> Callable[[], float]:
    """A meter: what one run over the inputs that are already on the GPU takes there, in milliseconds."""
    stream = torch.cuda.ExternalStream(engine.stream)
    return lambda: between_events(stream, engine.enqueue)


def between_events(stream: Any, work: Callable[[], object]) -> float:
    """Milliseconds between an event before and one after what `work` enqueues on this stream."""
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record(stream)
    work()
    after.record(stream)
    after.synchronize()
    return float(before.elapsed_time(after))
