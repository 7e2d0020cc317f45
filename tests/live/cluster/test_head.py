"""A head of Ray that is gone ends the command with one line, whatever the command is waiting for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from emi_live.cluster import ray_start
from tests.support.ports import free_port
from tests.support.waiting import until

PROGRAM = """
import ctypes, logging, subprocess, sys, threading
from pathlib import Path
from emi_live.cli.errors import run_app
from emi_live.cluster import ray_start
import typer

logging.basicConfig(format="%(message)s")
ray_start.LOOK_EVERY_S, ray_start.LAST_S, ray_start.PATIENCE_S = 0.05, 1.0, float(sys.argv[3])
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
waits = {
    "an event": threading.Event().wait,
    "a call of C": lambda: [libc.pthread_mutex_lock(mutex) for _ in range(2)],
    "a while": lambda: threading.Event().wait(2),
}
app = typer.Typer()

@app.command()
def command() -> None:
    with ray_start.watched(sys.argv[1], Path(sys.argv[4]) if sys.argv[4:] else None):
        child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(child.pid, flush=True)
        waits[sys.argv[2]]()

run_app(app, [], "emi")
"""


@contextmanager
def command(port: int, waits: str, *more: str) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """A command that watches a head at this port, and waits for something."""
    args = [f"127.0.0.1:{port}", waits, *more]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        try:
            yield process, child
        finally:
            process.kill()
            with suppress(psutil.NoSuchProcess):
                child.kill()


def head(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port), reuse_port=True, backlog=1000)


@pytest.mark.parametrize("waits", ["an event", "a call of C"])
def test_a_head_that_is_gone_ends_it_with_one_line(waits: str) -> None:
    port = free_port()
    listening = head(port)
    with command(port, waits, "0.0") as (process, _):
        for _ in range(10):  # more than are allowed to fail
            listening.accept()[0].close()
        listening.close()
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    waited, error = errors.splitlines()
    assert "does not answer" in waited
    assert error == (
        f"error: the head of Ray at 127.0.0.1:{port} is gone; start it again, and then the same command"
    )


@pytest.mark.parametrize("waits", ["an event", "a call of C"])
def test_a_ray_of_the_command_itself_is_not_waited_for_and_leaves_no_folder(
    tmp_path: Path, waits: str
) -> None:
    port, ours = free_port(), tmp_path / "emi-ray-x"
    (ours / "r").mkdir(parents=True)
    with command(port, waits, "60.0", str(ours / "r")) as (process, child):
        _, errors = process.communicate(timeout=20)
        until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    assert process.returncode == 1
    assert errors == "error: Ray, which this command started, has died; the same command begins again\n"
    assert ours.exists() == (waits == "an event")  # which has time for its own way to end


def test_a_head_that_comes_back_is_waited_for_and_that_is_said() -> None:
    port = free_port()
    listening = head(port)
    with command(port, "a while", "10.0") as (process, child):
        listening.close()
        assert process.stderr is not None
        said = process.stderr.readline()
        with head(port):
            _, errors = process.communicate(timeout=20)
        assert child.is_running()
    assert process.returncode == 0
    assert said == f"the head of Ray at 127.0.0.1:{port} does not answer; waiting for 10 s\n"
    assert errors == ""


def test_the_folder_of_a_killed_command_is_removed_by_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="e", dir="/tmp") as base:  # a short name
        monkeypatch.setattr(tempfile, "tempdir", base)
        left = Path(base, "emi-ray-left")
        left.mkdir()
        (left / ".in-use").touch()
        os.utime(left, (0, 0))
        with ray_start._folder() as ours:
            assert not left.exists()
            os.utime(ours.parent, (0, 0))
            with ray_start._folder():
                assert ours.parent.exists(), "its command runs"
        assert list(Path(base).iterdir()) == []
