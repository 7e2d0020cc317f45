"""`emi serve --cluster`: ids, the choice of a replica, taking over, and two replicas on a real Ray."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import psutil
import pytest

from emi_live.errors import SourceError
from emi_live.web.client import EmiClient, _request
from emi_live.web.protocol import SOUND, EstimateEvent, Event, Hello, StateEvent, WarningEvent
from emi_live.web.sessions import Tickets
from tests.live.web.conftest import PATIENCE_S, Served, serving
from tests.support.ports import free_port
from tests.support.strace_output import NETWORK_CALLS, read_trace
from tests.support.web import Door

SECRET, TOKEN, RAY_TOKEN = b"for tests", "for-tests", 32 * "f0"
TRACE = "trace"  # the file, in the folder of the command


def test_an_id_tells_its_server_and_none_can_be_made_up() -> None:
    one, two = Tickets("one", SECRET), Tickets("two", SECRET)
    ticket = one.issue()
    assert ticket.startswith("one.")
    assert two.foreign(ticket)
    assert not one.foreign(ticket)
    assert not Tickets("two", b"another").foreign(ticket)
    assert not any(two.foreign(wrong) for wrong in (ticket[:-1], "one.x.y", "", "one", ticket + "0"))


@dataclass(frozen=True)
class _Id:
    unique_id: str


@dataclass(frozen=True)
class _Replica:
    replica_id: _Id
    routing_stats: dict[str, Any] = field(default_factory=dict, hash=False)


def chosen(replicas: list[_Replica], found: re.Match[bytes] | None, *lost: str) -> list[list[_Replica]]:
    """The choice of a router, for which these machines do not answer."""
    from emi_live.web.routing import choose

    async def lost_among(machines: Iterable[str]) -> set[str]:
        return {*machines} & {*lost}

    return asyncio.run(choose(replicas, found, lost_among))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, as it is imported
def test_requests_of_a_session_go_to_its_replica_and_all_of_them_to_the_same_other_one_if_it_is_gone() -> (
    None
):
    pytest.importorskip("ray")
    from emi_live.web.routing import ID

    replicas = [_Replica(_Id(name)) for name in ("aaa", "bbb", "ccc", "ddd")]
    tickets = [Tickets("bbb", SECRET).issue() for _ in range(40)]
    for ticket in tickets:
        found = ID.search(f"\x94/v1/sessions/{ticket}/latest\x94".encode())
        assert chosen(replicas, found) == [[replicas[1]]]
    left = [one for one in replicas if one is not replicas[1]]
    heirs = []
    for ticket in tickets:
        found = ID.search(f"/v1/sessions/{ticket}".encode())
        ((heir,),) = chosen(left, found)
        assert chosen(left[::-1], found) == [[heir]]
        heirs.append(heir)
    assert set(heirs) == set(left), "one replica would get all people of the lost one"
    nobody = ID.search(b"/v1/sessions")
    assert chosen(replicas, nobody) == [replicas, []]
    full = [_Replica(one.replica_id, {"room": 0}) for one in replicas[:1]]
    assert chosen([*full, *replicas[1:]], nobody) == [replicas[1:], full], "who has no room is asked last"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, as it is imported
def test_nobody_is_sent_to_a_machine_that_does_not_answer() -> None:
    pytest.importorskip("ray")
    from emi_live.web.routing import ID, choose

    at = {"aaa": "m1", "bbb": "m2", "ccc": "m2", "ddd": "m3"}
    replicas = [_Replica(_Id(name), {"at": machine}) for name, machine in at.items()]
    found = ID.search(f"/v1/sessions/{Tickets('bbb', SECRET).issue()}".encode())
    asked: list[str] = []

    async def lost_among(machines: Iterable[str]) -> set[str]:
        asked.extend(machines)
        return {"m1", "m3"}

    assert asyncio.run(choose(replicas, found, lost_among)) == [[replicas[1]]]
    assert asked == ["m2"], "nobody waits for the answer of a machine that is not needed"
    left = [replicas[0], replicas[3]]
    assert chosen(replicas, found, "m2") == chosen(left, found)
    assert chosen(replicas, None, "m2") == [left, []]
    assert chosen(replicas, None, "m1", "m2", "m3") == [replicas, []]
    assert chosen(replicas, found, "m1", "m2", "m3") == [[replicas[1]]], "then it is this one that is alone"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, as it is imported
def test_a_machine_is_lost_when_its_kernel_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    from emi_live.web import routing

    monkeypatch.setattr(routing, "ANSWERS_S", 0.5)
    monkeypatch.setattr(routing, "KNOWN_S", 0.0)
    asked: list[str] = []

    async def answers(address: str) -> bool:
        asked.append(address)
        return await ask_kernel(address)

    ask_kernel = routing._answers
    monkeypatch.setattr(routing, "_answers", answers)

    async def ask() -> None:
        lost = routing.Lost()
        assert await lost.among([]) == set()
        found = asyncio.create_task(lost.among([there, ended, silent, silent]))
        await asyncio.sleep(0.1)
        threading.Event().wait(0.7)  # this program is late, and the answers wait
        assert await found == {silent}
        assert sorted(asked) == sorted([there, ended, silent])
        assert await lost.among([silent]) == {silent}
        await asyncio.sleep(0)
        assert len(asked) == 4, "it is asked again, and nobody waits for that"
        full.close()
        while await lost.among([silent]):
            await asyncio.sleep(0.05)

    with ExitStack() as opened:
        listens = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        full = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        there, silent = (f"127.0.0.1:{one.getsockname()[1]}" for one in (listens, full))
        ended = f"127.0.0.1:{free_port(1)}"
        for _ in range(4):  # the kernel answers nobody more
            one = opened.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        asyncio.run(ask())


@dataclass
class _Scaling:
    target_ongoing_requests: float


@dataclass
class _Context:
    aggregated_metrics: dict[str, dict[str, float]] | None
    config: _Scaling


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, as it is imported
@pytest.mark.parametrize(
    ("sessions", "replicas"),
    [(None, 0), ([0], 0), ([1], 1), ([2], 2), ([2, 0], 2), ([2, 2], 3), ([1, 1, 1], 3)],
)
def test_replicas_are_as_many_as_sessions_need_with_room_for_more(
    sessions: list[float] | None, replicas: int
) -> None:
    pytest.importorskip("ray")
    from emi_live.web.routing import replicas_for

    counted = None if sessions is None else {"sessions": {str(i): n for i, n in enumerate(sessions)}}
    context: Any = _Context(counted, _Scaling(0.7 * 2))
    assert replicas_for(context) == (replicas, {})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_new_replicas_start_beside_the_old_ones_as_far_as_there_are_cores() -> None:
    pytest.importorskip("ray")
    from emi_live.web.replicas import _surge

    def more(replicas: int, beside: float) -> int:
        return (_surge(replicas, beside) * replicas + 99) // 100  # as Ray calculates

    assert [more(3, beside) for beside in (-1, 0, 0.5, 1, 2, 3, float("inf"))] == [0, 0, 0, 1, 2, 3, 3]
    assert [more(100, beside) for beside in (1, 7, 100)] == [1, 7, 100]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("wanted", "runs", "room", "beside"),
    [
        ((0, 2), (0, 2), 1, (0, 1)),
        ((0, 2), (0, 2), 9, (0, 2)),
        ((0, 3), (0, 2), 1, (0, 0)),  # the free core is for the third; an old one ends before the next starts
        ((1, 2), (1, 2), 2, (1, 1)),
        ((1, 2), (0, 2), 2, (1, 0)),
        ((0, 1), (0, 3), 0, (0, 0)),
        ((1, 2), (1, 2), float("inf"), (1, 2)),
    ],
)
def test_free_cores_are_first_for_replicas_that_were_not_there_before(
    wanted: tuple[int, int], runs: tuple[int, int], room: float, beside: tuple[int, int]
) -> None:
    pytest.importorskip("ray")
    from emi_live.web.replicas import _beside

    def named(both: tuple[int, int]) -> dict[str, int]:
        return dict(zip(("Fusion", "People"), both, strict=True))

    assert _beside(named(wanted), named(runs), room) == named(beside)


def jpeg(grey: int) -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((48, 64, 3), grey, np.uint8))[1].tobytes())


def send(client: EmiClient, stop: threading.Event) -> None:
    """Pictures and sound at real pace."""
    while not stop.wait(0.04):
        now_ms = 1000 * time.monotonic()
        client.send_frame(jpeg(100), now_ms)
        client.send_audio(np.zeros(640), now_ms - 40, 16_000)


def heard(client: EmiClient, kind: type[Event], within_s: float = PATIENCE_S) -> Any:
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        event = client.receive(0.2)
        assert client.ended is None, client.ended
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__} in {within_s} s")


def told_to_have_moved(client: EmiClient) -> WarningEvent:
    """The warning; a busy machine may also say that it is full."""
    while "moved" not in (warning := heard(client, WarningEvent, 4 * PATIENCE_S)).text:
        continue
    assert isinstance(warning, WarningEvent)
    return warning


def test_a_server_takes_over_a_session_of_another_one_with_its_last_media_and_tells_the_gap() -> None:
    stop = threading.Event()
    with (
        serving(most=1, tickets=Tickets("one", SECRET)) as one,  # type: ignore[arg-type]
        serving(most=1, tickets=Tickets("two", SECRET)) as two,  # type: ignore[arg-type]
    ):
        with EmiClient.open(one.url, resume=True) as client:
            before = client.session
            with EmiClient(two.url, before, viewer=True) as viewer:
                assert viewer.receive(PATIENCE_S) is None
                assert "1013" in (viewer.ended or ""), "it may come again when the source is here"
            sender = threading.Thread(target=send, args=(client, stop))
            sender.start()
            try:
                started_s = time.monotonic()
                while time.monotonic() - started_s < 2.5:
                    heard(client, EstimateEvent)
                client._servers = [two.url]  # as a proxy sends it there
                one.cut()
                assert "moved" in heard(client, WarningEvent).text
                assert client.session.startswith("two.")
                with EmiClient(two.url, before, viewer=True) as viewer:
                    assert heard(viewer, Hello).session == client.session
                taken = two.sessions.running[client.session]
                heard(client, EstimateEvent)
                assert taken.counters["sound_ms"] >= 2000, "what was said before has come again"
                assert taken.counters["pictures"] >= 10
            finally:
                stop.set()
                sender.join(PATIENCE_S)
        with EmiClient(two.url, "one.issued.elsewhere", resume=True) as stranger:
            stranger.receive(PATIENCE_S)
            assert "no such session" in (stranger.ended or "")


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("lost", ["the server", "the door too"])
def test_a_session_goes_on_within_five_seconds_when_nothing_comes_any_more(lost: str) -> None:
    stop = threading.Event()
    with (
        serving(most=1, tickets=Tickets("one", SECRET)) as one,  # type: ignore[arg-type]
        serving(most=1, tickets=Tickets("two", SECRET)) as two,  # type: ignore[arg-type]
        Door(one.port) as door,
        EmiClient.open([door.url, two.url] if lost == "the door too" else door.url, resume=True) as client,
    ):
        sender = threading.Thread(target=send, args=(client, stop))
        sender.start()
        try:
            started_s = time.monotonic()
            while time.monotonic() - started_s < 2.5:
                heard(client, EstimateEvent)
            door.lose(None if lost == "the door too" else two.port)
            warning = told_to_have_moved(client)
            assert client.session.startswith("two.")
            assert float(warning.text.rpartition(": ")[2].split()[0]) <= 5.0
            heard(client, EstimateEvent)
            assert two.sessions.running[client.session].counters["sound_ms"] >= 2000, "it was sent again"
        finally:
            stop.set()
            sender.join(PATIENCE_S)


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["its door", "its network"])
def test_a_session_goes_on_while_its_server_still_holds_the_old_connection(lost: str) -> None:
    stop = threading.Event()
    with serving(most=1) as one, Door(one.port) as door:
        with EmiClient.open([door.url, one.url] if lost == "its door" else door.url, resume=True) as client:
            sender = threading.Thread(target=send, args=(client, stop))
            sender.start()
            try:
                heard(client, EstimateEvent)
                (session,) = one.sessions.running.values()
                old = session.source
                door.lose(None if lost == "its door" else one.port)
                assert heard(client, Hello).role == "source", "its own old connection is in nobody's way"
                before = session.counters["sound_ms"]
                while session.counters["sound_ms"] < before + 500:
                    heard(client, EstimateEvent)
                assert session.source not in (None, old)
                assert session.counters["messages_refused"] == 0
            finally:
                stop.set()
                sender.join(PATIENCE_S)
        with EmiClient([f"http://127.0.0.1:{free_port()}", one.url], client.session, viewer=True) as viewer:
            heard(viewer, Hello)


@pytest.mark.slow
@pytest.mark.parametrize("wish", ["mute", "pause"])
def test_a_session_that_moves_stays_muted_or_paused_and_nothing_of_then_is_sent_again(wish: str) -> None:
    def is_so(state: StateEvent) -> bool:
        return state.muted if wish == "mute" else state.state == "paused"

    stop = threading.Event()
    with (
        serving(most=1, tickets=Tickets("one", SECRET)) as one,  # type: ignore[arg-type]
        serving(most=1, tickets=Tickets("two", SECRET)) as two,  # type: ignore[arg-type]
        Door(one.port) as door,
        EmiClient.open(door.url, resume=True) as client,
    ):
        sender = threading.Thread(target=send, args=(client, stop))
        sender.start()
        try:
            heard(client, EstimateEvent)
            client.command(wish)
            until_ms = 1000 * time.monotonic()
            while not is_so(heard(client, StateEvent)):
                continue
            door.lose(two.port)
            assert heard(client, Hello).session.startswith("two.")
            while not is_so(heard(client, StateEvent)):
                continue
            assert client._kept is not None
            sounds = [t_ms for t_ms, message in client._kept._messages if message[0] == SOUND]
            assert sounds
            assert max(sounds) <= until_ms
        finally:
            stop.set()
            sender.join(PATIENCE_S)


@pytest.mark.slow
@pytest.mark.parametrize("answers", ["late", "never"])
def test_a_client_stays_while_its_server_is_only_slow(answers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if answers == "never":
        monkeypatch.setattr("emi_live.web.client.ASK_S", 0.2)
    asked: list[object] = []
    monkeypatch.setattr("emi_live.web.client._request", partial(_recorded, asked, _request))
    stop = threading.Event()
    with serving(most=1) as one, EmiClient.open(one.url, resume=True) as client:
        asked.clear()
        sender = threading.Thread(target=send, args=(client, stop))
        sender.start()
        try:
            heard(client, EstimateEvent)
            before = client._socket
            one.loop.call_soon_threadsafe(threading.Event().wait, 2.5)
            until_s = time.monotonic() + 3.5
            while time.monotonic() < until_s:
                client.receive(0.2)
            heard(client, EstimateEvent)
            assert asked
            assert client._socket is before
        finally:
            stop.set()
            sender.join(PATIENCE_S)


def _recorded(asked: list[object], do: Callable[..., Any], *arguments: Any) -> Any:
    asked.append(arguments)
    return do(*arguments)


def test_a_server_that_ends_sends_its_sources_elsewhere_and_takes_nobody_back() -> None:
    with serving(most=2, tickets=Tickets("one", SECRET)) as one:  # type: ignore[arg-type]
        with EmiClient.open(one.url) as client:
            heard(client, Hello)
            asyncio.run_coroutine_threadsafe(one.sessions.drain(), one.loop).result(PATIENCE_S)
            while client.receive(PATIENCE_S) is not None:
                continue
            assert "1012" in (client.ended or ""), client.ended
            with EmiClient(one.url, client.session) as again:
                assert again.receive(PATIENCE_S) is None
                assert "1013" in (again.ended or ""), "a proxy may not know yet that it ends"
            assert status_of(one.url, client.session) == 503
        with pytest.raises(SourceError, match="try again"):
            EmiClient.open(one.url)


def test_a_server_that_ends_closes_webrtc_even_if_messages_wait() -> None:
    pytest.importorskip("aiortc")
    from emi_live.web.rtc import use_addresses
    from tests.support.rtc_peer import Browser, Pictures, ask

    async def talk(one: Served) -> None:
        browser = Browser(Pictures())
        session = (await ask(one.url, "/v1/sessions"))["id"]
        await browser.accept(await ask(one.url, f"/v1/sessions/{session}/offer", await browser.offer()))
        await browser.first(Hello)
        closed = asyncio.Event()
        browser.channel.on("close", closed.set)

        async def end() -> None:
            for _ in range(3):  # they wait in the outbox when it is cut
                one.sessions.running[session].warn("for the test", "tests")
            await one.sessions.drain()

        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(end(), one.loop))
        await asyncio.wait_for(closed.wait(), PATIENCE_S)
        await browser.connection.close()

    use_addresses(loopback=True)
    try:
        with serving(most=1, tickets=Tickets("one", SECRET)) as one:  # type: ignore[arg-type]
            asyncio.run(asyncio.wait_for(talk(one), PATIENCE_S))
    finally:
        use_addresses(loopback=False)


def status_of(url: str, session: str) -> int:
    """What a server answers who asks for the newest estimate of a session."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
    connection.request("GET", f"/v1/sessions/{session}/latest", headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        return connection.getresponse().status
    finally:
        connection.close()


@dataclass(frozen=True)
class OnRay:
    """A service of two replicas."""

    url: str
    pid: int
    cluster: str
    folder: Path
    replaced: threading.Event = field(default_factory=threading.Event)  # by a test

    def status(self, session: str) -> int:
        return status_of(self.url, session)

    def health(self) -> dict[str, int]:
        """What /healthz says of all replicas."""
        return dict(json.loads(self.read("/healthz")))

    def await_two(self) -> None:
        """Wait until both replicas answer."""
        deadline_s = time.monotonic() + PATIENCE_S
        while self.health()["most"] != 8:
            assert time.monotonic() < deadline_s

    def read(self, path: str) -> str:
        """What an operator gets, without a token."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=6.0)
        connection.request("GET", path)
        try:
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def replicas(self) -> set[int]:
        """Processes of replicas, also of those that start."""
        return {one.pid for one in self.children() if "People" in command_of(one)}

    def children(self) -> list[psutil.Process]:
        """Its processes, Ray's among them."""
        found: list[psutil.Process] = psutil.Process(self.pid).children(recursive=True)
        return found


def emi_serve(
    cluster: str, port: int, *options: str, before: Sequence[str] = (), folder: Path | None = None
) -> subprocess.Popen[str]:
    """The command; `before` it stands what traces it, and `folder` is its home and its temporary folder."""
    command = [*before]
    command += [
        str(Path(sys.executable).with_name("emi")),
        "serve",
        "--cluster",
        cluster,
        "--port",
        str(port),
    ]
    command += ["--replicas", "2", "--networks", "1", "--token", TOKEN, "--offline", *options]
    command += ["--set", "speech.backend=none", "--set", "face.enabled=false"]
    environ = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": RAY_TOKEN}
    environ["RAY_USE_UVLOOP"] = "0"  # it works through io_uring, which a trace does not see
    if folder is not None:
        environ |= {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / ".cache"), "TMPDIR": str(folder)}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ)


