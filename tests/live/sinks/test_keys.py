from __future__ import annotations

import json
import os
import pty
import termios
import threading
from collections.abc import Iterator

import msgspec
import pytest

from emi_live.health import Health
from emi_live.sinks.jsonl import to_line
from emi_live.sinks.terminal import Controls, Keyboard, TerminalSink
from tests.live.bus.packets import estimate
from tests.live.sinks.test_terminal import terminal
from tests.support.fakes import FakeClock

GUARD_S = 20.0  # only so that a fault cannot hang the suite


class Desk:
    """A person at a terminal: presses keys, and waits for their effect."""

    def __init__(self) -> None:
        self.quits = 0
        self.marks = 0
        self.acted = threading.Event()
        self.controls = Controls(self._quit, self._mark)

    def _quit(self) -> None:
        self.quits += 1
        self.acted.set()

    def _mark(self) -> int:
        self.marks += 1
        self.acted.set()
        return self.marks


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    """The two ends of a terminal: where a person types, and where a program reads."""
    typed, read = pty.openpty()
    yield typed, read
    os.close(typed)
    os.close(read)


def raw(descriptor: int) -> bool:
    return not termios.tcgetattr(descriptor)[3] & termios.ICANON


def test_each_key_does_what_the_line_says() -> None:
    desk = Desk()
    controls = desk.controls
    for key in "m ?m":
        controls.press(key)
    assert (controls.markers, controls.paused, controls.helping) == (2, True, False)
    controls.press("?")
    assert controls.helping
    controls.press("x")  # takes the help away and does nothing else
    assert (controls.helping, controls.markers, controls.paused, desk.quits) == (False, 2, True, 0)
    before = controls.changes
    controls.press("x")
    assert controls.changes == before
    controls.press(" ")
    controls.press("q")
    assert (controls.paused, controls.quitting, desk.quits) == (False, True, 1)


def test_keys_are_read_one_by_one_and_the_terminal_is_restored(ends: tuple[int, int]) -> None:
    typed, read = ends
    before = termios.tcgetattr(read)
    desk = Desk()
    with Keyboard(desk.controls, Health(), descriptor=read):
        assert raw(read)
        assert desk.controls.active
        os.write(typed, b"\x1b[A")  # an arrow means nothing, not `[` and `A`
        os.write(typed, b"m")
        assert desk.acted.wait(GUARD_S)
    assert termios.tcgetattr(read) == before
    assert (desk.marks, desk.controls.active) == (1, False)


def test_the_terminal_is_restored_after_an_exception_and_a_broken_reader(
    ends: tuple[int, int],
) -> None:
    typed, read = ends
    before = termios.tcgetattr(read)
    with pytest.raises(KeyboardInterrupt), Keyboard(Desk().controls, Health(), descriptor=read):
        raise KeyboardInterrupt
    assert termios.tcgetattr(read) == before

    def fail() -> int:
        raise RuntimeError("no engine")

    health = Health()
    keyboard = Keyboard(Controls(lambda: None, fail), health, descriptor=read)
    with keyboard:
        os.write(typed, b"m")
        assert keyboard._worker.join(GUARD_S)
        assert termios.tcgetattr(read) == before
    assert health.snapshot().counters == {"keys.failures": 1}


def test_what_is_piped_in_is_left_alone() -> None:
    read, write = os.pipe()
    os.write(write, b"qqq")
    desk = Desk()
    with Keyboard(desk.controls, Health(), descriptor=read):
        assert not desk.controls.active
    assert os.read(read, 9) == b"qqq"
    assert desk.quits == 0
    os.close(read)
    os.close(write)


def test_a_paused_view_stands_still_while_estimates_go_on() -> None:
    clock, desk = FakeClock(), Desk()
    console, output = terminal()
    sink = TerminalSink(Health(), controls=desk.controls, console=console, clock=clock)
    sink.open()

    def drawn(joy: float) -> str:
        output.truncate(0)
        clock.advance(10**9)
        sink.write(estimate(8.2, joy))
        return output.getvalue()

    assert "0.41" in drawn(0.41)
    desk.controls.press(" ")
    clock.advance(10**8)
    sink.idle()
    assert "PAUSED" in output.getvalue()
    assert "0.41" in drawn(0.63)
    desk.controls.press(" ")
    assert "0.74" in drawn(0.74)
    sink.close()
    sink.open()  # after Ctrl-Z and fg
    sink.close()


def test_a_marker_is_named_in_the_line_of_its_estimate_alone() -> None:
    assert "marker" not in json.loads(to_line(estimate()))
    assert json.loads(to_line(msgspec.structs.replace(estimate(), marker=2)))["marker"] == 2
