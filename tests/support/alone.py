"""Tests marked `alone` run while the other workers of pytest-xdist wait.

They ask whether the engine keeps its pace: hops that are missed, words that come in time. With three workers
on two cores they would measure the other tests.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Machine"]


class Machine:
    """Who has the machine: one test that is alone, or any number of others.

    Two files are locked. Everybody passes the gate, and holds the room while the test runs. A test that is
    alone keeps the gate too, so that nobody comes in while it waits for the others to leave.
    """

    def __init__(self, run: str, folder: Path | None = None) -> None:
        """`run` names the run of all workers, which share two files in `folder` until its processes end."""
        start = (folder or Path(tempfile.gettempdir())) / f"emi-live-tests-{run}"
        self._gate, self._room = (os.open(f"{start}.{n}", os.O_RDWR | os.O_CREAT) for n in ("gate", "room"))
        self._alone = False

    @contextmanager
    def turn(self, *, alone: bool, next_alone: bool) -> Iterator[None]:
        """Wait for a test's turn, and let others in after it; not between two tests that are alone."""
        if not self._alone:
            how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
            fcntl.flock(self._gate, how)
            fcntl.flock(self._room, how)
            if not alone:
                fcntl.flock(self._gate, fcntl.LOCK_UN)
        self._alone = alone
        try:
            yield
        finally:
            self._alone = alone and next_alone
            if not self._alone:
                fcntl.flock(self._room, fcntl.LOCK_UN)
                fcntl.flock(self._gate, fcntl.LOCK_UN)
