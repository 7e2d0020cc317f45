"""Sessions of several threads on one engine: one call is a batch, and each thread gets its own rows."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emi_engine import EngineError, load_engine
from emi_live import SharedEngine
from emi_models.checkpoint import packaged_checkpoint
from emi_models.inputs import COMPACT_SHAPES, FusionInputs, InputError
from tests.engine.incremental.streams import Person
from tests.support.fakes import SMALL_SHAPES, FakeEngine

PATIENT_S = 30.0  # nobody waits for it: batches are full before


class EchoEngine(FakeEngine):
    """Returns each row's first text value; refuses a row of 13. Records the sizes of batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.inside = threading.Lock()

    def infer(self, window: FusionInputs) -> NDArray[np.float32]:
        assert self.inside.acquire(blocking=False), "two threads at a time"
        try:
            self.batches.append(window.batch)
            if bool((window.text[:, 0] == 13).any()):
                raise EngineError("13 is not an intensity")
            return np.repeat(window.text[:, :1].numpy(), 6, axis=1)
        finally:
            self.inside.release()


def saying(value: float) -> FusionInputs:
    window = FusionInputs.empty(SMALL_SHAPES)
    window.text[0, 0] = value
    return window


def test_windows_that_come_together_are_one_call_and_each_gets_its_own() -> None:
    engine = EchoEngine()
    with SharedEngine(engine, most=8, wait_s=PATIENT_S) as shared, ThreadPoolExecutor(8) as pool:
        lent = [shared.lend() for _ in range(8)]
        for _ in range(20):
            answers = list(pool.map(lambda i: lent[i].infer(saying(i)), range(8)))
            assert [float(answer[0, 0]) for answer in answers] == list(range(8))
        assert (shared.calls, shared.rows) == (20, 160)
    assert engine.batches == [8] * 20
    assert engine.closed


def test_a_lone_window_waits_no_longer_than_it_must() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.001  # each look at the clock takes a millisecond
        return now[0]

    with SharedEngine(EchoEngine(), wait_s=0.005, clock=clock) as shared:
        assert shared.infer(saying(3))[0, 0] == 3
        assert shared.calls == 1
    assert now[0] <= 0.01


def test_a_refused_window_fails_its_sender_alone() -> None:
    with SharedEngine(EchoEngine(), most=4, wait_s=PATIENT_S) as shared, ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(shared.infer, saying(value)) for value in (1, 13, 2, 3)]
        assert [float(futures[i].result()[0, 0]) for i in (0, 2, 3)] == [1, 2, 3]
        with pytest.raises(EngineError, match="13"):
            futures[1].result()
        with pytest.raises(InputError):
            shared.infer(FusionInputs(*(torch.zeros(1) for _ in range(8))))


def test_an_error_of_the_runtime_s_own_reaches_everybody_as_it_is() -> None:
    class Exhausted(EchoEngine):
        """Has memory for one window at a time, and none for a window of 13."""

        def infer(self, window: FusionInputs) -> NDArray[np.float32]:
            if window.batch > 1 or float(window.text[0, 0]) == 13:
                raise MemoryError("no room on the GPU")
            return super().infer(window)

    with SharedEngine(Exhausted(), most=3, wait_s=PATIENT_S) as shared, ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(shared.infer, saying(value)) for value in (1, 13, 2)]
        assert [float(futures[i].result()[0, 0]) for i in (0, 2)] == [1, 2]
        with pytest.raises(MemoryError, match="room"):
            futures[1].result()
        assert (shared.calls, shared.rows) == (1, 3)


def test_a_caller_that_is_interrupted_while_it_waits_does_not_hold_up_the_others() -> None:
    looks: list[float] = []

    def clock() -> float:
        looks.append(0.0)
        if len(looks) == 2:  # the first caller's, about to wait for others
            raise KeyboardInterrupt
        return 0.0

    with SharedEngine(EchoEngine(), most=2, wait_s=PATIENT_S, clock=clock) as shared:
        with pytest.raises(KeyboardInterrupt):
            shared.infer(saying(1))
        with ThreadPoolExecutor(2) as pool:
            answers = [pool.submit(shared.infer, saying(value)) for value in (2, 3)]
            assert [float(answer.result(PATIENT_S)[0, 0]) for answer in answers] == [2, 3]


def test_what_is_lent_is_given_back_without_closing_it_for_others() -> None:
    engine = EchoEngine()
    with SharedEngine(engine, wait_s=0.0) as shared:
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
        SharedEngine(load_engine(path, "onnxruntime"), most=16, wait_s=PATIENT_S) as shared,
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
            assert (shared.calls, shared.rows) == (hop + 1, 16 * (hop + 1))
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
with SharedEngine(load_engine(packaged_checkpoint("compact"), "auto"), most=2, wait_s=30.0) as shared:
    sessions = [shared.lend().session() for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda s: s.infer(StreamWindow.empty(COMPACT_SHAPES)), sessions))
    print([answer.shape for answer in answers], shared.calls)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (run.stdout.strip(), run.returncode) == ("[(1, 6), (1, 6)] 1", 0), run.stderr


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
