from __future__ import annotations

import threading

import pytest

from emi_live.errors import StageError
from emi_live.health import Health
from emi_live.messages import MAX_REASON
from emi_live.worker import Backoff, Worker

NO_WAIT = Backoff(first_s=0.001, last_s=0.001)


def test_a_body_that_returns_ends_its_worker_and_runs_the_exit_hook() -> None:
    health, said = Health(), []
    worker = Worker("face", lambda stop: None, health, on_exit=lambda: said.append("bye"))
    worker.start()
    assert worker.join(5.0)
    assert health.status("face").state == "ended"
    assert said == ["bye"]
    assert worker.error is None


def test_a_body_may_report_its_end() -> None:
    health = Health()
    worker = Worker("file", lambda stop: health.report("file", "ended", "the file may be cut off"), health)
    worker.start()
    assert worker.join(5.0)
    assert health.status("file").detail == "the file may be cut off"


def test_a_body_that_reports_its_end_and_raises_has_ended_and_is_broken() -> None:
    health, runs = Health(), []

    def body(stop: threading.Event) -> None:
        runs.append(1)
        health.report("file", "ended", "its sound could be read to 1.0 s")
        raise ValueError("its sound")

    worker = Worker("file", body, health, restart=NO_WAIT)
    worker.start()
    assert worker.join(5.0)
    assert len(runs) == 1
    assert str(worker.broken) == "its sound"
    assert health.status("file").state == "ended"


def test_a_failing_body_is_run_again_after_a_back_off() -> None:
    health = Health()
    attempts: list[int] = []

    def body(stop: threading.Event) -> None:
        attempts.append(len(attempts))
        if len(attempts) < 3:
            raise RuntimeError(f"attempt {len(attempts)}")

    worker = Worker("face", body, health, restart=NO_WAIT)
    worker.start()
    assert worker.join(5.0)
    assert len(attempts) == 3
    assert str(worker.error) == "attempt 1"
    assert worker.broken is None
    assert health.snapshot().counters["face.failures"] == 2
    assert health.status("face").state == "ended"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_body_that_ends_itself_the_hard_way_is_run_again_too(kind: type[BaseException]) -> None:
    health = Health()
    attempts: list[int] = []

    def body(stop: threading.Event) -> None:
        attempts.append(len(attempts))
        if len(attempts) < 3:
            raise kind("a library called exit")

    worker = Worker("face", body, health, restart=NO_WAIT)
    worker.start()
    assert worker.join(5.0)
    assert len(attempts) == 3
    assert health.snapshot().counters["face.failures"] == 2
    assert isinstance(worker.error, StageError)
    assert str(worker.error) == f"{kind.__name__}: a library called exit"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, RuntimeError])
def test_what_a_body_raises_when_it_is_stopped_is_no_failure(kind: type[BaseException]) -> None:
    health = Health()

    def body(stop: threading.Event) -> None:
        assert stop.wait(5.0)
        raise kind

    worker = Worker("speech", body, health, restart=NO_WAIT)
    worker.start()
    worker.request_stop()
    assert worker.join(5.0)
    assert worker.error is None
    assert "speech.failures" not in health.snapshot().counters


def test_attempts_are_bounded_and_the_failure_stays_visible() -> None:
    health = Health()

    def body(stop: threading.Event) -> None:
        raise ValueError("no such device")

    worker = Worker("camera", body, health, restart=Backoff(first_s=0.001, attempts=2))
    worker.start()
    assert worker.join(5.0)
    status = health.status("camera")
    assert (status.state, status.detail) == ("failed", "ValueError: no such device")
    assert health.snapshot().counters["camera.failures"] == 2


def test_failures_are_counted_in_a_row() -> None:
    """Three failures, each after a healthy stretch: a bound of two in a row is never reached."""
    runs: list[int] = []

    def body(stop: threading.Event) -> None:
        runs.append(len(runs))
        if len(runs) <= 3:
            raise RuntimeError("now and then")

    worker = Worker("fusion", body, Health(), restart=Backoff(first_s=0.001, attempts=2, healthy_s=0.0))
    worker.start()
    assert worker.join(5.0)
    assert len(runs) == 4


def test_stop_ends_a_wait_at_once_even_within_a_long_back_off() -> None:
    failed = threading.Event()

    def body(stop: threading.Event) -> None:
        failed.set()
        raise RuntimeError("down")

    worker = Worker("camera", body, Health(), restart=Backoff(first_s=600, last_s=600))
    worker.start()
    assert failed.wait(5.0)
    worker.request_stop()
    assert worker.join(5.0)


def test_a_body_that_does_not_stop_is_reported_and_left_behind() -> None:
    release = threading.Event()

    def body(stop: threading.Event) -> None:
        release.wait(30)

    worker = Worker("camera", body, Health())
    worker.start()
    worker.request_stop()
    assert not worker.join(0.01)
    release.set()
    assert worker.join(5.0)


def test_joining_a_worker_that_never_started_is_fine() -> None:
    assert Worker("sink", lambda stop: None, Health()).join(0.1)


def test_back_off_doubles_up_to_its_last_value() -> None:
    backoff = Backoff(first_s=0.25, last_s=3.0)
    assert [backoff.delay_s(n) for n in (1, 2, 3, 4, 5, 99)] == [0.25, 0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_library_s_error_is_escaped_and_fits_a_reason_on_the_bus() -> None:
    health = Health()

    def body(stop: threading.Event) -> None:
        raise RuntimeError("\x1b]0;owned\x07\n" + "x" * 5000)

    worker = Worker("camera", body, health)
    worker.start()
    assert worker.join(5.0)
    detail = health.status("camera").detail
    assert detail.startswith("RuntimeError: \\x1b]0;owned\\x07\\nxxx")
    assert detail.isprintable()
    assert len(detail) <= MAX_REASON
