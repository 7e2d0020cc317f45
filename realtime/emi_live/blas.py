"""How many threads numpy's matrix products take, while engines run: a setting of the whole process.

Products of a hop take tens of microseconds; with as many threads as cores they wait for each other whenever
the face or the recogniser has a core, which was seen to make a hop ten times longer (docs/decisions/0011).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from threadpoolctl import threadpool_limits

__all__ = ["blas_threads"]

_lock: Final = threading.Lock()
_held: list[threadpool_limits] = []  # one entry a caller; the first one's limits, which all share
_users = 0


@contextmanager
def blas_threads(limit: int) -> Iterator[None]:
    """Hold numpy to so many threads; the process's own setting returns when the last caller is done.

    Callers may come and go in any order; while there are several, the first one's limit holds.
    """
    global _users
    with _lock:
        if _users == 0:
            _held.append(threadpool_limits(limits=limit, user_api="blas"))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _held.pop().restore_original_limits()
