"""A ZeroMQ socket and the one thread that may use it."""

from __future__ import annotations

import threading
from typing import Final

import zmq

__all__ = ["SLICE_MS", "Handle"]

SLICE_MS: Final = 50  # longest wait before looking again whether the bus is being stopped


class Handle:
    """A socket made by the thread that builds the engine, and handed once to the thread that uses it.

    ZeroMQ sockets are not thread-safe, but may move to another thread before their first use there.
    """

    def __init__(self, socket: zmq.Socket[bytes], purpose: str) -> None:
        self._socket = socket
        self._purpose = purpose
        self._owner: threading.Thread | None = None

    @property
    def owner(self) -> threading.Thread | None:
        """The thread that has used the socket; None until then."""
        return self._owner

    @property
    def closed(self) -> bool:
        """Whether the socket is closed."""
        return bool(self._socket.closed)

    def use(self) -> zmq.Socket[bytes]:
        """The socket, for the calling thread only.

        Raises:
            RuntimeError: another thread has used it.
        """
        current = threading.current_thread()
        if self._owner is None:
            self._owner = current
        elif self._owner is not current:
            raise RuntimeError(
                f"{self._purpose} belongs to {self._owner.name}, but was used by {current.name}"
            )
        return self._socket

    def close(self) -> None:
        """Close the socket, unsent messages too; call it from its own thread or after that ended.

        Raises:
            RuntimeError: its thread is another one and is still running.
        """
        if (
            self._owner is not None
            and self._owner is not threading.current_thread()
            and self._owner.is_alive()
        ):
            raise RuntimeError(f"{self._purpose} is still in use by {self._owner.name}")
        self._socket.close(linger=0)
