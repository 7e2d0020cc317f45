"""A worker for the length of a `with`: what measures runs beside what is measured."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from emi_live.health import Health
from emi_live.worker import Worker

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

__all__ = ["working"]

JOIN_S: Final = 5.0


@contextmanager
def working(name: str, body: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `body(stop)` in a thread of that name, and stop it at the end.

    Raises:
        Exception: whatever the body failed of.
    """
    worker = Worker(name, body, Health())
    worker.start()
    try:
        yield
    finally:
        worker.request_stop()
        worker.join(JOIN_S)
    if worker.error is not None:
        raise worker.error
