"""A corpus and a service on two machines, which are namespaces of this one, and one of them is lost."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from emi_models.data import open_clips
from tests.live.cluster.test_clips import write_videos
from tools.machines import Machines, why_not

pytest.importorskip("ray")
ROOT = Path(__file__).resolve().parents[3]
RAY = str(Path(sys.executable).with_name("ray"))
ENVIRON = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": 32 * "ab",
    # A lost machine is noticed after some 9 s, not after a minute.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    if "EMI_TEST_MACHINES" not in os.environ:
        pytest.skip("half a minute of two namespaces: EMI_TEST_MACHINES=1 runs it")
    if (reason := why_not()) is not None:
        pytest.skip(f"no machines can be made here: {reason}")
    with Machines(Path("/run") / f"emi-{os.getpid()}", [tmp_path, ROOT, sys.prefix]) as machines:
        yield machines


def begin(machines: Machines, name: str, *options: str) -> None:
    machines.add(name)
    command = [RAY, "start", *options, "--num-cpus", "1", "--object-store-memory", "80000000"]
    with machines.start(name, command, env=ENVIRON) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output


@pytest.mark.slow
@pytest.mark.on_request
def test_two_machines_share_the_clips_and_one_goes_on_alone(machines: Machines, tmp_path: Path) -> None:
    head = f"{machines.address('m1')}:6379"
    begin(machines, "m1", "--head", "--node-ip-address", machines.address("m1"), "--include-dashboard=false")
    begin(machines, "m2", "--address", head)
    (tmp_path / "shared.pem").touch()
    own = "/tmp/own.pem"  # noqa: S108  # each machine has its own folder of this name
    look = "import sys, ray, pathlib, emi_live.web.deploy as d; ray.init(sys.argv[1], log_to_driver=False); "
    look += f"open({own!r}, 'w'); print([d.machines_without([pathlib.Path(p)]) for p in sys.argv[2:]])"
    command = [sys.executable, "-c", look, head, str(tmp_path / "shared.pem"), own]
    with machines.start("m1", command, env=ENVIRON) as process:
        output, _ = process.communicate(timeout=120)
    assert "[[], ['m2']]" in output
    names = [f"clip{number}" for number in range(12)]
    write_videos(tmp_path, *names)
    where = [str(tmp_path / name) for name in ("videos", "out", "log")]
    command = [sys.executable, "-m", "tests.live.cluster.tasks", head, *where, "0.5", "1"]
    with machines.start("m1", command, env=ENVIRON) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while sum(line.startswith("wrote") for line in lines) < 4:
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        machines.cut("m2")
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, (lines, output)
    assert set((tmp_path / "log.hosts").read_text(encoding="utf-8").split()) == {"m1", "m2"}
    assert open_clips(tmp_path / "out").ids("train") == tuple(sorted(names))
    begun = (tmp_path / "log").read_text(encoding="utf-8").split()
    assert len(begun) <= len(names) + 1, "one clip was under way on the machine that was lost"


CLIENTS = """
import sys, threading, time
import numpy as np
from emi_live.web.client import EmiClient
from emi_live.web.protocol import EstimateEvent

def talk(client):
    first, heard, longest = client.session, None, 0.0
    while time.monotonic() < until:
        now = time.monotonic()
        client.send_audio(np.zeros(3200), 1000 * now - 200, 16_000)
        while time.monotonic() < now + 0.2:
            if isinstance(client.receive(0.05), EstimateEvent):
                longest = max(longest, time.monotonic() - (heard or time.monotonic()))
                heard = time.monotonic()
    print(first[:8], client.session[:8], round(longest, 2), flush=True)

clients = [EmiClient.open(sys.argv[1:], token="t", resume=True) for _ in range(2)]
print("began", flush=True)
until = time.monotonic() + 25.0
threads = [threading.Thread(target=talk, args=(client,)) for client in clients]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


@pytest.mark.slow
@pytest.mark.on_request
@pytest.mark.parametrize("door", ["m1", "m2"])
def test_sessions_of_a_lost_machine_and_of_a_lost_door_go_on_within_five_seconds(
    machines: Machines, tmp_path: Path, door: str
) -> None:
    head, addresses = f"{machines.address('m1')}:6379", [machines.address(name) for name in ("m1", "m2")]
    begin(machines, "m1", "--head", "--node-ip-address", addresses[0], "--include-dashboard=false")
    begin(machines, "m2", "--address", head)
    serve = [str(Path(sys.executable).with_name("emi")), "serve", "--cluster", head, "--replicas", "2"]
    serve += ["--host", "0.0.0.0", "--port", "8931", "--token", "t", "--offline"]  # noqa: S104  # of this network
    serve += [word for address in addresses for word in ("--name", address)]
    serve += ["--set", "speech.backend=none", "--set", "face.enabled=false"]
    doors = [f"http://{address}:8931" for address in addresses]
    if door == "m2":
        doors.reverse()
    with machines.start("m1", serve, env=ENVIRON) as service:
        assert service.stdout is not None
        while "Ctrl-C" not in (line := service.stdout.readline()):
            assert line, "the service has ended"
        with machines.start("m1", [sys.executable, "-c", CLIENTS, *doors], env=ENVIRON) as clients:
            assert clients.stdout is not None
            assert clients.stdout.readline() == "began\n"
            threading.Event().wait(8.0)
            machines.cut("m2")
            output, _ = clients.communicate(timeout=60)
        service.terminate()
    told = [line.split() for line in output.splitlines()]
    assert len({first for first, _, _ in told}) == 2, "each machine had one"
    assert len({last for _, last, _ in told}) == 1, "and one has both"
    assert all(float(longest) <= 5.0 for _, _, longest in told), told
