"""An engine leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from functools import partial
from pathlib import Path

import pytest

from emi_live import LiveConfig, LiveEngine
from emi_live.demo import demo_stages
from emi_live.errors import ConfigurationError
from emi_live.messages import Estimate
from tests.live.end_to_end.support import PROGRAM
from tests.support.waiting import until

SCRIPT = partial(demo_stages, length_s=12.0)


def open_descriptors() -> set[str]:
    """What the process has open, sockets and pipes without their numbers."""
    names = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            names.add(f"{entry.name} {re.sub(r'[0-9]+', 'N', os.readlink(entry))}")
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return names


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files through /proc")
def test_twenty_runs_leave_no_thread_and_no_socket() -> None:
    def run_once() -> None:
        with LiveEngine(LiveConfig(), make_stages=SCRIPT) as live:
            assert next(live.estimates()).t_s > 0

    run_once()  # libraries keep a pool or two from their first use on
    threads, descriptors = threading.active_count(), open_descriptors()
    for _ in range(20):
        run_once()
    assert threading.active_count() == threads
    assert len(open_descriptors()) <= len(descriptors)


def test_an_engine_that_never_started_has_nothing_to_give_and_can_be_closed() -> None:
    engine = LiveEngine(LiveConfig())
    with pytest.raises(ConfigurationError, match="not running"):
        engine.latest()
    engine.close()
    engine.close()


def test_a_consumer_may_stop_in_the_middle() -> None:
    with LiveEngine(LiveConfig(), make_stages=SCRIPT) as live:
        for estimate in live.estimates():
            if estimate.t_s > 0.5:
                break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("emi-")]


class SlowSink:
    """Holds on to its first estimate until it is let go."""

    name = "slow"
    finished = False

    def __init__(self) -> None:
        self.holds, self.let_go, self.closed = threading.Event(), threading.Event(), threading.Event()

    def open(self) -> None: ...

    def write(self, estimate: Estimate) -> None:
        self.holds.set()
        self.let_go.wait(30)

    def idle(self) -> None: ...

    def close(self) -> None:
        self.closed.set()


def test_a_part_that_does_not_stop_is_not_waited_for_and_released_when_it_has(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = SlowSink()
    with LiveEngine(LiveConfig(), make_stages=SCRIPT, sinks=[sink]) as live:
        assert live._parts is not None
        context = live._parts.bus._context
        assert sink.holds.wait(10)
    assert "sink-slow did not stop" in caplog.text
    assert not sink.closed.is_set()
    assert not context.closed
    sink.let_go.set()
    assert sink.closed.wait(10)
    until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("emi-")])
    assert context.closed


def test_latest_never_waits_and_gives_the_newest() -> None:
    with LiveEngine(LiveConfig(), make_stages=SCRIPT) as live:
        assert live.latest() is None
        seen = [next(live.estimates()).seq, next(live.estimates()).seq]
    assert seen == [0, 1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_program_cleanly(number: int) -> None:
    program = subprocess.Popen(
        [PROGRAM, "--demo", "--no-ui", "--json", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert all(program.stdout.readline().startswith('{"seq":') for _ in range(3))
    program.send_signal(number)
    _, stderr = program.communicate(timeout=10)
    assert program.returncode == 130
    assert "estimates" in stderr
    assert "Traceback" not in stderr
    assert "did not stop" not in stderr


def test_a_reader_that_goes_away_ends_the_program() -> None:
    done = subprocess.run(
        f"{PROGRAM} --demo --no-ui --json - | head -n 2",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert len(done.stdout.splitlines()) == 2
    assert "Traceback" not in done.stderr
