"""A Python client of `emi serve`: send pictures and sound over a WebSocket, read estimates and words.

    with EmiClient.open("http://localhost:8765") as client:
        client.send_frame(jpeg, time.monotonic() * 1000)
        client.send_audio(pcm, time.monotonic() * 1000, 48_000)
        for event in client:
            if isinstance(event, EstimateEvent):
                print(event.estimate["intensities"])

It needs the extra `web` and no model; the live engine runs in the server.
"""

from __future__ import annotations

import http.client
import json
from contextlib import ExitStack
from types import TracebackType
from typing import Self
from urllib.parse import urlencode, urlsplit

import numpy as np
from numpy.typing import ArrayLike
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect

from emi_live.errors import SourceError
from emi_live.web.protocol import (
    MAX_MESSAGE,
    PICTURE,
    SOUND,
    Bye,
    Command,
    Event,
    decode_event,
    encode,
    pack_media,
)

__all__ = ["EmiClient"]

TIMEOUT_S = 10.0


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
    ) -> None:
        """Connect to a session that exists.

        Args:
            server: such as `http://localhost:8765`.
            session: its id.
            token: bearer token, if the server asks for one.
            viewer: only read; the source of the session is another connection.
            faces: get a `FacesEvent` for each picture.

        Raises:
            SourceError: the server cannot be reached, or refuses.
        """
        self.session = session
        self.ended: str | None = None  # why the session has ended
        self._opened = ExitStack()
        at = urlsplit(server)
        query = urlencode(({"role": "viewer"} if viewer else {}) | ({"faces": 1} if faces else {}))
        url = f"{'wss' if at.scheme == 'https' else 'ws'}://{at.netloc}/v1/sessions/{session}?{query}"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            opened = connect(
                url, additional_headers=headers, max_size=MAX_MESSAGE, compression=None, proxy=None
            )
            self._socket = self._opened.enter_context(opened)
        except (OSError, WebSocketException) as error:
            raise SourceError(f"{server} cannot be reached: {error}") from error

    @classmethod
    def open(cls, server: str, *, token: str | None = None, faces: bool = False) -> Self:
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
        return cls(server, body["id"], token=token, faces=faces)

    def send_frame(self, jpeg: bytes, t_ms: float) -> None:
        """Send one JPEG picture, captured at `t_ms` of a steady clock of yours.

        Raises:
            SourceError: the session has ended.
        """
        self._send(pack_media(PICTURE, t_ms, jpeg))

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
        self._send(pack_media(SOUND, t_ms, samples.astype("<i2").tobytes(), rate_hz))

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
            self.ended = self.ended or str(error)
            return None
        if isinstance(event, Bye):
            self.ended = event.reason
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
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, message: bytes | str) -> None:
        try:
            self._socket.send(message)
        except ConnectionClosed as error:
            raise SourceError(f"the session has ended: {self.ended or error}") from error
