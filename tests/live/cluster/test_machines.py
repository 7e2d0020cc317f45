"""A corpus on two machines, which are namespaces of this one: both work, and one of them is lost."""

from __future__ import annotations

import os
import sys
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
