"""Worker processes end with the block that started them, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import psutil
import pytest

from emi_models.processes import worker_processes
from tests.support.waiting import until

# A program that starts two processes, each of which writes a file and then works for a long time.
PROGRAM = """
import signal, sys
from pathlib import Path
from emi_models.processes import worker_processes
from tests.models.test_processes import work

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as `emi` does
    with worker_processes(2) as workers:
        for future in [workers.submit(work, Path(sys.argv[1]) / name) for name in "ab"]:
            future.result()
"""
WORKS_S = 60


def work(path: Path) -> None:
    """Note which process this is, and work on, deaf to SIGTERM as a training is for a batch."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    part = path.with_suffix(".part")
    part.write_text(str(os.getpid()))
    part.rename(path)
    end = time.monotonic() + WORKS_S
    while time.monotonic() < end:
        signal.sigtimedwait([], 1)


def double(number: int) -> int:
    return 2 * number


def test_jobs_are_done_and_the_processes_end() -> None:
    with worker_processes(2) as workers:
        found = [future.result() for future in [workers.submit(double, n) for n in (3, 4)]]
    assert found == [6, 8]
    assert not active_children()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_none_outlives_a_program_that_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    root = Path(__file__).parents[2]
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(root)}
    program = subprocess.Popen(
        [sys.executable, script, tmp_path], env=environment, stderr=subprocess.PIPE, text=True
    )
    until(lambda: all((tmp_path / name).exists() for name in "ab"), timeout_s=60)
    workers = [psutil.Process(int((tmp_path / name).read_text())) for name in "ab"]
    program.send_signal(number)
    _, told = program.communicate(timeout=20)
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert len(gone) == 2
    assert not alive
    assert "Process SpawnProcess" not in told  # what Python prints of a worker that was interrupted
