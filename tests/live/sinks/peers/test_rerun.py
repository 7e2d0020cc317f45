"""Rerun: what its own reader finds in a file of ours, and in what its own program took from us by gRPC."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from emi_live import Estimate
from emi_live.errors import ConfigurationError
from emi_live.sinks.peers import Run, Spoken, open_peer
from emi_live.sinks.peers.rerun import RerunPeer
from emi_models import EMOTIONS
from tests.support.peers import show
from tests.support.ports import free_port
from tests.support.waiting import until

pytestmark = pytest.mark.slow


def read(path: Path) -> dict[str, list[tuple[int, Any]]]:
    """By entity: capture time, 0 for what is static, and the values of each row, by Rerun's reader."""
    from rerun.chunk import RrdReader

    found: dict[str, list[tuple[int, Any]]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that a program that was killed left no table at the end
        chunks = list(RrdReader(path).stream())
    for chunk in chunks:
        batch = chunk.to_record_batch()
        value = next(
            (name for name in batch.schema.names if name.endswith((":text", ":scalars", ":names"))), None
        )
        if value is None:  # what the SDK says of the recording itself
            continue
        times = [0] * chunk.num_rows
        if not chunk.is_static:
            times = batch.column("capture_time").cast("int64").to_pylist()
        found.setdefault(chunk.entity_path, []).extend(
            zip(times, batch.column(value).to_pylist(), strict=True)
        )
    return found


def rows(path: Path) -> int:
    """How many estimates a file that is being written has."""
    seen = path.with_suffix(".seen.rrd")
    try:
        shutil.copyfile(path, seen)  # Rerun's reader may wait for a minute in a file that grows
        return len(read(seen).get("/emi/intensities", ()))
    except (RuntimeError, ValueError, OSError):  # it is not there, or the last message is only half there
        return 0


@contextmanager
def viewer(port: int, path: Path, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Rerun's own program without a window: it takes what SDKs send, and saves it."""
    import rerun_cli

    program = Path(str(rerun_cli.__file__)).with_name("rerun")
    process = subprocess.Popen(
        [str(program), "--bind", "127.0.0.1", "--port", str(port), "--save", str(path)],
        env={**os.environ, "HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: listens(port))
        yield process
    finally:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def check(found: dict[str, list[tuple[int, Any]]], sent: list[Estimate]) -> None:
    offset_ns = time.time_ns() - time.monotonic_ns()
    rows = found["/emi/intensities"]
    assert (0, list(EMOTIONS)) in rows  # the names of the curves
    values = [(at_ns, row) for at_ns, row in rows if at_ns]
    assert len(values) >= 5
    for at_ns, row in values:
        near = min(sent, key=lambda one: abs(one.t_ns + offset_ns - at_ns))
        assert near.t_ns + offset_ns == pytest.approx(at_ns, abs=5_000_000, rel=0)
        assert row == pytest.approx(list(near.intensities), abs=1e-9)


class Counted(RerunPeer):
    """Counts the estimates that it has sent."""

    sent = 0

    def send(self, event: Estimate | Spoken) -> None:
        super().send(event)
        self.sent += isinstance(event, Estimate)


def test_a_file_has_values_states_words_and_markers_at_their_time(tmp_path: Path) -> None:
    peer = Counted(str(path := tmp_path / "session.rrd"))
    with show([peer]) as running:
        running.wait_for(8)
        running.engine.mark("on")
        until(lambda: peer.sent >= 14)  # the end of a run waits for a quarter of a second only
    found = read(path)
    assert len(found["/emi/intensities"]) >= 14
    check(found, running.estimates)
    assert [text for _, (text,) in found["/emi/markers"]] == ["on (from python)"]
    words = [text for _, (text,) in found["/emi/words"]]
    assert words[:3] == ["w1", "w2", "w3"]
    steps = [
        after - one
        for (one, _), (after, _) in zip(found["/emi/words"], found["/emi/words"][1:], strict=False)
    ]
    assert steps == pytest.approx([200_000_000] * len(steps), abs=1000)
    assert any(text.startswith("vision: ") for _, (text,) in found["/emi/states"])


def test_a_viewer_reads_it_live_and_again_after_it_was_closed(tmp_path: Path) -> None:
    port = free_port()
    first, second = tmp_path / "first.rrd", tmp_path / "second.rrd"
    with show([f"rerun:{port}"]) as running:
        until(lambda: running.counter("to-rerun.lost") == 1)  # no viewer, and none is started
        programs = [child.name() for child in psutil.Process().children(recursive=True)]
        assert "rerun" not in programs
        with viewer(port, first, tmp_path):
            until(lambda: rows(first) >= 6)
        until(lambda: running.counter("to-rerun.lost") == 2)
        with viewer(port, second, tmp_path):
            until(lambda: rows(second) >= 6)
    check(read(first), running.estimates)
    check(read(second), running.estimates)
    seqs = [estimate.seq for estimate in running.estimates]
    assert seqs == list(range(len(seqs)))
    assert running.counter("fusion.missed_hops") <= 2


def test_a_full_disk_is_said_and_what_was_written_can_be_read(tmp_path: Path) -> None:
    """In a process of its own, since a limit of the size of files holds for all of them."""
    path = tmp_path / "full.rrd"
    code = f"""
import resource
from tests.support.peers import show
from tests.support.waiting import until
from emi_live.sinks.peers import rerun
rerun.FILE_EVERY_S, rerun.FLUSH_S = 0.0, 0.1
resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, resource.RLIM_INFINITY))
with show(["rerun:{path}"]) as running:
    until(lambda: running.counter("to-rerun.lost"))
    running.wait_for(len(running.estimates) + 10)
print(running.counter("to-rerun.lost"), running.counter("to-rerun.dropped") > 0,
      running.counter("fusion.missed_hops") <= 5, running.engine.health.status("to-rerun").detail)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[4],
        timeout=60,
    )
    assert done.stdout.split()[:3] == ["1", "True", "True"], done.stdout + done.stderr
    assert f"the file {path} cannot be written" in done.stdout
    assert len(read(path)["/emi/intensities"]) > 2
    assert path.stat().st_size <= 12_000


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "mine.rrd"
    path.write_bytes(b"kept")
    with pytest.raises(ConfigurationError, match="another name"):
        open_peer(f"rerun:{path}").bind()
    assert path.read_bytes() == b"kept"
    with pytest.raises(ConfigurationError, match="folder"):
        open_peer(f"rerun:{tmp_path}/nowhere/x.rrd").bind()


@pytest.mark.parametrize("address", ["192.0.2.7:9876", "x:y"])
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="rerun:"):
        open_peer(f"rerun:{address}")


def test_a_switch_that_silences_rerun_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERUN", "off")
    with pytest.raises(ConfigurationError, match="RERUN"):
        RerunPeer("")


def test_a_viewer_that_is_absent_is_found_out_before_anything_is_kept() -> None:
    peer = RerunPeer(f"{free_port()}")
    run = Run(names=("joy",), limits=((0.0, 1.0),), source="x", session="s", bundle="compact", hop_s=0.2)
    with pytest.raises(OSError, match="refused"):
        peer.open(run)
    peer.close()