def strace(trace: Path) -> list[str]:
    """What traces a command, as its grandchild; nothing where that does not work."""
    command = ["strace", "-D", "-f", "-yy", "--seccomp-bpf", "-e", f"trace={NETWORK_CALLS}", "-o"]
    try:
        subprocess.run([*command, os.devnull, "true"], capture_output=True, check=True, timeout=PATIENCE_S)
    except (OSError, subprocess.SubprocessError):
        return []
    return [*command, str(trace)]


@pytest.fixture(scope="module")
def on_ray() -> Iterator[OnRay]:
    pytest.importorskip("ray")
    with (
        TemporaryDirectory(prefix="emi-") as name,  # Ray's sockets need a short path
        emi_serve("auto", 0, before=strace(Path(name) / TRACE), folder=Path(name)) as process,
    ):
        assert process.stderr is not None
        said, url = "", ""
        try:
            for line in process.stderr:
                said += line
                if found := re.search(r"open (http://\S+?)/#", line):
                    url = found[1]
                if found := re.search(r"replicas on Ray at (\S+),", line):
                    yield (service := OnRay(url, process.pid, found[1], Path(name)))
                    break
            else:
                raise AssertionError(said)
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
    assert process.returncode == 0, rest
    assert ("another emi serve" in rest) == service.replaced.is_set(), rest


