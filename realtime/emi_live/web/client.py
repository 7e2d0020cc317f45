"""A Python client of `emi serve`: send pictures and sound over a WebSocket, read estimates and words.

    with EmiClient.open("http://localhost:8765") as client:
        client.send_frame(jpeg, time.monotonic() * 1000)
        client.send_audio(pcm, time.monotonic() * 1000, 48_000)
        for event in client:
            if isinstance(event, EstimateEvent):
                print(event.estimate["intensities"])

It needs the extra `web` and no model; the live engine runs in the server. With `resume=True` a client
connects again after a cut; if another server has taken the session over, it sends its last media again.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import deque
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlencode, urlsplit

import numpy as np
from numpy.typing import ArrayLike
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from emi_live.errors import SourceError
from emi_live.web.protocol import (
    MAX_MESSAGE,
    PICTURE,
    SOUND,
    Bye,
    Command,
    EstimateEvent,
    Event,
    Hello,
    StateEvent,
    decode_event,
    encode,
    pack_media,
)

__all__ = ["EmiClient"]

TIMEOUT_S = 10.0
AGAIN_S: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 4.0)  # waits before each attempt to connect again
PATIENCE_S: Final = 30.0  # for the answer of a busy server, before the connection counts as dead
KEPT_MS: Final = 9000.0  # media that are sent again; a server takes none that are older than 10 s
PICTURE_MS: Final = 200.0  # between pictures that are kept


class _Kept:
    """The last seconds of media that were sent, for another server; and what its sender's clock shows."""

    def __init__(self) -> None:
        self._messages: deque[tuple[float, bytes]] = deque()
        self._picture_ms = -KEPT_MS
        self._lead_ms: float | None = None

    def add(self, t_ms: float, length_ms: float, message: bytes) -> None:
        """Keep one message: a block of sound of that length, or a picture, of length 0."""
        lead_ms = 1000 * time.monotonic() - t_ms - length_ms
        self._lead_ms = lead_ms if self._lead_ms is None else min(lead_ms, self._lead_ms)
        if not length_ms and t_ms - self._picture_ms < PICTURE_MS:
            return
        if not length_ms:
            self._picture_ms = t_ms
        self._messages.append((t_ms, message))
        while self._messages[0][0] < t_ms - KEPT_MS:
            self._messages.popleft()

    def again(self) -> list[bytes | str]:
        """What to send: what the clock shows, and the media that are not too old."""
        if self._lead_ms is None:
            return []
        now_ms = 1000 * time.monotonic() - self._lead_ms
        clock = encode(Command(type="clock", ms=max(0.0, now_ms)))
        return [clock, *(message for t_ms, message in self._messages if t_ms >= now_ms - KEPT_MS)]


