"""A Python client of `emi serve`: send pictures and sound over a WebSocket, read estimates and words.

    with EmiClient.open("http://localhost:8765") as client:
        client.send_frame(jpeg, time.monotonic() * 1000)
        client.send_audio(pcm, time.monotonic() * 1000, 48_000)
        for event in client:
            if isinstance(event, EstimateEvent):
                print(event.estimate["intensities"])

It needs the extra `web` and no model; the live engine runs in the server. With `resume=True` a client
connects again after a cut, and asks who answers for its session when nothing comes for a second. If another
server takes the session over, it sends its last media again.
"""

from __future__ import annotations

import http.client
import json
import secrets
import socket as sockets
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from types import TracebackType
from typing import Final, Literal, Self
from urllib.parse import urlencode, urlsplit

import numpy as np
from numpy.typing import ArrayLike
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from emi_live.errors import SourceError
from emi_live.health import Health
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
from emi_live.worker import Worker

__all__ = ["EmiClient"]

TIMEOUT_S: Final = 10.0
OWN_S: Final = 1.5  # for the answer of its own address, where another one has answered
OTHER_S: Final = 3.0  # for a connection, where there are other addresses
SILENT_S: Final = 1.0  # then it is asked who has the session; estimates come five times a second
ASK_S: Final = 5.0  # for the answer: a proxy may itself wait for 1.5 s, and be busy
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
        server: str | Sequence[str],
        session: str,
        *,
        token: str | None = None,
        viewer: bool = False,
        faces: bool = False,
        resume: bool = False,
    ) -> None:
        """Connect to a session that exists.

        Args:
            server: such as `http://localhost:8765`; or several addresses of one service on a cluster, of
                which the next is tried where one does not answer.
            session: its id.
            token: bearer token, if the server asks for one.
            viewer: only read; the source of the session is another connection.
            faces: get a `FacesEvent` for each picture.
            resume: connect again after a cut or silence, for some seconds; keep on reading, since `receive`
                does it. `session` changes if another server takes the session over, and a `WarningEvent`
                says for how long there were no estimates.

        Raises:
            SourceError: the server cannot be reached, or refuses.
        """
        self.session = session
        self.ended: str | None = None  # why the session has ended
        self._servers = [server] if isinstance(server, str) else list(dict.fromkeys(server))
        self._query: dict[str, object] = {"role": "viewer"} if viewer else {}
        self._query |= {"faces": 1} if faces else {}
        self._query |= {} if viewer else {"key": secrets.token_urlsafe(16)}
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._kept = _Kept() if resume and not viewer else None
        self._resume = resume
        self._back = False  # connected again, and the server does not know yet what was said meanwhile
        self._moved = False  # another server has the session, which has not got the last media yet
        self._last_ms: float | None = None  # end of the newest estimate
        self._runs = False  # so that messages must come
        self._heard_s = time.monotonic()  # when the last one came
        self._asked_s = self._heard_s  # when it was asked why none comes
        self._asking: list[Worker] = []
        self._attempt = 0  # to connect again, since a message came
        self._seq = -1  # of the newest estimate
        self._undelivered = 0  # answers with a newer one, since a message came
        self._paused = self._muted = False
        self._sending = threading.Lock()
        self._closed = threading.Event()
        self._opened = ExitStack()
        self._socket = self._connect_first()

    def _connect_first(self) -> ClientConnection:
        for _ in self._servers[1:]:
            with suppress(SourceError):
                return self._connect()
        return self._connect()

    def _connect(self) -> ClientConnection:
        server = self._servers[0]
        at = urlsplit(server)
        last = {} if self._last_ms is None else {"last_ms": self._last_ms}
        path = f"/v1/sessions/{self.session}?{urlencode(self._query | last)}"
        url = f"{'wss' if at.scheme == 'https' else 'ws'}://{at.netloc}{path}"
        try:
            address = at.hostname or "", at.port or (443 if at.scheme == "https" else 80)
            opened = connect(
                url,
                sock=sockets.create_connection(address, _timeout_s(self._servers)),
                additional_headers=self._headers,
                max_size=MAX_MESSAGE,
                compression=None,
                proxy=None,
                open_timeout=TIMEOUT_S,
                ping_timeout=PATIENCE_S,
            )
            return self._opened.enter_context(opened)
        except (OSError, WebSocketException) as error:
            self._servers = sorted(self._servers, key=lambda one: one == server)  # it is the next one's turn
            raise SourceError(f"{server} cannot be reached: {error}") from error

    @classmethod
    def open(
        cls,
        server: str | Sequence[str],
        *,
        token: str | None = None,
        faces: bool = False,
        resume: bool = False,
    ) -> Self:
        """Begin a session and connect to it; the arguments are those of `EmiClient`.

        Raises:
            SourceError: the server cannot be reached, or refuses, e.g. because all sessions are taken.
        """
        servers = [server] if isinstance(server, str) else list(server)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        for number in range(1, len(servers) + 1):
            try:
                wait_s = _timeout_s(servers), TIMEOUT_S
                status, answer = _request("POST", servers[0], "/v1/sessions", headers, wait_s)
                body = json.loads(answer)
                break
            except (OSError, ValueError, http.client.HTTPException) as error:
                if number == len(servers):
                    raise SourceError(
                        f"{servers[0]} cannot be reached: {error}; is `emi serve` running there?"
                    ) from error
                servers.append(servers.pop(0))
        if status != http.client.CREATED:
            raise SourceError(f"{servers[0]}: {body.get('error', status)}")
        return cls(servers, body["id"], token=token, faces=faces, resume=resume)

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
        self._muted = type_ == "mute" or (self._muted and type_ != "unmute")  # at once: nothing more is kept
        self._paused = type_ == "pause" or (self._paused and type_ != "resume")
        self._send(encode(Command(type=type_, at=at)))  # type: ignore[arg-type] # the server refuses others

    def receive(self, timeout_s: float | None = None) -> Event | None:
        """The next message; None after `timeout_s`, or at the end.

        Raises:
            ProtocolError: the server speaks another version.
        """
        event = self._next(None if timeout_s is None else time.monotonic() + timeout_s)
        if event is None:
            return None
        self._heard_s, self._undelivered, self._attempt = time.monotonic(), 0, 0
        match event:
            case Bye():
                self.ended = event.reason
            case EstimateEvent():
                self._last_ms = self._last_ms if event.end_ms is None else event.end_ms
                self._seq = event.estimate.get("seq", -1)
            case Hello() if event.session != self.session:
                self.session, self._moved, self._seq = event.session, True, -1
            case StateEvent():
                self._runs = event.state != "loading"
                if not self._back:
                    self._paused, self._muted = event.state == "paused", event.muted
                elif self._runs:
                    self._come_back(event)
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

    def _next(self, until_s: float | None) -> Event | None:
        while True:
            try:
                return decode_event(self._socket.recv(self._wait_s(until_s)))
            except TimeoutError:
                self._ask_if_silent()
                if until_s is not None and time.monotonic() >= until_s:
                    return None
            except ConnectionClosed as error:
                if not self._connect_again():
                    self.ended = self.ended or str(error)
                    return None

    def _wait_s(self, until_s: float | None) -> float | None:
        """How long to wait for a message: until a time, or until there has been none for too long."""
        if self._resume and self._runs:
            ask_s = max(self._heard_s, self._asked_s) + SILENT_S
            until_s = ask_s if until_s is None else min(until_s, ask_s)
        return None if until_s is None else max(0.0, until_s - time.monotonic())

    def _ask_if_silent(self) -> None:
        """Ask in threads who has the session, if nothing has come for too long."""
        now_s = time.monotonic()
        if not (self._resume and self._runs) or now_s < max(self._heard_s, self._asked_s) + SILENT_S:
            return
        self._asked_s = now_s
        if all(worker.finished for worker in self._asking):
            ask = partial(self._ask, threading.Event(), self._servers[0], self._socket, self._heard_s)
            self._asking = [Worker("who-has-it", partial(ask, one), Health()) for one in self._servers]
            for worker in self._asking:
                worker.start()

    def _judge(self, status: int, answer: bytes) -> Literal["here", "not delivered", "elsewhere", "unknown"]:
        """What an answer to `…/latest` says of the session. Proxies answer too, and not in JSON."""
        try:
            body = json.loads(answer) if answer else {}
        except ValueError:
            return "unknown"
        if status == http.client.SERVICE_UNAVAILABLE:
            return "elsewhere"
        if status >= http.client.BAD_REQUEST:
            return "unknown"
        return "not delivered" if body.get("seq", -1) > self._seq else "here"

    def _ask(
        self,
        answered: threading.Event,
        own: str,
        silent: ClientConnection,
        heard_s: float,
        server: str,
        _: threading.Event,
    ) -> None:
        """Ask at one address, and end a silent connection whose server, or whose own address, is lost."""
        until_s = time.monotonic() + OWN_S
        try:
            path = f"/v1/sessions/{self.session}/latest"
            status, answer = _request("GET", server, path, self._headers, (ASK_S, ASK_S))
        except (OSError, http.client.HTTPException):
            return  # if no address answers, the network may be cut, and come back
        found = self._judge(status, answer)
        if server == own:
            answered.set()
            self._undelivered += found == "not delivered"
            lost = found == "elsewhere" or status == http.client.NOT_FOUND or self._undelivered > 1
        else:
            lost = found != "unknown" and not answered.wait(max(0.0, until_s - time.monotonic()))
        if lost and self._socket is silent and self._heard_s == heard_s and not self._closed.is_set():
            self._servers = sorted(self._servers, key=lambda one: one != server)
            # At once, without the closing message of TLS: a server that is gone would not answer it.
            with suppress(OSError):
                sockets.socket.shutdown(silent.socket, sockets.SHUT_RDWR)

    def _connect_again(self) -> bool:
        """Whether the session goes on in another connection."""
        self._runs = False
        if not self._resume:
            return False
        while self._attempt < len(AGAIN_S):
            self._attempt += 1
            if self.ended is not None or self._closed.wait(AGAIN_S[self._attempt - 1]):
                return False
            with suppress(SourceError):
                socket = self._connect()
                with self._sending:
                    self._socket, self._back = socket, True
                return True
        return False

    def _send_media(self, t_ms: float, length_ms: float, message: bytes) -> None:
        with self._sending:
            if self._kept is not None and not self._paused and not (self._muted and length_ms):
                self._kept.add(t_ms, length_ms, message)
            if not self._moved:
                self._pass_on(message)

    def _come_back(self, state: StateEvent) -> None:
        """Mute and pause as before the cut; send the last media again if another server has the session."""
        with self._sending:
            if self._kept is not None:
                if self._muted and not state.muted:
                    self._pass_on(encode(Command(type="mute")))
                if self._paused and state.state != "paused":
                    self._pass_on(encode(Command(type="pause")))
                for message in self._kept.again() if self._moved else ():
                    self._pass_on(message)
            self._muted, self._paused = self._muted or state.muted, self._paused or state.state == "paused"
            self._back = self._moved = False

    def _send(self, message: bytes | str) -> None:
        with self._sending:
            self._pass_on(message)

    def _pass_on(self, message: bytes | str) -> None:
        try:
            self._socket.send(message)
        except ConnectionClosed as error:
            if not self._resume or self.ended is not None or self._closed.is_set():
                raise SourceError(f"the session has ended: {self.ended or error}") from error


def _timeout_s(servers: Sequence[str]) -> float:
    return TIMEOUT_S if len(servers) == 1 else OTHER_S


def _request(
    method: str, server: str, path: str, headers: Mapping[str, str], wait_s: tuple[float, float]
) -> tuple[int, bytes]:
    """Status and body of an answer; `wait_s` is for the connection, and for each part of the answer.

    Raises OSError or HTTPException.
    """
    at = urlsplit(server)
    kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
    connection = kind(at.netloc, timeout=wait_s[0])
    try:
        connection.connect()
        connection.sock.settimeout(wait_s[1])
        connection.request(method, path, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
