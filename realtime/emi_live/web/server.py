"""The HTTP and WebSocket server of `emi serve`, on Starlette and uvicorn.

    GET  /                           the page; GET /emi.js, /emi.d.ts, /example.html
    POST /v1/sessions                a new session: {"id": …}; 503 when all are taken, or the machine is full
    WS   /v1/sessions/{id}           media in, messages out (`web.protocol`); `?role=viewer` only reads
    GET  /v1/sessions/{id}/latest    the newest estimate; 204 before the first
    POST /v1/sessions/{id}/offer     media by WebRTC in place of the WebSocket (`web.rtc`)
    DELETE /v1/sessions/{id}         end it
    GET  /healthz, /metrics          for operators

`web.access` decides who may use it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, get_args

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from emi_live.errors import ConfigurationError, SourceError
from emi_live.health import Health
from emi_live.web.access import Guard
from emi_live.web.broadcast import FullError
from emi_live.web.figures import Report, figures_of
from emi_live.web.protocol import (
    LATEST_MS,
    MAX_KEY,
    MAX_MESSAGE,
    MAX_OFFER,
    VIOLATIONS,
    Bye,
    Offer,
    ProtocolError,
    Role,
    Rules,
    decode_command,
    encode,
    unpack_media,
)
from emi_live.web.sessions import Session
from emi_live.worker import Worker

if TYPE_CHECKING:
    from aiortc import RTCIceServer
    from starlette.requests import Request
    from starlette.websockets import WebSocket

    from emi_live.web.access import Access
    from emi_live.web.broadcast import Broadcast, Outbox

__all__ = [
    "Crowd",
    "Server",
    "build_app",
    "listen",
    "run_in_thread",
    "serve",
    "server_config",
]

logger = logging.getLogger(__name__)

STATIC: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/emi.js": ("emi.js", "text/javascript"),
    "/faces.js": ("faces.js", "text/javascript"),
    "/emi.d.ts": ("emi.d.ts", "text/plain"),
    "/microphone.js": ("microphone.js", "text/javascript"),
    "/example.html": ("example.html", "text/html"),
    "/example.js": ("example.js", "text/javascript"),
}
RESTARTS: Final = 1012  # codes with which a WebSocket is closed: the client may come back at once,
TRY_AGAIN: Final = 1013  # or in a moment


class Crowd(Protocol):
    """The sessions that a server has: those of browsers (`Sessions`), or this machine's own."""

    most: int
    local: str | None  # the session that shows this machine's own camera
    counters: Counter[str]

    @property
    def running(self) -> Mapping[str, Broadcast]:
        """By id."""
        ...

    async def open(self) -> Broadcast:
        """A new session; raises FullError, or ConfigurationError where there are none."""
        ...

    def find(self, name: str) -> Broadcast | None:
        """The session of that id; None: there is none, or it has ended."""
        ...

    def take_over(self, name: str, last_ms: float | None = None) -> Broadcast | None:
        """As `find`; a session of another server that is gone goes on here. Raises FullError."""
        ...

    def elsewhere(self, name: str) -> bool:
        """Whether another server began it, so that who asks may try again in a moment."""
        ...

    async def end(self, session: Any) -> None:
        """End one session."""
        ...

    async def watch(self) -> None:
        """End what is over, until cancelled."""
        ...

    async def close(self) -> None:
        """End everything."""
        ...


async def _nothing() -> None:
    return


def build_app(
    sessions: Crowd,
    access: Access,
    ice: Sequence[RTCIceServer] = (),
    *,
    beside: Callable[[], Coroutine[Any, Any, None]] = _nothing,
    at_end: Callable[[], Coroutine[Any, Any, None]] = _nothing,
    counts: Callable[[], Mapping[str, int]] = dict,
    ask_all: Callable[[], Awaitable[Report]] | None = None,
) -> Starlette:
    """The application for these sessions.

    Args:
        sessions: it opens, watches and ends them.
        access: who may use it.
        ice: servers that WebRTC may ask.
        beside: runs while the application does.
        at_end: is awaited at its end.
        counts: further counters for /metrics, by name.
        ask_all: gives the figures of all servers for /healthz and /metrics; None: there is this one alone.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work()) for work in (sessions.watch, beside)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await at_end()

    async def ask_this() -> Report:
        return Report([figures_of(sessions, counts())])

    handlers = _Handlers(sessions, ice, ask_all or ask_this)
    routes = [Route(path, _file(*what)) for path, what in STATIC.items()]
    routes += [
        Route("/v1/sessions", handlers.open, methods=["POST"]),
        Route("/v1/local", handlers.local),
        Route("/v1/sessions/{id}/latest", handlers.latest),
        Route("/v1/sessions/{id}/offer", handlers.offer, methods=["POST"]),
        Route("/v1/sessions/{id}", handlers.end, methods=["DELETE"]),
        Route("/healthz", handlers.health),
        Route("/metrics", handlers.metrics),
    ]
    app = Starlette(
        routes=[*routes, WebSocketRoute("/v1/sessions/{id}", handlers.talk)],
        middleware=[Middleware(Guard, access=access, counters=sessions.counters)],
        lifespan=lifespan,
    )
    app.state.crowd = sessions
    return app


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound to the address, so that an address in use is an error before models load.

    Raises:
        ConfigurationError: the address is in use, or not one of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        listener = socket.socket(found[0][0], socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigurationError(
            f"--host {host} is not an IP address; use 127.0.0.1, or 0.0.0.0 for all"
        ) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"{host}:{port}: {error.strerror}; choose another --port or --host"
        ) from error
    return listener


def serve(
    app: Starlette, listener: socket.socket, certificate: Path | None = None, key: Path | None = None
) -> None:
    """Run until Ctrl-C or SIGTERM.

    Raises:
        ConfigurationError: the certificate or its key is not valid.
    """
    if certificate is not None:
        from emi_live.web.certificate import check_certificate

        check_certificate(certificate, key)
    config = server_config(app, certificate, key)
    Server(config).run(sockets=[listener])


class Server(uvicorn.Server):
    """Tells every client why it ends, before it closes their connections."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End all sessions, then as uvicorn does."""
        await self.config.app.state.crowd.close()  # type: ignore[union-attr] # made by `build_app`
        await super().shutdown(sockets)