class EmiClient:
    """One connection to one session. Sending and reading may happen in different threads."""

    def __init__(
        self,
        server: str,
        session: str,
        *,
        token: str | None = None,
        viewer: bool = False,
        faces: bool = False,
        resume: bool = False,
    ) -> None:
        """Connect to a session that exists.

        Args:
            server: such as `http://localhost:8765`.
            session: its id.
            token: bearer token, if the server asks for one.
            viewer: only read; the source of the session is another connection.
            faces: get a `FacesEvent` for each picture.
            resume: connect again after a cut, for some seconds; keep on reading, since `receive` does it.
                `session` changes if another server takes the session over, and a `WarningEvent` says for
                how long there were no estimates.

        Raises:
            SourceError: the server cannot be reached, or refuses.
        """
        self.session = session
        self.ended: str | None = None  # why the session has ended
        self._server = server
        self._query: dict[str, object] = {"role": "viewer"} if viewer else {}
        self._query |= {"faces": 1} if faces else {}
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._kept = _Kept() if resume and not viewer else None
        self._resume = resume
        self._moved = False  # another server has the session, which has not got the last media yet
        self._last_ms: float | None = None  # end of the newest estimate
        self._sending = threading.Lock()
        self._closed = threading.Event()
        self._opened = ExitStack()
        self._socket = self._connect()

    def _connect(self) -> ClientConnection:
        at = urlsplit(self._server)
        last = {} if self._last_ms is None else {"last_ms": self._last_ms}
        path = f"/v1/sessions/{self.session}?{urlencode(self._query | last)}"
        url = f"{'wss' if at.scheme == 'https' else 'ws'}://{at.netloc}{path}"
        try:
            opened = connect(
                url,
                additional_headers=self._headers,
                max_size=MAX_MESSAGE,
                compression=None,
                proxy=None,
                ping_timeout=PATIENCE_S,
            )
            return self._opened.enter_context(opened)
        except (OSError, WebSocketException) as error:
            raise SourceError(f"{self._server} cannot be reached: {error}") from error

    @classmethod
    def open(
        cls, server: str, *, token: str | None = None, faces: bool = False, resume: bool = False
    ) -> Self:
        """Begin a session and connect to it.

        Raises:
            SourceError: the server cannot be reached, or refuses, e.g. because all sessions are taken.
        """
        at = urlsplit(server)
        kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
        connection = kind(at.netloc, timeout=TIMEOUT_S)
        try:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            connection.request("POST", "/v1/sessions", headers=headers)
            answer = connection.getresponse()
            body = json.loads(answer.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise SourceError(
                f"{server} cannot be reached: {error}; is `emi serve` running there?"
            ) from error
        finally:
            connection.close()
        if answer.status != http.client.CREATED:
            raise SourceError(f"{server}: {body.get('error', answer.reason)}")
        return cls(server, body["id"], token=token, faces=faces, resume=resume)

    def send_frame(self, jpeg: bytes, t_ms: float) -> None:
        """Send one JPEG picture, captured at `t_ms` of a steady clock of yours.

        Raises:
            SourceError: the session has ended.
        """
        self._send_media(t_ms, 0.0, pack_media(PICTURE, t_ms, jpeg))

    def send_audio(self, pcm: ArrayLike, t_ms: float, rate_hz: int) -> None:
        """Send one block of sound, at most 2 s.

        Args:
            pcm: (n,) int16, or float in [-1, 1].
            t_ms: capture time of its first sample, by the same clock as pictures.
            rate_hz: samples a second.

        Raises:
            SourceError: the session has ended.
        """
        samples = np.asarray(pcm)
        if samples.dtype.kind == "f":
            samples = np.clip(np.round(samples * 32767), -32768, 32767)
        message = pack_media(SOUND, t_ms, samples.astype("<i2").tobytes(), rate_hz)
        self._send_media(t_ms, 1000 * len(samples) / rate_hz, message)

    def command(self, type_: str, at: tuple[float, float] | None = None) -> None:
        """Send a command: mark, pause, resume, mute, unmute, end, follow, show_landmarks or hide_landmarks.

        Args:
            type_: which one.
            at: of `follow`: the point next to the face, in fractions of the picture; None: the largest face.
        """
        self._send(encode(Command(type=type_, at=at)))  # type: ignore[arg-type] # the server refuses others

    def receive(self, timeout_s: float | None = None) -> Event | None:
        """The next message; None after `timeout_s`, or at the end.

        Raises:
            ProtocolError: the server speaks another version.
        """
        try:
            event = decode_event(self._socket.recv(timeout_s))
        except TimeoutError:
            return None
        except ConnectionClosed as error:
            if not self._connect_again():
                self.ended = self.ended or str(error)
                return None
            return self.receive(timeout_s)
        match event:
            case Bye():
                self.ended = event.reason
            case EstimateEvent():
                self._last_ms = self._last_ms if event.end_ms is None else event.end_ms
            case Hello() if event.session != self.session:
                self.session, self._moved = event.session, True
            case StateEvent(state="running") if self._moved:
                self._send_again()
        return event

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        event = self.receive()
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """Leave; the session waits for its source for some seconds, then ends. A second call does nothing."""
        self._closed.set()
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect_again(self) -> bool:
        """Whether the session goes on in another connection."""
        if not self._resume:
            return False
        for wait_s in AGAIN_S:
            if self.ended is not None or self._closed.wait(wait_s):
                return False
            with suppress(SourceError):
                socket = self._connect()
                with self._sending:
                    self._socket = socket
                return True
        return False

    def _send_media(self, t_ms: float, length_ms: float, message: bytes) -> None:
        with self._sending:
            if self._kept is not None:
                self._kept.add(t_ms, length_ms, message)
            if not self._moved:
                self._pass_on(message)

    def _send_again(self) -> None:
        """Send the last media to the server that has taken the session over."""
        with self._sending:
            for message in self._kept.again() if self._kept is not None else ():
                self._pass_on(message)
            self._moved = False

    def _send(self, message: bytes | str) -> None:
        with self._sending:
            self._pass_on(message)

    def _pass_on(self, message: bytes | str) -> None:
        try:
            self._socket.send(message)
        except ConnectionClosed as error:
            if not self._resume or self.ended is not None or self._closed.is_set():
                raise SourceError(f"the session has ended: {self.ended or error}") from error
