"""A model hub on loopback that misbehaves as told, and a catalogue of small models that it serves."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from emi_models.store import ModelEntry, ModelFile, WheelCopy
from tests.support.web import web_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.server import BaseHTTPRequestHandler


@dataclass
class Answer:
    """How one request is answered; the default is as it should be."""

    status: int = 0
    only: int | None = None  # send so many bytes of the body, then close
    body: bytes | None = None  # in place of the file
    ranges: bool = True  # whether Range is understood
    shift: int = 0  # resume so many bytes next to the place asked for
    length: bool = True  # whether Content-Length is sent
    location: str = ""  # redirect to this address
    silent: bool = False  # after `only` bytes, say nothing more until the hub closes


@dataclass
class Hub:
    """Files by path, faults for the next requests in order, and what was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: deque[Answer] = field(default_factory=deque)
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range header
    authorizations: list[str | None] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def file(self, path: str, content: bytes, url: str = "") -> ModelFile:
        """Serve `content` and return its pin; `url` is its home if that is not this hub."""
        self.files[f"/{path}"] = content
        name = path.rpartition("/")[2]
        return ModelFile(
            name, len(content), hashlib.sha256(content).hexdigest(), url or f"{self.address}/{path}"
        )

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        span = request.headers.get("Range")
        self.requests.append((request.path, span))
        self.authorizations.append(request.headers.get("Authorization"))
        how = self.faults.popleft() if self.faults else Answer()
        body = self.files.get(request.path) if how.body is None else how.body
        if how.location:
            request.send_response(302)
            request.send_header("Location", how.location)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if how.status or body is None:
            request.send_error(how.status or 404)
            return
        start = 0
        if span and how.ranges:
            start = int(span.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                request.send_error(416)
                return
            start += how.shift
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            request.send_response(200)
        if how.length:
            request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        request.wfile.write(body[start : None if how.only is None else start + how.only])
        if how.silent:
            request.wfile.flush()
            self.closing.wait(30)


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    with web_server(hub.answer, hub.closing) as hub.address:
        yield hub


@pytest.fixture
def answer() -> type[Answer]:
    return Answer


@pytest.fixture
def make_entry(hub: Hub) -> Callable[..., ModelEntry]:
    """Make a catalogue entry of the files given as name=content pairs, served by the hub."""

    def make(name: str, contents: dict[str, bytes], wheel: WheelCopy | None = None) -> ModelEntry:
        files = tuple(hub.file(f"{name}/{path}", content) for path, content in contents.items())
        return ModelEntry(name, "face", "testing", files, "1", "Apache-2.0", "", hub.address, wheel)

    return make
