"""What all peers share: a peer that is slow, dead or gone costs the engine nothing, and is told once."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from importlib.metadata import EntryPoint

import pytest

from emi_live import Estimate
from emi_live.clock import offset_ns
from emi_live.errors import ConfigurationError
from emi_live.health import HealthSnapshot
from emi_live.sinks.peers import (
    Clocks,
    Peer,
    PeerLostError,
    Run,
    Spoken,
    host_and_port,
    open_peer,
)
from emi_live.sinks.peers.sink import PeerSink
from emi_live.sinks.viewstate import losses
from tests.live.end_to_end.test_outputs import LINES, pushed
from tests.support.peers import HOP_S, show
from tests.support.waiting import until


class ListPeer(Peer):
    """Keeps what it gets; `absent` makes it unreachable."""

    kind = "list"
    where = "a list"

    def __init__(self, address: str = "", *, lan: bool = False) -> None:
        super().__init__(address, lan=lan)
        self.got: list[Estimate | Spoken] = []
        self.runs: list[Run] = []
        self.absent = threading.Event()
        self.tries = 0
        self.closed = 0

    def open(self, run: Run) -> None:
        self.tries += 1
        if self.absent.is_set():
            raise PeerLostError("nobody is there")
        self.runs.append(run)

    def send(self, event: Estimate | Spoken) -> None:
        if self.absent.is_set():
            raise ConnectionResetError("it went away")
        self.got.append(event)

    def close(self) -> None:
        self.closed += 1

    @property
    def numbers(self) -> list[int]:
        return [event.seq for event in self.got if isinstance(event, Estimate)]


class StuckPeer(ListPeer):
    """Never returns from its first `send` until `go` is set."""

    kind = "stuck"
    queue = 8

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def send(self, event: Estimate | Spoken) -> None:
        self.go.wait(60)
        super().send(event)


@pytest.mark.slow
@pytest.mark.alone
def test_every_peer_gets_every_estimate_and_the_words() -> None:
    first, second = ListPeer(), ListPeer()
    with show([first, second], seconds=2.0) as running:
        running.wait_for(19)  # of 20
    assert first.numbers == second.numbers == [estimate.seq for estimate in running.estimates]
    words = [word.text for event in first.got if isinstance(event, Spoken) for word in event.words]
    assert words == [f"w{number}" for number in range(1, len(words) + 1)]  # each once
    assert len(words) >= 6
    assert [event.partial for event in first.got if isinstance(event, Spoken)][:2] == ["w1", "w2"]
    (run,) = first.runs
    assert run.names == running.estimates[0].names
    assert run.hop_s == HOP_S
    assert first.closed >= 1
    assert not [name for name in running.engine.health.snapshot().counters if name.startswith("to-")]


def test_what_a_slow_peer_was_not_sent_by_the_end_is_counted() -> None:
    class SlowPeer(ListPeer):
        kind = "slow"

        def send(self, event: Estimate | Spoken) -> None:
            threading.Event().wait(0.4)  # four estimates and two words come meanwhile
            super().send(event)

    peer = SlowPeer()
    with show([peer]) as running:
        running.wait_for(8)
    until(lambda: running.engine.health.status("to-slow").state == "ended")
    assert running.counter("to-slow.dropped") >= 5
    assert len(peer.numbers) <= 5


@pytest.mark.slow
@pytest.mark.alone
def test_a_peer_that_takes_nothing_delays_neither_the_engine_nor_another() -> None:
    stuck, well = StuckPeer(), ListPeer()
    with show([stuck, well]) as running:
        running.wait_for(stuck.queue + 20)
        dropped = running.counter("to-stuck.dropped")
        began = time.monotonic()
        stuck.go.set()
    assert time.monotonic() - began < 5
    assert dropped >= 15
    assert well.numbers == list(range(len(well.numbers)))
    assert len(well.numbers) >= stuck.queue + 19
    assert running.counter("fusion.missed_hops") <= 1
    assert running.counter("to-list.dropped") == 0


@pytest.mark.slow
def test_a_peer_that_goes_and_comes_back_is_told_once_and_gets_the_newest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    peer = ListPeer()
    with caplog.at_level(logging.INFO, "emi_live.health"), show([peer]) as running:
        running.wait_for(5)
        peer.absent.set()
        tries = peer.tries
        until(lambda: peer.tries >= tries + 2)
        assert running.engine.health.status("to-list").state == "failed"
        before = len(running.estimates)
        peer.absent.clear()
        until(lambda: running.engine.health.status("to-list").state == "running")
        until(lambda: len(peer.numbers) > 8)
    gap = [after - one for one, after in zip(peer.numbers, peer.numbers[1:], strict=False)]
    assert max(gap) > 3  # what was made meanwhile is not sent late
    assert before - peer.numbers[gap.index(max(gap))] > 0
    told = [record.message for record in caplog.records if record.message.startswith("to-list: ")]
    assert [line.split()[1] for line in told[:3]] == ["running", "failed", "running"]
    counters = running.engine.health.snapshot().counters
    assert counters["to-list.lost"] == 1
    assert counters["to-list.dropped"] >= 1


def test_losses_of_a_peer_are_named_as_the_user_wrote_it() -> None:
    found = losses(HealthSnapshot({"to-mqtt.lost": 2, "to-osc-2.dropped": 3}, {}))
    assert {loss.words for loss in found} == {"--to mqtt lost 2 times", "3 messages lost on --to osc-2"}


@pytest.mark.alone
def test_a_peer_that_was_never_there_lets_the_run_end_in_time() -> None:
    peer = ListPeer()
    peer.absent.set()
    with show([peer], seconds=1.0) as running:
        running.wait_for(9)  # of 10
    assert peer.numbers == []
    assert running.counter("to-list.lost") == 1
    status = running.engine.health.status("to-list")
    assert (status.state, status.detail) == ("ended", "nobody is there; tried again")


@pytest.mark.alone
def test_a_fault_of_a_peer_is_counted_and_does_not_end_the_run() -> None:
    class Faulty(ListPeer):
        kind = "faulty"

        def send(self, event: Estimate | Spoken) -> None:
            raise RuntimeError("a fault of the library")

    with show([Faulty()]) as running:
        until(lambda: running.counter("to-faulty.failures") >= 2)
        running.wait_for(len(running.estimates) + 3)
    assert running.counter("fusion.missed_hops") <= 1


def test_a_marker_has_its_time_and_label_in_every_sink() -> None:
    peer = ListPeer()
    with show([peer]) as running:
        running.wait_for(3)
        t_ns = time.monotonic_ns() - 250_000_000
        assert running.engine.mark("stimulus on", t_ns) == 1
        assert running.engine.mark(origin="key") == 2
        until(lambda: any(isinstance(event, Estimate) and event.marks for event in peer.got))
    (marked,) = [event for event in peer.got if isinstance(event, Estimate) and event.marks]
    first, second = marked.marks
    assert (first.number, first.label, first.origin, first.t_ns) == (1, "stimulus on", "python", t_ns)
    assert marked.marker == second.number == 2
    line = marked.to_json()["markers"]
    assert line[0]["t"] == pytest.approx(marked.t_s - (marked.t_ns - t_ns) / 1e9, abs=0.001)
    assert [entry["from"] for entry in line] == ["python", "key"]


@pytest.mark.parametrize("label", ["x" * 101, "ä" * 200])
def test_a_marker_that_cannot_be_sent_is_refused(label: str) -> None:
    with (
        show([ListPeer()], seconds=0.5) as running,
        pytest.raises(ConfigurationError, match="100 characters"),
    ):
        running.engine.mark(label)


def test_more_markers_than_an_estimate_holds_are_refused_and_the_others_arrive() -> None:
    peer, taken = ListPeer(), list[int]()
    with show([peer]) as running:
        running.wait_for(1)

        def too_many() -> None:
            for _ in range(100_000):
                taken.append(running.engine.mark("m"))

        with pytest.raises(ConfigurationError, match="wait for the next estimate"):
            too_many()
        until(lambda: any(event.marker == taken[-1] for event in peer.got if isinstance(event, Estimate)))
    marks = [mark for event in peer.got if isinstance(event, Estimate) for mark in event.marks]
    assert [mark.number for mark in marks] == taken


def test_a_kind_is_found_by_its_name() -> None:
    points = [EntryPoint("list", f"{__name__}:ListPeer", "emi.peers")]
    with pytest.raises(ConfigurationError, match="list:"):
        open_peer("parrot:x", points=points)
    with pytest.raises(ConfigurationError, match="list:"):
        open_peer("list", points=points)
    with pytest.raises(ConfigurationError, match="reinstall"):
        open_peer("list:", points=[EntryPoint("list", "no.such.module:Peer", "emi.peers")])


def test_all_kinds_of_ours_can_be_found_without_loading_their_libraries() -> None:
    code = (
        "import sys, emi_live.cli.live; from emi_live.sinks.peers import known_kinds; print(*known_kinds()); "
        "heavy = ('pylsl', 'paho', 'pythonosc', 'cyclonedds', 'foxglove', 'rerun'); "
        "print([n for n in heavy if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kinds, loaded = done.stdout.splitlines()
    assert {"lsl", "osc", "mqtt", "psi", "ros2", "foxglove", "rerun"} <= set(kinds.split())
    assert loaded == "[]"


@pytest.mark.parametrize("host", ["192.0.2.7", "0.0.0.0", "robot.local", "::"])  # noqa: S104
def test_another_machine_needs_lan(host: str) -> None:
    address = f"[{host}]:9000" if ":" in host else f"{host}:9000"
    with pytest.raises(ConfigurationError, match="--lan"):
        host_and_port(f"osc:{address}", address, default_port=None, lan=False)
    assert host_and_port(f"osc:{address}", address, default_port=None, lan=True) == (host, 9000)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("", ("127.0.0.1", 1883)),
        ("localhost", ("localhost", 1883)),
        ("[::1]:7", ("::1", 7)),
        (":8", ("127.0.0.1", 8)),
    ],
)
def test_an_address_of_this_machine_is_taken(address: str, found: tuple[str, int]) -> None:
    assert host_and_port("mqtt:", address, default_port=1883, lan=False) == found


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:"])
def test_an_invalid_port_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="port"):
        host_and_port("osc:", address, default_port=None, lan=False)


def test_the_sink_belongs_to_an_engine() -> None:
    with pytest.raises(ConfigurationError, match="LiveEngine"):
        PeerSink([ListPeer()]).open()


def test_capture_times_are_mapped_to_other_clocks() -> None:
    noted: dict[str, float] = {}
    clocks = Clocks(None, noted.__setitem__)
    now_ns = time.monotonic_ns()
    assert clocks.by("shifted", lambda: time.monotonic_ns() + 5_000_000_000, now_ns) == pytest.approx(
        now_ns + 5_000_000_000, abs=1_000_000
    )
    assert noted["clock.shifted.offset_s"] == pytest.approx(5, abs=0.001)
    assert clocks.unix_ns(now_ns) == pytest.approx(time.time_ns(), abs=100_000_000)
    assert Clocks(1_000).monotonic_ns(5) == 1_005
    assert abs(offset_ns(time.monotonic_ns)) < 1_000_000


def test_a_file_does_not_wait_for_a_peer_that_takes_nothing() -> None:
    stuck = StuckPeer()
    engine, estimates = pushed(PeerSink([stuck]))
    assert sum(1 for _ in estimates) == LINES
    dropped = engine.health.snapshot().counters["to-stuck.dropped"]
    assert dropped >= LINES - stuck.queue - 1
    stuck.go.set()
