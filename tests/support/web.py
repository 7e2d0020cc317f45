"""An HTTP server on loopback whose answers a test gives, and a door to a server that can be lost."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self


@contextmanager
def web_server(answer: Callable[[BaseHTTPRequestHandler], None], closing: threading.Event) -> Iterator[str]:
    """The address of a server; each GET is answered on a thread of its own.

    `closing` is set at the end, for answers that wait.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Keep stderr clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="web-server")
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    closing.set()
    server.shutdown()
    server.server_close()
    thread.join(5)


class Door:
    """Passes connections on to a server of this machine, as a proxy does."""

    def __init__(self, port: int = 0) -> None:
        """`port` is the server's; it may be set later."""
        self.port = port
        self._turn = 0
        self._requests: set[socket.socket] = set()  # connections that are no WebSocket
        self._opened = ExitStack()
        self._listener = self._opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def lose(self, port: int | None) -> None:
        """Lose the server without a word: WebSockets stay open, and nothing passes any more.

        From now on connections go to the server of another port; None: nobody takes them.
        """
        self._turn += 1
        if port is None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        else:
            self.port = port
        for client in tuple(self._requests):
            with suppress(OSError):  # it has ended
                client.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._opened.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.port))
                except OSError:  # it has ended
                    client.close()
                    continue
                for end in (client, server):
                    self._opened.enter_context(end)
                self._requests.add(client)
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(*ends, self._turn), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, turn: int) -> None:
        with suppress(OSError):  # closed
            while data := source.recv(1 << 16):
                if b"upgrade: websocket" in data.lower():
                    self._requests.discard(source)
                if self._turn == turn:
                    target.sendall(data)
            if self._turn == turn:
                target.shutdown(socket.SHUT_RDWR)
