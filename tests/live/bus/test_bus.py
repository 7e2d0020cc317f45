from __future__ import annotations

import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from emi_live import wire
from emi_live.bus import Bus, Publisher, Subscription
from emi_live.config import BusConfig
from emi_live.errors import ConfigurationError, WireError
from emi_live.health import Health
from emi_live.messages import END_OF_STREAM, AudioPacket, Packet, end_of_stream
from tests.live.bus.packets import estimate, same, vision
from tests.support.fakes import FakeClock
from tests.support.ports import free_port
from tests.support.waiting import until

CLIENT = Path(__file__).parents[3] / "examples" / "read_bus.py"
TRANSPORTS = ("inproc", "ipc", "tcp")


def config(transport: str, **settings: object) -> BusConfig:
    if transport == "tcp":
        settings.setdefault("base_port", free_port(len(wire.TOPICS)))
    return BusConfig.model_validate({"transport": transport, **settings})


@contextmanager
def running(*bodies: Callable[[], None]) -> Iterator[None]:
    """Run each body in a thread; an assertion that fails in one fails the test."""
    errors: list[BaseException] = []

    def guarded(body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:  # noqa: BLE001 # re-raised below, in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(body,), daemon=True) for body in bodies]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def read_until_ended(subscription: Subscription) -> list[Packet]:
    received: list[Packet] = []
    while not subscription.ended:
        packet = subscription.read()
        if packet is not None:
            received.append(packet)
        elif not subscription.wait(5.0):
            raise AssertionError(f"nothing came after {len(received)} packets")
    return received


def publish_all(publisher: Publisher, count: int) -> None:
    for index in range(count):
        publisher.publish(vision(index, features=np.full(8, index, np.float32)))
    publisher.publish(end_of_stream("vision", count))


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("publisher_first", [True, False])
def test_every_packet_arrives_in_order_from_the_first(transport: str, publisher_first: bool) -> None:
    health = Health()
    with Bus(config(transport), health, lossless=True, clock=FakeClock(77)) as bus:
        made = bus.publisher("vision") if publisher_first else None
        readers = [bus.subscriber("vision"), bus.subscriber(["vision", "audio"])]
        publisher = made or bus.publisher("vision")
        audio = bus.publisher("audio", 1)
        with running(lambda: publish_all(publisher, 300), lambda: audio.publish(end_of_stream("audio"))):
            first = read_until_ended(readers[0])
            both = read_until_ended(readers[1])
        assert [packet.seq for packet in first] == list(range(301))
        assert {packet.published_ns for packet in first} == {77}
        assert [packet.t_ns for packet in both if packet.topic == "vision"] == list(range(301))
        assert sum(packet.topic == "audio" for packet in both) == 1
    assert health.snapshot().counters == {}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_packet_is_the_same_after_the_hop(transport: str) -> None:
    with Bus(config(transport), Health(), lossless=False, clock=FakeClock()) as bus:
        publisher, reader = bus.publisher("estimate"), bus.subscriber("estimate")
        publisher.publish(estimate())
        assert reader.wait(5.0)
        received = reader.read()
        assert received is not None
        assert same(received, estimate())
        assert reader.read() is None


def test_a_large_array_is_not_copied_on_inproc_and_nobody_can_change_it() -> None:
    frames = np.zeros((300, 1027), np.float32)
    with Bus(config("inproc"), Health(), lossless=False, clock=FakeClock()) as bus:
        publisher, readers = bus.publisher("audio"), [bus.subscriber("audio"), bus.subscriber("audio")]
        publisher.publish(AudioPacket(t_ns=0, progress_ns=0, frames=frames, last_voice_ns=None))

        def read(reader: Subscription) -> Packet | None:
            assert reader.wait(5.0)
            return reader.read()

        for reader in readers:
            with ThreadPoolExecutor(1) as thread:  # the main thread copies, for the sake of Ctrl-C
                received = thread.submit(read, reader).result()
            assert isinstance(received, AudioPacket)
            assert np.shares_memory(received.frames, frames)
            assert not received.frames.flags.writeable


def test_the_main_thread_gets_a_copy_so_that_a_ctrl_c_is_not_lost() -> None:
    frames = np.zeros((300, 1027), np.float32)
    with Bus(config("inproc"), Health(), lossless=False, clock=FakeClock()) as bus:
        publisher, reader = bus.publisher("audio"), bus.subscriber("audio")
        publisher.publish(AudioPacket(t_ns=0, progress_ns=0, frames=frames, last_voice_ns=None))
        assert reader.wait(5.0)
        received = reader.read()
        assert isinstance(received, AudioPacket)
        assert not np.shares_memory(received.frames, frames)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_lossless_loses_nothing_with_room_for_one_packet_and_a_slow_reader(transport: str) -> None:
    health = Health()
    with Bus(config(transport, high_water_mark=1), health, lossless=True) as bus:
        publisher, slow, quick = bus.publisher("vision"), bus.subscriber("vision"), bus.subscriber("vision")
        received: list[Packet] = []

        def read_slowly() -> None:
            pause = threading.Event()
            while not slow.ended:
                pause.wait(0.001)
                packet = slow.read()
                if packet is not None:
                    received.append(packet)

        with running(lambda: publish_all(publisher, 400), read_slowly):
            assert [packet.seq for packet in read_until_ended(quick)] == list(range(401))
        assert [packet.seq for packet in received] == list(range(401))
    assert health.snapshot().counters == {}


@pytest.mark.parametrize("transport", ["inproc", "ipc"])
def test_live_never_waits_and_every_dropped_packet_is_counted(transport: str) -> None:
    health = Health()
    count = 20_000  # far more than the kernel's buffers take next to ours
    with Bus(config(transport, high_water_mark=5), health, lossless=False) as bus:
        publisher, reader = bus.publisher("vision"), bus.subscriber("vision")
        published = threading.Event()

        def publish() -> None:
            for index in range(count):
                publisher.publish(vision(index))
            published.set()
            publisher.publish(end_of_stream("vision", count))

        with running(publish):
            assert published.wait(60.0)  # though nobody has read
            received = read_until_ended(reader)
    dropped = health.snapshot().counters["bus.vision.dropped"]
    assert dropped > 0
    assert len(received) + dropped == count + 1


def test_as_many_packets_wait_as_the_high_water_mark_allows_at_both_ends() -> None:
    with Bus(config("inproc", high_water_mark=5), Health(), lossless=False) as bus:
        publisher, reader = bus.publisher("vision"), bus.subscriber("vision")
        for index in range(100):
            publisher.publish(vision(index))
        assert [reader.read() is not None for _ in range(11)] == [True] * 10 + [False]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_end_of_a_live_stream_arrives_once_even_where_packets_were_dropped(transport: str) -> None:
    with Bus(config(transport, high_water_mark=1), Health(), lossless=False) as bus:
        publisher, reader = bus.publisher("vision"), bus.subscriber("vision")
        with running(lambda: publish_all(publisher, 3000)):
            assert reader.wait(5.0)
            threading.Event().wait(0.3)
            received = read_until_ended(reader)
            assert received[-1].progress_ns == END_OF_STREAM
        assert reader.read() is None


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_stop_ends_a_publisher_that_waits_for_room_and_a_reader_that_waits(
    transport: str,
) -> None:
    with Bus(config(transport, high_water_mark=1), Health(), lossless=True) as bus:
        publisher, _full = bus.publisher("vision"), bus.subscriber("vision")
        empty = bus.subscriber("audio")
        stuck, sent = threading.Event(), []

        def publish_for_ever() -> None:
            while not bus._stop.is_set():
                publisher.publish(vision(features=np.zeros(4096, np.float32)))
                sent.append(1)

        def wait_for_ever() -> None:
            stuck.set()
            assert not empty.wait(3600.0)

        with running(publish_for_ever, wait_for_ever):
            assert stuck.wait(5.0)
            before = -1
            while before != len(sent):
                before = len(sent)
                threading.Event().wait(0.2)
            bus.stop()


def test_exact_mode_refuses_to_start_without_its_subscribers_and_stop_ends_that_wait() -> None:
    with Bus(config("inproc"), Health(), lossless=True) as bus:
        publisher = bus.publisher("vision", subscribers=1)
        with running(lambda: publisher.publish(vision())):
            bus.stop()


def test_a_reader_that_leaves_no_longer_delays_the_publisher() -> None:
    with Bus(config("inproc", high_water_mark=1), Health(), lossless=True) as bus:
        publisher, leaver, stayer = (
            bus.publisher("vision"),
            bus.subscriber("vision"),
            bus.subscriber("vision"),
        )
        with running(lambda: publish_all(publisher, 50)):
            assert leaver.wait(5.0)
            leaver.close()
            assert len(read_until_ended(stayer)) == 51


def test_a_socket_belongs_to_the_thread_that_uses_it() -> None:
    with Bus(config("inproc"), Health(), lossless=False) as bus:
        publisher = bus.publisher("vision")
        publisher.publish(vision())
        with (
            pytest.raises(RuntimeError, match="MainThread"),
            running(lambda: publisher.publish(vision())),
        ):
            pass


def test_a_message_that_is_not_a_packet_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    health = Health()
    with Bus(config("inproc"), health, lossless=False) as bus:
        publisher, reader = bus.publisher("vision"), bus.subscriber("vision")
        publisher.publish(vision(1))
        raw = publisher._use()
        raw.send_multipart([b"vision", b"junk", b""])
        raw.send_multipart([b"vision"])
        raw.send_multipart([b"vision"] * 1000)
        raw.send_multipart([b"visionary", b"", b""])
        publisher.publish(vision(2))
        received: list[int] = []
        while len(received) < 2 and reader.wait(5.0):
            packet = reader.read()
            if packet is not None:
                received.append(packet.t_ns)
    assert received == [1, 2]
    assert health.snapshot().counters == {"bus.vision.refused": 4}
    assert [record.name for record in caplog.records] == ["emi_live.bus"]


def test_a_flood_of_bad_messages_does_not_delay_the_reader() -> None:
    with Bus(config("inproc"), Health(), lossless=False) as bus:
        publisher, reader = bus.publisher("vision"), bus.subscriber("vision")
        publisher.publish(vision())
        for _ in range(500):
            publisher._use().send_multipart([b"vision", b"", b""])
        assert reader.wait(5.0)
        assert reader.read() is not None
        assert reader.read() is None  # after a bounded number of them


def test_what_the_bus_cannot_do_is_refused_in_one_line() -> None:
    with Bus(config("inproc"), Health(), lossless=False) as bus:
        publisher = bus.publisher("vision")
        with pytest.raises(ConfigurationError, match="vision"):
            bus.publisher("vision")
        with pytest.raises(ConfigurationError, match="faces"):
            bus.publisher("faces")
        for topics in ([], ["vision", "faces"]):
            with pytest.raises(ConfigurationError, match="topics"):
                bus.subscriber(topics)
        with pytest.raises(WireError, match="estimate"):
            publisher.publish(estimate())


def test_a_taken_port_is_an_error() -> None:
    settings = config("tcp")
    with (
        socket.create_server(("127.0.0.1", settings.base_port)),
        Bus(settings, Health(), lossless=False) as bus,
        pytest.raises(ConfigurationError, match="in use"),
    ):
        bus.publisher("vision")


def test_sockets_lie_in_a_private_folder_that_goes_away(tmp_path: Path) -> None:
    with Bus(config("ipc"), Health(), lossless=False) as bus:
        bus.publisher("vision")
        folder = bus._endpoints._folder
        assert folder is not None
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert (folder / "vision").is_socket()
    assert not folder.exists()
    named = tmp_path / "bus"
    with Bus(config("ipc", directory=named), Health(), lossless=False) as bus:
        bus.publisher("vision")
        with (
            Bus(config("ipc", directory=named), Health(), lossless=False) as other,
            pytest.raises(ConfigurationError, match="in use"),
        ):
            other.publisher("vision")
        assert (named / "vision").is_socket()


def test_the_documented_client_reads_the_sockets_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "bus"
    features = np.linspace(0, 1, 8, dtype=np.float32)
    with Bus(config("ipc", directory=folder), Health(), lossless=False) as bus:
        publisher = bus.publisher("vision", subscribers=0)
        client = subprocess.Popen([sys.executable, CLIENT, folder, "vision", "1"], stdout=subprocess.PIPE)
        with client, running(lambda: publish_while_running(publisher, features, client)):
            assert client.stdout is not None
            line = client.stdout.read().decode()
        assert client.returncode == 0
    assert "'faces': 1" in line
    assert repr(features)[:20] in line


def publish_while_running(
    publisher: Publisher, features: NDArray[np.float32], client: subprocess.Popen[bytes]
) -> None:
    for t_ns in range(1500):
        publisher.publish(vision(t_ns, features=features))
        with suppress(subprocess.TimeoutExpired):
            client.wait(0.02)
            return


def test_a_folder_that_others_can_reach_into_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(ConfigurationError, match="chmod"):
        Bus(config("ipc", directory=tmp_path), Health(), lossless=False)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="directory"):
        Bus(config("ipc", directory=tmp_path / "file" / "bus"), Health(), lossless=False)


