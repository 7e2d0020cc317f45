"""Several people, one engine: windows that arrive at about the same time are one batch.

On a GPU, a batch takes little longer than one window. The first caller waits `wait_s` for others, then runs
the batch for all of them, in its own thread; no caller waits longer than that and the batches before. An
engine that reuses earlier work (`incremental`) needs no batches: each session runs in its caller's thread.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from emi_engine.protocol import EngineError, FullPassSession
from emi_models.inputs import FusionInputs

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from emi_engine import FusionEngine, FusionSession
    from emi_models import Modality
    from emi_models.checkpoint import CheckpointHeader
    from emi_models.inputs import FusionShapes

__all__ = ["SharedEngine"]


@dataclass(slots=True, eq=False)
class _Request:
    """One caller's rows; `answer` or `error` is set once it is `done`."""

    window: FusionInputs
    done: bool = False
    answer: NDArray[np.float32] | None = None
    error: Exception | None = None


class SharedEngine:
    """One engine for several `LiveEngine`s of a process; each gets its own handle from `lend`.

    ::

        with SharedEngine(load_engine(path, "tensorrt")) as shared:
            people = [LiveEngine(config, engine=shared.lend()) for config in configs]

    `calls` and `rows` count batches and their windows: rows / calls is the mean size of a batch.
    """

    def __init__(
        self,
        engine: FusionEngine,
        *,
        most: int = 16,
        wait_s: float = 0.002,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take over an engine; `close` closes it.

        Args:
            engine: runs in the thread of the caller that runs a batch.
            most: with this many rows, a batch does not wait for more.
            wait_s: how long the first caller of a batch waits for others.
            clock: seconds, for `wait_s`.
        """
        self.engine = engine
        self._most = most
        self._wait_s = wait_s
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: list[_Request] = []  # the first one's thread runs the next batch
        self._running = False
        self.calls = 0
        self.rows = 0

    def lend(self) -> FusionEngine:
        """A handle for one user, in any thread; closing it does not affect the others."""
        return _Lent(self)

    def infer(self, window: FusionInputs) -> NDArray[np.float32]:
        """As `FusionEngine.infer`, from any thread; an error of one window does not affect the others."""
        window.check(self.engine.shapes)
        request = _Request(window)
        with self._changed:
            deadline = self._clock() + self._wait_s
            self._waiting.append(request)
            try:
                self._changed.notify_all()  # the first caller may be waiting for more rows
                while not request.done:
                    if self._running or self._waiting[0] is not request:
                        self._changed.wait()
                    elif (left := deadline - self._clock()) > 0 and self._rows(self._waiting) < self._most:
                        self._changed.wait(left)
                    else:
                        self._run_batch()
            finally:
                if request in self._waiting:  # the caller was interrupted: the next one is first
                    self._waiting.remove(request)
                    self._changed.notify_all()
        if request.error is not None:
            raise request.error
        assert request.answer is not None  # noqa: S101  # a request that is done has one or the other
        return request.answer

    def close(self) -> None:
        """Close the engine; no handle may be used after that."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run_batch(self) -> None:
        """Run all waiting requests; others may queue meanwhile."""
        batch, self._waiting, self._running = self._waiting, [], True
        self.calls += 1
        self.rows += self._rows(batch)
        self._changed.release()
        try:
            self._answer(batch)
        finally:
            self._changed.acquire()
            self._running = False
            for request in batch:
                request.done = True
            self._changed.notify_all()

    def _answer(self, batch: list[_Request]) -> None:
        try:
            answers = self.engine.infer(FusionInputs.stack([request.window for request in batch]))
        except Exception as error:  # noqa: BLE001  # a runtime's own, e.g. out of memory: the callers raise it
            if len(batch) == 1:
                batch[0].error = error
                return
            for request in batch:  # one by one, to find the window that fails
                self._answer([request])
            return
        start = 0
        for request in batch:
            request.answer = answers[start : start + request.window.batch]
            start += request.window.batch

    @staticmethod
    def _rows(requests: list[_Request]) -> int:
        return sum(request.window.batch for request in requests)


class _Lent:
    """One user's handle to a shared engine; itself a `FusionEngine`."""

    reuses: bool

    def __init__(self, shared: SharedEngine) -> None:
        engine = shared.engine
        self._shared: SharedEngine | None = shared
        self.name: str = engine.name
        self.detail = engine.detail if engine.reuses else f"{engine.detail}, in batches shared with others"
        self.shapes: FusionShapes = engine.shapes
        self.header: CheckpointHeader = engine.header
        self.modalities: tuple[Modality, ...] = engine.modalities
        self.reuses = engine.reuses

    def infer(self, window: FusionInputs) -> NDArray[np.float32]:
        """As `FusionEngine.infer`."""
        return self._open().infer(window)

    def session(self) -> FusionSession:
        """As `FusionEngine.session`."""
        shared = self._open()
        return shared.engine.session() if self.reuses else FullPassSession(self)

    def close(self) -> None:
        """Return the handle."""
        self._shared = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> SharedEngine:
        if self._shared is None:
            raise EngineError(f"the {self.name} engine was returned; call `lend` again")
        return self._shared