@pytest.mark.slow
def test_two_replicas_serve_the_same_application_and_keep_to_loopback(on_ray: OnRay) -> None:
    with pytest.raises(SourceError, match="token"):
        EmiClient.open(on_ray.url)
    clients = [EmiClient.open(on_ray.url, token=TOKEN) for _ in range(4)]
    try:
        for client in clients:
            assert heard(client, Hello).session == client.session
            assert heard(client, EstimateEvent).estimate["engine"] == "onnxruntime-cpu"
        owners = [client.session.partition(".")[0] for client in clients]
        assert len(set(owners)) == 2, "new sessions go to the replica with the fewest connections"
        for client in clients * 3:  # by any proxy, to the replica that has it
            assert on_ray.status(client.session) == 200
        for _ in range(4):  # whichever replica answers
            told = on_ray.health()
            names = ("sessions", "most", "replicas", "replicas_without_answer")
            assert [told[name] for name in names] == [4, 8, 2, 0]
            counted = re.findall(r'opened",replica="(\w+)"\} (\d)', on_ray.read("/metrics"))
            assert sorted(counted) == [(name, str(owners.count(name))) for name in sorted(set(owners))]
        ours = [one.net_connections() for one in on_ray.children()]
        listens = [socket.laddr.ip for sockets in ours for socket in sockets if socket.status == "LISTEN"]
        assert listens
        assert set(listens) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    finally:
        for client in clients:
            client.command("end")
            client.close()


