"""Tests marked `alone` have the machine for themselves, and are not kept waiting by others that come."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

from tests.support.alone import Machine
from tests.support.waiting import until


def enter(machine: Machine, *, alone: bool) -> tuple[threading.Event, threading.Event]:
    """A test in a thread: whether its turn has come, and how to end it."""
    came, end = threading.Event(), threading.Event()

    def run() -> None:
        with machine.turn(alone=alone, next_alone=False):
            came.set()
            end.wait(20)

    threading.Thread(target=run, daemon=True).start()
    return came, end


def test_one_test_is_alone_and_the_others_are_together(tmp_path: Path) -> None:
    first, second, third, fourth = (Machine("r", tmp_path) for _ in range(4))
    with ExitStack() as running:
        running.enter_context(first.turn(alone=False, next_alone=False))
        running.enter_context(second.turn(alone=False, next_alone=False))
        came, end = enter(third, alone=True)
        assert not came.wait(0.2)  # two are there
        late, late_end = enter(fourth, alone=False)
        assert not late.wait(0.2)  # one waits to be alone
    until(came.is_set)
    assert not late.wait(0.2)
    end.set()
    until(late.is_set)
    late_end.set()


def test_nobody_comes_in_between_two_tests_that_are_alone(tmp_path: Path) -> None:
    first, second = Machine("r", tmp_path), Machine("r", tmp_path)
    with first.turn(alone=True, next_alone=True):
        came, end = enter(second, alone=False)
    assert not came.wait(0.2)
    with first.turn(alone=True, next_alone=False):
        assert not came.wait(0.2)
    until(came.is_set)
    end.set()