def test_a_socket_left_behind_by_a_crash_is_taken_over_and_a_file_is_not(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "vision"))
    (tmp_path / "audio").write_text("mine")
    with Bus(config("ipc", directory=tmp_path), Health(), lossless=False) as bus:
        bus.publisher("vision")
        with pytest.raises(ConfigurationError, match="socket"):
            bus.publisher("audio")
    assert (tmp_path / "audio").read_text() == "mine"


@pytest.mark.slow
def test_close_leaves_a_socket_in_use_open_and_logs_it(caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus(config("inproc"), Health(), lossless=False)
    reader = bus.subscriber("vision")
    holding, release = threading.Event(), threading.Event()

    def hold() -> None:
        reader.read()
        holding.set()
        release.wait(10)

    with running(hold):
        assert holding.wait(5)
        bus.close()
        assert "left open" in caplog.text
        release.set()
    reader.close()
    bus._context.term()


FORGET = """
import faulthandler, gc, sys, threading, weakref
from emi_live.bus import Bus
from emi_live.config import BusConfig
from emi_live.health import Health

faulthandler.dump_traceback_later(20, exit=True)
bus = Bus(BusConfig(transport=sys.argv[1], base_port=int(sys.argv[2])), Health(), lossless=False)
reader, writer = bus.subscriber("vision"), bus.publisher("vision")
if sys.argv[3] == "in use":
    using, let_go = threading.Event(), threading.Event()

    def use(reader):
        reader.wait(0)
        using.set()
        let_go.wait()

    thread = threading.Thread(target=use, args=(reader,))
    thread.start()
    using.wait()
    bus.close()  # leaves the reader's socket open
    let_go.set()
    thread.join()
    del thread
context = weakref.ref(bus._context)
del bus, reader, writer
gc.collect()
print("collected" if context() is None else "kept")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("transport", "left"),
    # The thread that guards a port of TCP keeps a bus that is forgotten.
    [("inproc", "forgotten"), ("ipc", "forgotten"), *((name, "in use") for name in TRANSPORTS)],
)
def test_a_bus_that_was_not_closed_is_collected_without_waiting(transport: str, left: str) -> None:
    ports = str(free_port(len(wire.TOPICS)))
    command = [sys.executable, "-c", FORGET, transport, ports, left]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "collected\n", done.stderr


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_fifty_starts_and_stops_leave_no_thread_file_or_socket(transport: str) -> None:
    process = psutil.Process()
    settings = config(transport)
    before = (-1, -1)
    for round_number in range(50):
        with Bus(settings, Health(), lossless=False) as bus:
            publisher, reader = bus.publisher("vision"), bus.subscriber("vision")
            with running(lambda p=publisher: p.publish(vision())):  # type: ignore[misc] # bound now, on purpose
                assert reader.wait(5.0)
        if round_number == 4:  # by now the interpreter and libzmq hold what they keep for good
            before = (process.num_fds(), process.num_threads())
    assert process.num_fds() == before[0]
    until(lambda: process.num_threads() <= before[1])  # a thread that has ended may be counted for a moment
