"""Sessions of several threads on one engine: one call is a batch, and each thread gets its own rows."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emi_engine import EngineError, EngineKind, load_engine
from emi_engine.onnxruntime_engine import worst_difference
from emi_engine.parity import probe_window
from emi_engine.protocol import TOLERANCES, WindowLateError
from emi_live import SharedEngine
from emi_models.checkpoint import packaged_checkpoint
from emi_models.inputs import COMPACT_SHAPES, FusionInputs, InputError
from tests.engine.incremental.streams import Person
from tests.support.fakes import SMALL_SHAPES, FakeEngine

PATIENT_S = 30.0


class EchoEngine(FakeEngine):
    """Returns each row's first text value; refuses a row of 13. Records the values of each batch.

    The first window waits in the engine for `go`, so that others queue behind it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[float]] = []
        self.inside, self.busy, self.go = threading.Lock(), threading.Event(), threading.Event()

    def infer(self, window: FusionInputs) -> NDArray[np.float32]:
        assert self.inside.acquire(blocking=False), "two threads at a time"
        try:
            self.batches.append(window.text[:, 0].tolist())
            self.busy.set()
            assert self.go.wait(PATIENT_S)
            self.compute(window)
            return np.repeat(window.text[:, :1].numpy(), 6, axis=1)
        finally:
            self.inside.release()

    def compute(self, window: FusionInputs) -> None:
        if bool((window.text[:, 0] == 13).any()):
            raise EngineError("13 is not an intensity")


class HandClock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def saying(value: float) -> FusionInputs:
    window = FusionInputs.empty(SMALL_SHAPES)
    window.text[0, 0] = value
    return window


@dataclass
class Queue:
    """Callers of one engine, each in a thread of its own; they queue while the first one's window runs."""

    shared: SharedEngine
    engine: EchoEngine
    pool: ThreadPoolExecutor
    asked: dict[float, Future[NDArray[np.float32]]] = field(default_factory=dict)

    def ask(self, value: float, within_s: float | None = None) -> None:
        self.asked[value] = self.pool.submit(self.shared.infer, saying(value), within_s)
        first = len(self.asked) == 1
        while len(self.shared.waiting) < len(self.asked) - 1:  # not before the last one queues
            threading.Event().wait(0.001)
        assert not first or self.engine.busy.wait(PATIENT_S)

    def answer(self, value: float) -> float:
        self.engine.go.set()
        return float(self.asked[value].result(PATIENT_S)[0, 0])


@contextmanager
def queue(
    engine: EchoEngine | None = None, most: int = 16, clock: Callable[[], float] = time.monotonic
) -> Iterator[Queue]:
    engine = engine or EchoEngine()
    with SharedEngine(engine, most=most, clock=clock) as shared, ThreadPoolExecutor(16) as pool:
        try:
            yield Queue(shared, engine, pool)
        finally:
            engine.go.set()
    assert engine.closed


def test_windows_that_wait_together_are_one_call_and_each_gets_its_own() -> None:
    with queue() as people:
        for value in range(9):
            people.ask(value)
        assert [people.answer(value) for value in range(9)] == list(range(9))
        assert (people.shared.calls, people.shared.rows) == (2, 9)
    assert people.engine.batches[0] == [0]
    assert sorted(people.engine.batches[1]) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_lone_window_goes_at_once() -> None:
    engine = EchoEngine()
    engine.go.set()

    def never(timeout: float | None = None) -> bool:
        raise AssertionError("it waited")

    with SharedEngine(engine) as shared:
        shared.changed.wait = never  # type: ignore[method-assign]
        assert shared.infer(saying(3), within_s=0.2)[0, 0] == 3
        assert shared.infer(saying(4))[0, 0] == 4
        assert (shared.calls, shared.late) == (2, 0)


def test_the_earliest_deadline_goes_first_and_then_who_came_first() -> None:
    with queue(most=2, clock=HandClock()) as people:
        for value, within_s in ((0, None), (1, None), (2, 0.3), (3, 0.1), (4, 0.2), (5, None)):
            people.ask(value, within_s)
        assert [people.answer(value) for value in range(6)] == list(range(6))
        assert people.shared.late == 0
    assert people.engine.batches == [[0], [3, 4], [2, 1], [5]]


def test_a_window_past_its_deadline_is_dropped_and_counted_and_the_others_are_answered() -> None:
    clock = HandClock()
    with queue(clock=clock) as people:
        people.ask(0)
        people.ask(1, 0.2)
        people.ask(2, 5.0)
        people.ask(3, 5.0)
        clock.now_s = 0.3
        people.engine.go.set()
        with pytest.raises(WindowLateError, match="deadline"):
            people.answer(1)
        assert [people.answer(value) for value in (0, 2, 3)] == [0, 2, 3]
        assert people.shared.late == 1
    assert sorted(people.engine.batches[1]) == [2, 3]


def test_a_sender_is_released_at_its_deadline_even_if_the_engine_hangs() -> None:
    with queue() as people:
        people.ask(0)
        late = people.pool.submit(people.shared.infer, saying(1), 0.01)
        with pytest.raises(WindowLateError):
            late.result(PATIENT_S)
        assert people.answer(0) == 0
    assert people.engine.batches == [[0]]


def test_a_batch_is_no_larger_than_its_first_deadline_allows() -> None:
    clock = HandClock()

    class Slow(EchoEngine):
        """Takes 50 ms a row."""

        def compute(self, window: FusionInputs) -> None:
            clock.now_s += 0.05 * window.batch

    with queue(Slow(), clock=clock) as people:
        for value in range(10):
            people.ask(value, 0.2 if value else None)
        found = []
        for value in range(10):
            with suppress(WindowLateError):
                found.append(people.answer(value))
        # 50 ms for the first one; in the 150 ms that are left, three rows; then all are past their deadline.
        assert people.shared.late == 6
        assert len(found) == 4
    assert [len(batch) for batch in people.engine.batches] == [1, 3]


