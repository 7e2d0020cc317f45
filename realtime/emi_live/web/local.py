"""`emi-live --web`: this machine's own camera, with its estimates, for any number of pages on this machine.

`WebSink` is a sink of the engine. Its server runs in a thread with an event loop of its own. Pictures are
encoded only while a page wants them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

import cv2

from emi_live.clock import NS_PER_MS
from emi_live.errors import ConfigurationError, SourceError
from emi_live.web.access import Access, is_loopback
from emi_live.web.broadcast import POLL_S, TOPICS, Broadcast, Outbox, read_packets
from emi_live.web.protocol import PICTURE, Bye, Command, Role, pack_media
from emi_live.web.server import build_app, listen, run_in_thread
from emi_live.worker import Worker

if TYPE_CHECKING:
    from emi_live.live import LiveEngine
    from emi_live.messages import Estimate
    from emi_live.rings import VideoReader

__all__ = ["LocalView", "WebSink", "parse_address"]

NAME: Final = "local"
WIDTH_PX: Final = 480
PICTURES_A_SECOND: Final = 12.0
QUALITY: Final = 75  # of JPEG, in percent
START_S: Final = 10.0
PORT: Final = 8765


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `--web`: `8765`, `127.0.0.1:8765` or `[::1]:8765`.

    Raises:
        ConfigurationError: it is not one, or not an address of this machine alone.
    """
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal() or not int(port) < 65536:
        raise ConfigurationError(f"--web {text} is not an address; use 8765 or 127.0.0.1:8765")
    if not is_loopback(host):
        raise ConfigurationError(
            f"--web {text} can be reached from other machines, and a page has no keys; use 127.0.0.1, or "
            "`emi serve`, which has tokens and TLS"
        )
    return host, int(port)


class LocalView(Broadcast):
    """The one session of `--web`. Pages may set markers, pause and mute; they send no media."""

    def role_of(self, wanted: Role) -> Role:
        """Every page of this machine may send commands."""
        return "viewer" if wanted == "viewer" else "controller"

    def set_clock(self, now_ms: float) -> None:
        """Nothing: times are those of our own clock."""

    def client_ms(self, t_ns: int) -> float:
        """As in the header of pictures: our own clock."""
        return t_ns / NS_PER_MS

    def obey(self, command: Command, outbox: Outbox) -> None:
        """As `Broadcast.obey`, but a page cannot end the run: its owner does, in the terminal."""
        if command.type == "end":
            self.warn("a page cannot end this run; end it in its terminal", "commands_ignored")
            return
        super().obey(command, outbox)

    async def close(self) -> None:
        """Tell every page that it is over."""
        self.running = False
        self.tell(Bye(reason=self.ended or "emi-live has ended"))
        await asyncio.sleep(POLL_S)  # for the last messages


class _OneView:
    """What the server asks of `Sessions`, for the one session of this machine."""

    most = 1

    def __init__(self, view: LocalView) -> None:
        self.running = {NAME: view}
        self.counters: Counter[str] = Counter()
        self.local: str | None = NAME
        self._view = view

    async def open(self) -> Broadcast:
        """Refuse: there are no other sessions.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError("this server shows its own camera; for a browser's camera use `emi serve`")

    def find(self, name: str) -> Broadcast | None:
        """The session of that id."""
        return self.running.get(name)

    def take_over(self, name: str, last_ms: float | None = None) -> Broadcast | None:
        """As `find`: there are no other servers."""
        return self.find(name)

    def elsewhere(self, name: str) -> bool:
        """Never: there are no other servers."""
        return False

    async def watch(self) -> None:
        """Nothing is to be watched."""

    async def end(self, session: Broadcast) -> None:
        """Pages cannot end it: its owner does, in the terminal."""

    async def close(self) -> None:
        """Tell every page that it is over."""
        await self._view.close()


class WebSink:
    """A sink that shows estimates, words and pictures in pages of this machine."""

    name = "web"
    finished = False

    def __init__(self, address: str, *, version: str, notice: str | None) -> None:
        """Bind the address, so that one in use is an error before models load.

        Raises:
            ConfigurationError: it is in use, or not an address of this machine.
        """
        self._listener = listen(*parse_address(address))
        self._version = version
        self._notice = notice
        self._view: LocalView | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_server = lambda: None
        self._workers: list[Worker] = []

    @property
    def url(self) -> str:
        """Where to open the page."""
        host, port = self._listener.getsockname()[:2]
        return f"http://{'localhost' if host in ('127.0.0.1', '::1') else host}:{port}/"

    def attach(self, engine: LiveEngine) -> None:
        """Start the server for an engine that is loaded and does not run yet."""
        view = self._view = LocalView(NAME, engine, version=self._version, notice=self._notice)
        app = build_app(_OneView(view), Access())
        self._loop, self._stop_server = run_in_thread(app, self._listener, START_S)
        packets = partial(read_packets, engine.subscribe(TOPICS), self._loop, view.tell_packet)
        pictures = partial(self._send_pictures, engine.frames())
        self._workers = [
            Worker("web-packets", packets, engine.health),
            Worker("web-pictures", pictures, engine.health),
        ]

    def open(self) -> None:
        """Begin to read words and pictures; a second call does nothing."""
        view, loop = self._view, self._loop
        if view is None or loop is None:
            raise SourceError("the web page has no engine yet")
        if view.running:
            return
        view.running = True
        for worker in self._workers:
            worker.start()
        loop.call_soon_threadsafe(view.tell_state)

    def write(self, estimate: Estimate) -> None:
        """Pass one estimate on; never waits."""
        if self._view is not None and self._loop is not None:
            end_ms = estimate.t_ns / NS_PER_MS if estimate.latency.capture_to_estimate is not None else None
            self._loop.call_soon_threadsafe(self._view.tell_estimate, estimate, end_ms)

    def idle(self) -> None:
        """Nothing is due."""

    def close(self) -> None:
        """End the server; a second call does nothing."""
        for worker in self._workers:
            worker.request_stop()
        for worker in self._workers:
            worker.join(2 * POLL_S)
        self._workers = []
        stop, self._stop_server = self._stop_server, lambda: None
        stop()
        self._listener.close()

    def _send_pictures(self, frames: VideoReader, stop: threading.Event) -> None:
        """Encode the newest frame for the pages that want pictures, at most `PICTURES_A_SECOND`."""
        view, loop = self._view, self._loop
        assert view is not None  # noqa: S101 # `attach` has made both
        assert loop is not None  # noqa: S101
        due_s = 0.0
        while not stop.is_set() and not frames.ended:
            frames.wait(POLL_S)
            left_s = due_s - time.monotonic()
            if left_s > 0 and stop.wait(left_s):
                return
            frame = frames.read()
            if frame is None:
                continue
            due_s = time.monotonic() + 1 / PICTURES_A_SECOND
            readers = [outbox for outbox in tuple(view.outboxes) if outbox.pictures]
            if not readers:
                continue
            height, width = frame.rgb.shape[:2]
            size = (min(WIDTH_PX, width), max(1, round(height * min(WIDTH_PX, width) / width)))
            small = cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA)
            done, jpeg = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
            if done:
                message = pack_media(PICTURE, frame.t_ns / NS_PER_MS, jpeg.tobytes())
                for outbox in readers:
                    loop.call_soon_threadsafe(outbox.put_picture, message)