def server_config(app: Starlette, certificate: Path | None = None, key: Path | None = None) -> uvicorn.Config:
    """How uvicorn runs an app of `build_app`."""
    return uvicorn.Config(
        app,
        loop="asyncio",  # uvloop works through io_uring, which a trace of system calls misses
        http="h11",  # and not what else happens to be installed
        log_level="warning",
        access_log=False,
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE,
        ws_ping_interval=10.0,
        ws_ping_timeout=30.0,  # an answer may wait behind media that a busy machine has not read
        timeout_graceful_shutdown=3,
        server_header=False,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )


def run_in_thread(
    app: Starlette, listener: socket.socket, timeout_s: float
) -> tuple[asyncio.AbstractEventLoop, Callable[[], None]]:
    """Serve in a thread of its own; returns its event loop, and what stops it.

    Raises:
        SourceError: it does not start.
    """
    server = Server(server_config(app))
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        await server._serve([listener])  # `serve` would take over the signals of the program

    worker = Worker("web", lambda _: asyncio.run(run()), Health())
    worker.start()
    deadline_s = time.monotonic() + timeout_s
    while not server.started:
        if worker.finished or time.monotonic() > deadline_s:
            raise SourceError("the web server did not start") from worker.error
        worker.join(0.01)

    def stop() -> None:
        server.should_exit = True
        worker.join(timeout_s)

    return loops[0], stop