@pytest.mark.slow
def test_a_replica_that_hangs_is_missing_in_the_figures_of_the_others(on_ray: OnRay) -> None:
    on_ray.await_two()  # each knows the other one
    replica = psutil.Process(min(on_ray.replicas()))
    replica.suspend()
    try:
        for _ in range(4):
            with suppress(TimeoutError):  # the proxy has asked the one that hangs
                if (told := on_ray.health())["replicas_without_answer"]:
                    break
        assert (told["replicas"], told["replicas_without_answer"], told["most"]) == (2, 1, 4)
    finally:
        replica.resume()
    on_ray.await_two()


@pytest.mark.slow
def test_a_session_goes_on_within_five_seconds_when_its_replica_is_killed(on_ray: OnRay) -> None:
    stop = threading.Event()
    with EmiClient.open(on_ray.url, token=TOKEN, resume=True) as client:
        before = client.session
        sender = threading.Thread(target=send, args=(client, stop))
        sender.start()
        try:
            started_s = time.monotonic()
            while time.monotonic() - started_s < 2.0:
                heard(client, EstimateEvent)
            replica = next(one for one in on_ray.children() if has(one, before.partition(".")[0]))
            replica.kill()
            warning = told_to_have_moved(client)
            assert float(warning.text.rpartition(": ")[2].split()[0]) <= 5.0
            assert client.session != before
            heard(client, EstimateEvent)
            assert on_ray.status(client.session) == 200
            client.command("end")
        finally:
            stop.set()
            sender.join(PATIENCE_S)