def test_a_refused_window_fails_its_sender_alone() -> None:
    with queue() as people:
        for value in (0, 1, 13, 2):
            people.ask(value)
        assert [people.answer(value) for value in (0, 1, 2)] == [0, 1, 2]
        with pytest.raises(EngineError, match="13"):
            people.answer(13)
        with pytest.raises(InputError):
            people.shared.infer(FusionInputs(*(torch.zeros(1) for _ in range(8))))


def test_an_error_of_the_runtime_s_own_reaches_everybody_as_it_is() -> None:
    class Exhausted(EchoEngine):
        """Has memory for one window at a time, and none for a window of 13."""

        def compute(self, window: FusionInputs) -> None:
            if window.batch > 1 or float(window.text[0, 0]) == 13:
                raise MemoryError("no room on the GPU")

    with queue(Exhausted()) as people:
        for value in (0, 1, 13, 2):
            people.ask(value)
        assert [people.answer(value) for value in (0, 1, 2)] == [0, 1, 2]
        with pytest.raises(MemoryError, match="room"):
            people.answer(13)
        assert (people.shared.calls, people.shared.rows) == (2, 4)


def test_a_caller_that_is_interrupted_does_not_hold_up_the_others() -> None:
    class Interrupted(EchoEngine):
        """Ctrl-C comes in the first batch of several."""

        def compute(self, window: FusionInputs) -> None:
            if window.batch > 1 and len(self.batches) == 2:
                raise KeyboardInterrupt

    with queue(Interrupted()) as people:
        for value in range(4):
            people.ask(value)
        people.engine.go.set()
        interrupted, answers = 0, []
        for value in range(4):
            try:
                answers.append(people.answer(value))
            except KeyboardInterrupt:
                interrupted += 1
        assert (interrupted, len(answers)) == (1, 3)


@pytest.mark.parametrize("kind", ["onnxruntime", "torch"])
def test_a_row_is_the_same_in_a_batch_of_any_size(kind: EngineKind) -> None:
    path = packaged_checkpoint("compact")
    with load_engine(path, kind) as engine, SharedEngine(load_engine(path, kind), most=32) as shared:
        windows = [probe_window(engine.shapes, 1, seed) for seed in range(32)]
        alone = np.concatenate([engine.infer(window) for window in windows])
        for size in (1, 2, 3, 8, 32):
            together = shared.infer(FusionInputs.stack(windows[:size]))
            assert worst_difference(together, alone[:size]) <= TOLERANCES["fp32"] / 10


def test_what_is_lent_is_given_back_without_closing_it_for_others() -> None:
    engine = EchoEngine()
    engine.go.set()
    with SharedEngine(engine) as shared:
        one, other = shared.lend(), shared.lend()
        one.close()
        assert not engine.closed
        assert other.session().infer(Person(shapes=SMALL_SHAPES).window()).shape == (1, 6)
        with pytest.raises(EngineError, match="returned"):
            one.infer(saying(1))
    assert engine.closed


def test_windows_in_numpy_share_calls_and_equal_those_computed_alone() -> None:
    path = packaged_checkpoint("compact")
    people = [Person(seed, COMPACT_SHAPES) for seed in range(4)]
    with (
        SharedEngine(load_engine(path, "onnxruntime"), most=16) as shared,
        load_engine(path, "onnxruntime") as alone,
        ThreadPoolExecutor(4) as pool,
    ):
        sessions, single = [shared.lend().session() for _ in people], alone.session()
        for hop in range(3):
            windows = [person.window() for person in people]
            answers = pool.map(
                lambda pair: pair[0].infer(pair[1], counterfactuals=True), zip(sessions, windows, strict=True)
            )
            for answer, window in zip(answers, windows, strict=True):
                expected = single.infer(window, counterfactuals=True)
                assert float(np.abs(answer - expected).max()) <= 1e-6
            assert shared.rows == 16 * (hop + 1)
            for person in people:
                person.audio.hop(10, 0)


def test_people_share_a_network_where_pytorch_is_not_installed() -> None:
    # In a process of its own: this one has loaded PyTorch.
    program = """
import sys
sys.modules["torch"] = None
from concurrent.futures import ThreadPoolExecutor
from emi_engine import load_engine
from emi_live import SharedEngine
from emi_models.checkpoint import packaged_checkpoint
from emi_models.inputs import COMPACT_SHAPES, StreamWindow
with SharedEngine(load_engine(packaged_checkpoint("compact"), "auto")) as shared:
    sessions = [shared.lend().session() for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda s: s.infer(StreamWindow.empty(COMPACT_SHAPES)), sessions))
    print([answer.shape for answer in answers], shared.rows)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (run.stdout.strip(), run.returncode) == ("[(1, 6), (1, 6)] 2", 0), run.stderr


def test_an_engine_that_reuses_keeps_a_stream_for_each_in_threads_of_their_own() -> None:
    path = packaged_checkpoint("compact")
    with SharedEngine(load_engine(path, "incremental")) as shared, load_engine(path, "torch") as oracle:

        def one(seed: int) -> float:
            session, person = shared.lend().session(), Person(seed, oracle.shapes)
            worst = 0.0
            for _ in range(10):
                person.audio.hop(10, 0)
                window = person.window()
                answer = session.infer(window)
                with lock:
                    whole = oracle.infer(window.inputs(oracle.shapes))
                worst = max(worst, float(np.abs(answer - whole).max()))
            return worst

        lock = threading.Lock()
        with ThreadPoolExecutor(4) as pool:
            assert max(pool.map(one, range(4))) <= 1e-5
        assert shared.calls == 0
