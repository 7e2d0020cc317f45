"""A web server on loopback: an MJPEG camera whose parts a test controls, and recordings."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np

BOUNDARY = "frame"
Parts = Callable[[int], bytes | None]  # the k-th part of a connection; None ends it


def jpeg(content: int, size: tuple[int, int] = (48, 64)) -> bytes:
    """A picture of noise, which differs from any other content."""
    noise = np.random.default_rng(content).integers(0, 255, (*size, 3), np.uint8)
    return bytes(cv2.imencode(".jpg", noise)[1].tobytes())


class WebCamera(ThreadingHTTPServer):
    """Serves `/cam.mjpg` from `parts`, and the files of `folder`; with `user`, only with that login."""

    daemon_threads = True

    def __init__(self, parts: Parts, *, folder: Path | None = None, user: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.parts = parts
        self.folder = folder
        self.expected = None if user is None else "Basic " + base64.b64encode(user.encode()).decode()
        self.period_s = 1 / 30
        self.connections = 0
        self.broken_after: int | None = None  # bytes of a file, after which the connection is cut
        self.closing = threading.Event()

    def url(self, name: str = "cam.mjpg", user: str = "") -> str:
        """An address of this server."""
        return f"http://{user}{'@' if user else ''}127.0.0.1:{self.server_address[1]}/{name}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that has disconnected."""


class _Handler(BaseHTTPRequestHandler):
    server: WebCamera

    def do_GET(self) -> None:
        server = self.server
        if server.expected is not None and self.headers.get("Authorization") != server.expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="cam"')
            self.end_headers()
            return
        name = self.path.partition("?")[0].lstrip("/")
        if name == "cam.mjpg":
            self._send_pictures()
        elif server.folder is not None and (server.folder / name).is_file():
            self._send_file(server.folder / name)
        else:
            self.send_error(404)

    def _send_pictures(self) -> None:
        self.server.connections += 1
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace;boundary={BOUNDARY}")
        self.end_headers()
        index = 0
        while (part := self.server.parts(index)) is not None:
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(part)}\r\n\r\n"
            self.wfile.write(head.encode() + part + b"\r\n")
            index += 1
            if self.server.closing.wait(self.server.period_s):
                return

    def _send_file(self, path: Path) -> None:
        data = path.read_bytes()
        start = int(self.headers.get("Range", "bytes=0-").partition("=")[2].partition("-")[0] or 0)
        self.send_response(206 if start else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[start : self.server.broken_after])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # the base class's own name
        """Quiet."""


@contextmanager
def web_camera(
    parts: Parts = jpeg, *, folder: Path | None = None, user: str | None = None
) -> Iterator[WebCamera]:
    """A running server."""
    server = WebCamera(parts, folder=folder, user=user)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