@pytest.mark.slow
def test_a_new_version_that_is_interrupted_is_taken_back(on_ray: OnRay) -> None:
    """With fewer replicas, so that Ray has begun to end one of the old ones when it is interrupted."""
    on_ray.await_two()  # a test before has killed one
    before, port = on_ray.replicas(), urlsplit(on_ray.url).port or 0
    with emi_serve(on_ray.cluster, port, "--replicas", "1", "--set", "window.hop_s=0.25") as second:
        while on_ray.replicas() <= before:  # none of its own yet
            assert second.poll() is None
        second.send_signal(signal.SIGINT)
        assert second.stderr is not None
        assert "interrupted; the version before goes on" in second.stderr.read()
    assert second.returncode == 130
    on_ray.await_two()
    clients = [EmiClient.open(on_ray.url, token=TOKEN) for _ in range(4)]
    try:
        assert {heard(client, Hello).hop_s for client in clients} == {0.2}, "the old settings"
    finally:
        for client in clients:
            client.command("end")
            client.close()


@pytest.mark.slow
def test_a_second_command_replaces_the_service_whose_sessions_move_once(on_ray: OnRay) -> None:
    """The last use of the service: the command that began it does not own it after this."""
    stop, port = threading.Event(), urlsplit(on_ray.url).port or 0
    with EmiClient.open(on_ray.url, token=TOKEN, resume=True) as client:
        before = client.session
        sender = threading.Thread(target=send, args=(client, stop))
        sender.start()
        try:
            heard(client, EstimateEvent)
            with emi_serve(on_ray.cluster, port, "--replicas", "1", "--set", "window.hop_s=0.25") as second:
                moved = told_to_have_moved(client)
                on_ray.replaced.set()
                assert float(moved.text.rpartition(": ")[2].split()[0]) <= 5.0
                assert client.session != before
                heard(client, EstimateEvent)
                with EmiClient(on_ray.url, before, token=TOKEN, viewer=True) as viewer:
                    assert heard(viewer, Hello).hop_s == 0.25, "the new settings"
                assert second.stderr is not None
                for line in second.stderr:
                    if "Ctrl-C" in line:
                        break
                second.send_signal(signal.SIGINT)
                assert "ending the replicas" in second.stderr.read()
            assert second.returncode == 0
        finally:
            stop.set()
            sender.join(PATIENCE_S)
    with pytest.raises(SourceError):
        EmiClient.open(on_ray.url, token=TOKEN)


