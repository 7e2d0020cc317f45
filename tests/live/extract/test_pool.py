from __future__ import annotations

import gc
import os
import signal
import threading
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path

import psutil
import pytest

from emi_live.errors import ConfigurationError, StageError
from emi_live.extract.pool import Do, Job, Link, Pool, Ready, Refused, Task, Written, serve
from emi_models.errors import EmiError, ModelUnavailableError
from tests.live.extract.bodies import (
    READY,
    entry_of,
    failing,
    hungry,
    lacking,
    obedient,
    stillborn,
    three_at_once,
)
from tests.support.waiting import until


def jobs(*ids: str, folder: Path = Path()) -> list[Job]:
    return [Job(id=name, path=str(folder / name), name=f"{name}.mp4", size=1, mtime_ns=1) for name in ids]


def workers() -> int:
    """Processes of this one that are worker processes."""
    return sum("spawn_main" in " ".join(child.cmdline()) for child in psutil.Process().children())


@pytest.mark.slow
def test_every_clip_is_answered_once_whatever_the_number_of_processes() -> None:
    ids = [f"{'refuse' if number % 3 == 0 else 'clip'}{number}" for number in range(20)]
    with Pool(3, obedient) as pool:
        assert pool.ready() == READY
        done = list(pool.run(jobs(*ids)))
        assert workers() <= 3
    assert workers() == 0
    assert sorted(d.id if isinstance(d, Refused) else d.entry.id for d in done) == sorted(ids)
    assert {d.id for d in done if isinstance(d, Refused)} == {name for name in ids if "refuse" in name}


def test_a_clip_that_kills_its_process_is_refused_and_the_others_are_done() -> None:
    with Pool(1, obedient) as pool:
        pool.ready()
        done = list(pool.run(jobs("a", "die", "b", "c")))
    assert [d.entry.id for d in done if isinstance(d, Written)] == ["a", "b", "c"]
    (refused,) = [d for d in done if isinstance(d, Refused)]
    assert refused == Refused(id="die", reason="the worker process was killed by signal 9")


@pytest.mark.slow
def test_a_process_has_several_clips_and_those_of_one_that_died_are_done_one_by_one(tmp_path: Path) -> None:
    names = ["a", "b", "die", "c", "d", "e"]
    with Pool(1, three_at_once, str(tmp_path / "log")) as pool:
        assert pool.ready().at_once == 3
        done = list(pool.run(jobs(*names)))
    assert sorted(d.entry.id for d in done if isinstance(d, Written)) == ["a", "b", "c", "d", "e"]
    assert [d.id for d in done if isinstance(d, Refused)] == ["die"]
    held = [line.split() for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines()]
    assert held == [["a", "b", "die"], ["a"], ["b"], ["die"], ["c", "d", "e"]]


@pytest.mark.slow
def test_where_no_clip_kills_by_itself_there_are_fewer_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"clip{number}" for number in range(9)]
    with Pool(1, hungry, str(tmp_path / "log")) as pool:
        pool.ready()
        done = list(pool.run(jobs(*names)))
    assert sorted(d.entry.id for d in done if isinstance(d, Written)) == names
    begun = (tmp_path / "log").read_text(encoding="utf-8").split()
    assert len(begun) - len(names) == 2, "it dies with four, with two, and not again"
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "a worker process was killed by signal 9 with 4 clips at once: each is done again alone",
        "no clip kills by itself; from now on 2 at once",
        "a worker process was killed by signal 9 with 2 clips at once: each is done again alone",
        "no clip kills by itself; from now on 1 at once",
    ]


class Meeting:
    """A task whose clips wait for each other, two by two."""

    debug = True
    device = "cpu"

    def open(self, opened: ExitStack) -> tuple[Ready, Do]:
        both = threading.Barrier(2)

        def do(job: Job) -> Written:
            both.wait(10)
            return Written(entry=entry_of(job), damaged=0)

        return replace(READY, at_once=2), do


class Leaving:
    """A task that leaves of each clip what only Python's collector frees."""

    debug = True
    device = "cpu"

    def __init__(self) -> None:
        self.left: list[weakref.ref[Leaving]] = []

    def open(self, opened: ExitStack) -> tuple[Ready, Do]:
        def do(job: Job) -> Written:
            rest = Leaving()
            rest.itself = rest  # type: ignore[attr-defined]
            self.left.append(weakref.ref(rest))
            return Written(entry=entry_of(job), damaged=0)

        return READY, do


def answers_of(task: Task, *names: str) -> list[str]:
    """The clips that a worker in a thread of this process has written."""
    ours, theirs = Pipe()
    worker = threading.Thread(target=serve, args=(theirs, task))
    worker.start()
    link = Link(ours)
    assert isinstance(link.receive(), Ready)
    for job in jobs(*names):
        link.send(job)
    answers = [link.receive() for _ in names]
    ours.close()
    worker.join()
    gc.unfreeze()  # a process of its own would have ended
    return sorted(d.entry.id for d in answers if isinstance(d, Written))


def test_a_worker_does_as_many_clips_at_the_same_time_as_it_says() -> None:
    assert answers_of(Meeting(), "a", "b", "c", "d") == ["a", "b", "c", "d"]


def test_a_worker_keeps_nothing_of_a_clip() -> None:
    task = Leaving()
    gc.disable()
    try:
        assert answers_of(task, "a", "b") == ["a", "b"]
        assert [rest() for rest in task.left] == [None, None]
    finally:
        gc.enable()


@pytest.mark.slow
def test_processes_that_keep_dying_end_the_run() -> None:
    with Pool(1, obedient) as pool:
        pool.ready()
        with pytest.raises(StageError, match="3 worker processes"):
            list(pool.run(jobs("die1", "die2", "die3", "a")))


def test_a_full_disk_ends_the_run() -> None:
    with Pool(1, obedient) as pool:
        pool.ready()
        with pytest.raises(ConfigurationError, match="disk"):
            list(pool.run(jobs("a", "full", "b")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "error", "why"),
    [
        (lacking, ModelUnavailableError, "text cannot be extracted: no model.*or --without text"),
        (failing, ConfigurationError, "another one's"),
        (stillborn, StageError, "ended with code 7"),
    ],
)
def test_what_keeps_a_process_from_working_is_said(
    body: Callable[..., None], error: type[EmiError], why: str
) -> None:
    with Pool(1, body) as pool, pytest.raises(error, match=why):
        pool.ready()
    assert workers() == 0


def test_an_interrupt_does_not_reach_the_workers(tmp_path: Path) -> None:
    """A terminal sends it to all processes; the main one alone decides."""

    def interrupt_children() -> None:
        until((tmp_path / "hang").exists)
        for process in psutil.Process().children():
            process.send_signal(signal.SIGINT)
        (tmp_path / "hang.go").touch()

    interrupter = threading.Thread(target=interrupt_children)
    with Pool(1, obedient) as pool:
        pool.ready()
        interrupter.start()
        done = list(pool.run(jobs("hang", folder=tmp_path)))
    interrupter.join()
    assert [type(d) for d in done] == [Written]


@pytest.mark.slow
def test_an_interrupt_ends_all_processes_whatever_they_do(tmp_path: Path) -> None:
    def interrupt() -> None:
        until((tmp_path / "hang").exists)
        os.kill(os.getpid(), signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt), Pool(1, obedient) as pool:  # noqa: PT012 # it comes at any time
        pool.ready()
        interrupter.start()
        list(pool.run(jobs("a", "hang", folder=tmp_path)))
    interrupter.join()
    assert workers() == 0