class _Handlers:
    """One method per route."""

    def __init__(
        self, sessions: Crowd, ice: Sequence[RTCIceServer], report: Callable[[], Awaitable[Report]]
    ) -> None:
        self._sessions = sessions
        self._ice = ice
        self._report = report

    async def open(self, _: Request) -> Response:
        try:
            session = await self._sessions.open()
        except FullError as error:
            return JSONResponse({"error": str(error)}, 503, headers={"Retry-After": "10"})
        except ConfigurationError as error:
            return JSONResponse({"error": str(error)}, 409)
        answer: dict[str, Any] = {"id": session.id, "webrtc": find_spec("aiortc") is not None}
        if self._ice:
            from emi_live.web.rtc import for_browser

            answer["ice"] = for_browser(self._ice)
        return JSONResponse(answer, 201)

    async def offer(self, request: Request) -> Response:
        """Connect the source of a session by WebRTC."""
        try:
            session = self._take_over(request)
        except FullError as error:
            return JSONResponse({"error": str(error)}, 503, headers={"Retry-After": "10"})
        if session is None:
            return self._not_here(request)
        try:
            sdp = await _offer_of(request)
            if find_spec("aiortc") is None:
                raise ProtocolError("this server has no WebRTC: pip install 'emi-live[webrtc]'")
            if not isinstance(session, Session):
                raise ProtocolError("this session has a camera of its own, and takes no media")
            key = _key_of(request)
            session.allow_offer(key)
            from emi_live.web.rtc import Peer

            outbox = session.join("source", faces=request.query_params.get("faces") == "1", key=key)
            client = request.client.host if request.client is not None else "127.0.0.1"
            answer = await Peer(session, outbox, self._ice).answer(sdp, client)
        except ProtocolError as error:
            session.warn(str(error), "offers_refused")
            logger.warning("an offer was refused: %s", error)
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({"type": "answer", "sdp": answer, "id": session.id})

    async def local(self, _: Request) -> Response:
        """The session of this machine's own camera; `emi serve` has none."""
        return JSONResponse({"id": self._sessions.local})

    async def latest(self, request: Request) -> Response:
        session = self._find(request)
        if session is None:
            return self._not_here(request)
        if session.latest is None:
            return Response(status_code=204)
        return JSONResponse(session.latest.to_json())

    async def end(self, request: Request) -> Response:
        session = self._find(request)
        if session is None:
            return self._not_here(request)
        session.ended = session.ended or "ended by the client"
        await self._sessions.end(session)
        return Response(status_code=204)

    async def health(self, _: Request) -> Response:
        return JSONResponse((await self._report()).health())

    async def metrics(self, _: Request) -> Response:
        """Counters in Prometheus' text format."""
        return Response((await self._report()).metrics(), media_type="text/plain; version=0.0.4")

    async def talk(self, client: WebSocket) -> None:
        wanted = client.query_params.get("role", "source")
        await client.accept()
        if wanted not in get_args(Role):
            await _say_bye(client, f"role={wanted} is not one of {', '.join(get_args(Role))}")
            return
        try:
            session = self._take_over(client) if wanted == "source" else self._find(client)
        except FullError as error:
            await _say_bye(client, str(error))
            return
        if session is None and self._sessions.elsewhere(client.path_params["id"]):
            await client.close(TRY_AGAIN)  # its source has not come back yet
            return
        if session is None:
            await _say_bye(client, "there is no such session, or it has ended")
            return
        asked = {name: client.query_params.get(name) == "1" for name in ("pictures", "faces")}
        outbox = session.join(cast("Role", wanted), **asked, key=_key_of(client))
        sending = asyncio.create_task(_send(client, outbox))
        try:
            await _receive(client, session, outbox)
        except WebSocketDisconnect:
            pass
        finally:
            session.leave(outbox)
            sending.cancel()
            with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await sending

    def _not_here(self, request: Request) -> Response:
        if self._sessions.elsewhere(request.path_params["id"]):
            error = "another server has the session, or its source has not come back yet"
            return JSONResponse({"error": error}, 503, headers={"Retry-After": "1"})
        return JSONResponse({"error": "there is no such session, or it has ended"}, 404)

    def _find(self, request: HTTPConnection) -> Broadcast | None:
        return self._sessions.find(request.path_params["id"])

    def _take_over(self, request: HTTPConnection) -> Broadcast | None:
        last_ms: float | None = None
        with suppress(ValueError):
            last_ms = float(request.query_params.get("last_ms", "nan"))
        known = last_ms is not None and 0 <= last_ms <= LATEST_MS
        return self._sessions.take_over(request.path_params["id"], last_ms if known else None)


def _key_of(request: HTTPConnection) -> str | None:
    """What only the source of a session knows; None: nothing that could be one."""
    key = request.query_params.get("key", "")
    return key if 0 < len(key) <= MAX_KEY else None


async def _offer_of(request: Request) -> str:
    """The SDP of a request's body.

    Raises:
        ProtocolError: it is too long, or not an offer.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_OFFER:
            raise ProtocolError(f"an offer of more than {MAX_OFFER} bytes")
    try:
        offer = msgspec.json.decode(body, type=Offer)
    except msgspec.DecodeError as error:
        raise ProtocolError(f'an offer is {{"type": "offer", "sdp": …}} in JSON: {error}') from error
    return offer.sdp


async def _send(client: WebSocket, outbox: Outbox) -> None:
    """Send what is in the outbox; end with the last message."""
    while True:
        message = await outbox.take()
        if message is None:
            await client.close(RESTARTS)
            return
        if isinstance(message, bytes):
            await client.send_bytes(message)
            continue
        await client.send_text(message)
        if message.startswith('{"type":"bye"'):
            await client.close()
            return


async def _receive(client: WebSocket, session: Broadcast, outbox: Outbox) -> None:
    """Take what one client sends, until it leaves or breaks the rules too often."""
    loop, rules = asyncio.get_running_loop(), Rules()
    while True:
        message = await client.receive()
        if message["type"] == "websocket.disconnect":
            return
        if rules.count(loop.time()):
            session.warn("too many messages", "floods")
            await _say_bye(client, "too many messages a second")
            return
        try:
            if (data := message.get("bytes")) is not None:
                if outbox.role != "source":
                    raise ProtocolError("this connection sends no media: it is not the source of the session")
                session.push(unpack_media(data))
            elif outbox.role == "viewer":
                raise ProtocolError("this connection only reads: another one is the source of the session")
            else:
                session.obey(decode_command(message["text"]), outbox)
        except ConfigurationError as error:
            session.warn(str(error), "messages_refused")
            if rules.violated():
                await _say_bye(client, f"more than {VIOLATIONS} messages were refused: {error}")
                return


async def _say_bye(client: WebSocket, reason: str) -> None:
    with suppress(WebSocketDisconnect, RuntimeError):  # it has left, or its sender was faster
        await client.send_text(encode(Bye(reason=reason)))
        await client.close()


def _file(name: str, media_type: str) -> Any:
    content = resources.files("emi_live.web").joinpath("static", name).read_bytes()

    async def answer(_: Request) -> Response:
        return Response(content, media_type=media_type)

    return answer
