"""Clients of `emi serve` in tests: they send at real pace, and wait for messages."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from emi_live.web.client import EmiClient
from emi_live.web.protocol import Event, WarningEvent
from tests.live.web.conftest import PATIENCE_S

SECRET, TOKEN = b"for tests", "for-tests"  # of servers that take over from each other, and of their clients


def jpeg(grey: int) -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((48, 64, 3), grey, np.uint8))[1].tobytes())


@contextmanager
def sending(client: EmiClient) -> Iterator[None]:
    """Send pictures and sound at real pace meanwhile."""
    stop = threading.Event()

    def send() -> None:
        while not stop.wait(0.04):
            now_ms = 1000 * time.monotonic()
            client.send_frame(jpeg(100), now_ms)
            client.send_audio(np.zeros(640), now_ms - 40, 16_000)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join(PATIENCE_S)


def heard(client: EmiClient, kind: type[Event], within_s: float = PATIENCE_S) -> Any:
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        event = client.receive(0.2)
        assert client.ended is None, client.ended
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__} in {within_s} s")


def told_to_have_moved(client: EmiClient) -> WarningEvent:
    """The warning; a busy machine may also say that it is full."""
    while "moved" not in (warning := heard(client, WarningEvent, 4 * PATIENCE_S)).text:
        continue
    assert isinstance(warning, WarningEvent)
    return warning


def status_of(url: str, session: str) -> int:
    """What a server answers who asks for the newest estimate of a session."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
    connection.request("GET", f"/v1/sessions/{session}/latest", headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        return connection.getresponse().status
    finally:
        connection.close()
