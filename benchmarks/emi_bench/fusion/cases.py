"""What is called and timed: an engine on one batch of windows, or on a stream, hop by hop.

A case is a name and one call without arguments. Whoever has another way to run a network adds a function here
that returns a case, and says in `run` when it is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

from emi_engine.parity import probe_window, worst_difference

if TYPE_CHECKING:
    from collections.abc import Callable

    from emi_bench.fusion.stream import StreamSource
    from emi_bench.fusion.subjects import Subject
    from emi_engine.protocol import FusionEngine
    from emi_models.inputs import FusionInputs

__all__ = ["Case", "Enqueues", "stream_case", "stream_parity", "window_case", "window_parity"]


@runtime_checkable
class Enqueues(Protocol):
    """An engine on a GPU that can start a run over the inputs it already has there, without waiting."""

    @property
    def stream(self) -> int:
        """The handle of the CUDA stream that the run goes on."""

    def enqueue(self) -> None:
        """Start it."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One engine at one task: `call` does it once, with all between window and answer on the host."""

    name: str
    call: Callable[[], object]
    on_gpu: Enqueues | None = None  # after a `call`: the same work without the way there and back


def window_case(name: str, engine: FusionEngine, windows: FusionInputs, *, on_gpu: bool) -> Case:
    """The same windows again and again."""
    resident = engine if on_gpu and isinstance(engine, Enqueues) else None
    return Case(name, lambda: engine.infer(windows), resident)


def stream_case(
    name: str, engine: FusionEngine, source: StreamSource, *, contributions: bool = False
) -> Case:
    """One hop after the other of an endless stream, from its beginning; with the counterfactuals if asked."""
    session, hops = engine.session(), iter(source)
    return Case(name, lambda: session.infer(next(hops), counterfactuals=contributions))


def window_parity(subject: Subject, batch: int, windows: int, seed: int) -> Callable[[FusionEngine], float]:
    """How far an engine is from PyTorch in fp32 on at least so many random windows: its `worst_difference`.

    Masks have holes, and modalities are missing, at random; the windows are the same for each engine.
    """
    network = subject.loaded.network
    asked = []
    for index in range(-(-windows // batch)):
        window = probe_window(network.config.shapes, batch, seed + index)
        with torch.inference_mode():
            asked.append((seed + index, network(window).numpy()))

    def worst(engine: FusionEngine) -> float:
        answers = (  # windows are made again: 200 of the large ones would take a gigabyte
            (engine.infer(probe_window(network.config.shapes, batch, at)), expected) for at, expected in asked
        )
        return max(worst_difference(*answer) for answer in answers)

    return worst


def stream_parity(subject: Subject, source: StreamSource, hops: int) -> Callable[[FusionEngine], float]:
    """The same over the first hops of a stream, in a session of its own."""
    network = subject.loaded.network
    asked = []
    for hop in range(hops):
        window = source.window(hop)
        with torch.inference_mode():
            asked.append((window, network(window.inputs(network.config.shapes)).numpy()))

    def worst(engine: FusionEngine) -> float:
        session = engine.session()
        return max(worst_difference(session.infer(window), expected) for window, expected in asked)

    return worst