@pytest.mark.slow
def test_the_service_reached_nobody_and_left_nothing_in_its_home(on_ray: OnRay) -> None:
    """What the command, Ray and the replicas have done in the tests above; the clients are not traced.

    Only calls of the network, since every traced call costs time; test_traced looks at what Ray writes.
    """
    trace = on_ray.folder / TRACE
    if not trace.exists():
        message = "tracing needs Linux with strace, and leave to use it"
        if os.environ.get("EMI_REQUIRE_DEVICES"):
            pytest.fail(message)
        pytest.skip(message)
    with trace.open(encoding="utf-8", errors="replace") as lines:
        report = read_trace(lines, cwd=Path.cwd(), allowed=[on_ray.folder])
    assert report.calls > 100
    assert report.faults == []
    left = {path for path in on_ray.folder.rglob("*") if path.is_file()}
    ours = (trace, on_ray.folder / ".cache/emi-live", *on_ray.folder.glob("emi-ray-*"))
    assert [path for path in left if not any(path.is_relative_to(one) for one in ours)] == []


def has(process: psutil.Process, replica: str) -> bool:
    """Whether a process is that replica: its log is named after it."""
    logs = [one.path for one in process.open_files()]
    return "People" in command_of(process) and any(replica in path for path in logs)


def command_of(process: psutil.Process) -> str:
    """Its command line; empty if it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
