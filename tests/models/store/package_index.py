"""A package index on loopback with small wheels, and what can go wrong with them."""

from __future__ import annotations

import hashlib
import io
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZipFile

from emi_models.store import PinnedWheel
from tests.support.web import web_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from http.server import BaseHTTPRequestHandler


def build_wheel(
    name: str, contents: Mapping[str, bytes], version: str = "1.0.0", requires: str = ""
) -> bytes:
    """A wheel that pip accepts, with these files in it; it may require another distribution."""
    module = name.replace("-", "_")
    about = f"{module}-{version}.dist-info"
    whole = {
        **contents,
        f"{about}/METADATA": (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            + (f"Requires-Dist: {requires}\n" if requires else "")
        ).encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    whole[f"{about}/RECORD"] = "".join(f"{path},,\n" for path in whole).encode()
    packed = io.BytesIO()
    with ZipFile(packed, "w", ZIP_DEFLATED) as archive:
        for path, content in whole.items():
            archive.writestr(path, content)
    return packed.getvalue()


def pin_of(name: str, wheel: bytes, members: Mapping[str, str]) -> PinnedWheel:
    return PinnedWheel(name, "1.0.0", len(wheel), hashlib.sha256(wheel).hexdigest(), tuple(members.items()))


@dataclass
class Index:
    """Wheels by name, how many bytes of one come before silence or the end, and what was asked for."""

    wheels: dict[str, bytes] = field(default_factory=dict)
    stuck_after: dict[str, int] = field(default_factory=dict)
    cut_after: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    stuck: threading.Event = field(default_factory=threading.Event)  # the client waits for the rest
    closing: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    @property
    def url(self) -> str:
        """What PIP_INDEX_URL takes."""
        return f"{self.address}/simple"

    @property
    def fetched(self) -> list[str]:
        """The names of the wheels that were asked for, in order."""
        return [path.split("/")[2] for path in self.requests if path.endswith(".whl")]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append(request.path)
        kind, name, *_ = request.path.strip("/").split("/")
        if name not in self.wheels:
            request.send_error(404)
            return
        file = f"{name.replace('-', '_')}-1.0.0-py3-none-any.whl"
        page = f'<!DOCTYPE html><html><body><a href="/files/{name}/{file}">{file}</a></body></html>'.encode()
        body = page if kind == "simple" else self.wheels[name]
        request.send_response(200)
        request.send_header("Content-Type", "text/html" if kind == "simple" else "application/octet-stream")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        stuck, cut = (
            after.get(name) if kind == "files" else None for after in (self.stuck_after, self.cut_after)
        )
        request.wfile.write(body[: stuck or cut])
        if stuck is not None:
            request.wfile.flush()
            self.stuck.set()
            self.closing.wait(30)


@contextmanager
def serving() -> Iterator[Index]:
    index = Index()
    with web_server(index.answer, index.closing) as index.address:
        yield index
