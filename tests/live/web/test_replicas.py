"""`emi serve --cluster`: two replicas on a real Ray."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import psutil
import pytest

from emi_live.errors import SourceError
from emi_live.web.client import EmiClient
from emi_live.web.protocol import EstimateEvent, Hello
from tests.live.web.clients import TOKEN, heard, sending, status_of, told_to_have_moved
from tests.live.web.conftest import PATIENCE_S
from tests.support.strace_output import NETWORK_CALLS, read_trace

RAY_TOKEN = 32 * "f0"
TRACE = "trace"  # the file, in the folder of the command


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
    with EmiClient.open(on_ray.url, token=TOKEN, resume=True) as client:
        before = client.session
        with sending(client):
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
    port = urlsplit(on_ray.url).port or 0
    with EmiClient.open(on_ray.url, token=TOKEN, resume=True) as client:
        before = client.session
        with sending(client):
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
