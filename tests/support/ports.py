"""Ports for servers of tests."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, suppress
from itertools import count
from typing import Final

FIRST: Final = 20_000  # below those that the system gives to connections
EACH: Final = 2_000  # for a worker of pytest-xdist
WORKERS: Final = 6  # with ports of their own
APART: Final = 10  # so many neighbours may be asked for

_numbers = count(os.getpid())  # two sessions on one machine begin at different ports


def free_port(neighbours: int = 1) -> int:
    """The first of so many TCP ports of 127.0.0.1 that nobody uses; the next call gives another one.

    Meanwhile the system gives none of them to a connection, as it may with one that it chose for a socket
    which was closed again, and no other worker takes it.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    for _ in range(EACH // APART):
        first = FIRST + worker * EACH + APART * next(_numbers) % EACH
        with suppress(OSError), ExitStack() as sockets:
            for port in range(first, first + neighbours):
                sockets.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise AssertionError("no free ports")
