"""A network camera of our own: MJPEG over HTTP on loopback by ffmpeg, which can be cut off and restored."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.waiting import until

LISTENING, CONNECTED = "0A", "01"  # as /proc/net/tcp has it


class StreamServer:
    """Serves one clip or picture to one client at a time, at real pace, for ever."""

    def __init__(self, media: Path) -> None:
        self._media = media
        self._port = free_port()
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The camera's address."""
        return f"http://127.0.0.1:{self._port}/cam.mjpg"

    def start(self) -> None:
        """Serve, and return once the port is open."""
        still = self._media.suffix in {".jpg", ".png"}
        loop = ["-loop", "1", "-framerate", "30"] if still else ["-stream_loop", "-1"]
        command = ["ffmpeg", "-loglevel", "quiet", "-re", *loop, "-i", str(self._media), "-an"]
        command += [
            "-c:v",
            "mjpeg",
            "-q:v",
            "4",
            "-pix_fmt",
            "yuvj420p",
            "-f",
            "mpjpeg",
            "-listen",
            "1",
            self.url,
        ]
        self._server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        until(self._listening)

    def pause(self) -> None:
        """Stop sending without closing the connection, as a camera that hangs."""
        self._send(signal.SIGSTOP)

    def stop(self) -> None:
        """Cut the stream off."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def _send(self, number: signal.Signals) -> None:
        assert self._server is not None
        self._server.send_signal(number)

    def _listening(self) -> bool:
        # Asking by connecting would use up the one client that ffmpeg takes; a camera that is being reopened
        # may have been that client already.
        lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        local = f"0100007F:{self._port:04X}"
        return any(
            fields[1] == local and fields[3] in (LISTENING, CONNECTED) for fields in map(str.split, lines)
        )


@pytest.fixture
def face_stream(assets: Path) -> Iterator[StreamServer]:
    """A camera that shows a face in motion."""
    yield from _serve(assets / "av/face_and_speech.mp4")


@pytest.fixture
def still_stream(assets: Path) -> Iterator[StreamServer]:
    """A camera that repeats one picture for ever."""
    yield from _serve(assets / "face/pyfeat_single_face.jpg")


def _serve(media: Path) -> Iterator[StreamServer]:
    if shutil.which("ffmpeg") is None or not Path("/proc/net/tcp").exists():
        pytest.skip("a stream on loopback needs ffmpeg, on Linux: sudo apt install ffmpeg")
    server = StreamServer(media)
    server.start()
    try:
        yield server
    finally:
        server.stop()
