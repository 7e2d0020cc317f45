"""Who may use `emi serve`: tokens, the names it is called by, and the pages of other sites.

Everything is refused that names another origin, or lacks the bearer token where there is one.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from emi_live.errors import ConfigurationError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Access", "Guard", "check_names", "is_loopback"]

logger = logging.getLogger(__name__)

# Nothing is loaded from elsewhere and nothing is sent elsewhere; the page's own pictures are blobs.
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use the server.

    Attributes:
        token: what every request must carry, as `Authorization: Bearer …` or `?token=…`; None: nothing.
        hosts: names under which browsers may reach the server, besides those of this machine's loopback.
        origins: other sites whose pages may use the server, e.g. `https://app.example`.
    """

    token: str | None = None
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()

    def refusal(self, connection: HTTPConnection) -> tuple[int, str] | None:
        """Status and reason for which a request is refused; None: it may go on."""
        host = _host_of(connection.headers.get("host", ""))
        if not (is_loopback(host) or host in self.hosts):
            # A page elsewhere whose name was made to point at this machine would come with its own name.
            return 421, f"this server is not called {host!r}; name it with --name"
        origin = connection.headers.get("origin")
        if origin is not None and origin not in self.origins:
            site = urlsplit(origin)
            if site.netloc != connection.headers.get("host"):
                return 403, f"pages of {origin!r} may not use this server; allow them with --origin"
        preflight = (
            connection.scope.get("method") == "OPTIONS" and origin is not None
        )  # browsers send no token
        if self.token is not None and not preflight and connection.url.path.startswith("/v1/"):
            given = connection.headers.get("authorization", "").removeprefix("Bearer ")
            given = given or connection.query_params.get("token", "")
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                return 401, "a bearer token is missing or wrong"
        return None

    def sharing(self, connection: HTTPConnection) -> dict[str, str]:
        """Headers by which a browser lets pages of the other sites read answers; none for a page of ours."""
        origin = connection.headers.get("origin")
        if origin is None or origin not in self.origins:
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Headers": "Authorization",
            "Access-Control-Allow-Methods": "GET, POST, DELETE",
            "Vary": "Origin",
        }


class Guard:
    """Middleware: refuses who may not use the server, and adds the headers of security."""

    def __init__(self, app: ASGIApp, access: Access, counters: Counter[str]) -> None:
        self._app = app
        self._access = access
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse one connection, or let the application answer."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        refused, shared = self._access.refusal(connection), self._access.sharing(connection)
        if refused is not None:
            status, reason = refused
            self._counters[f"refused_{status}"] += 1
            logger.warning("refused (%d): %s", status, reason)
            if scope["type"] == "websocket":
                await receive()  # the server would not accept an answer before it has asked
                await send({"type": "websocket.close", "code": 1008, "reason": reason[:120]})
                return
            await JSONResponse({"error": reason}, status, headers=shared)(scope, receive, send)
            return
        if shared and scope.get("method") == "OPTIONS":
            await Response(status_code=204, headers=shared)(scope, receive, send)
            return
        headers = [(k.lower().encode(), v.encode()) for k, v in {**HEADERS, **shared}.items()]

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += headers
            await send(message)

        await self._app(scope, receive, with_headers)


def _host_of(netloc: str) -> str:
    with suppress(ValueError):
        return urlsplit(f"//{netloc}").hostname or ""
    return ""


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own, judged by its text: nothing is looked up."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_names(names: Sequence[str]) -> frozenset[str]:
    """The host names of `--name`, without port.

    Raises:
        ConfigurationError: one is an address with a scheme or a path.
    """
    for name in names:
        if not name or "/" in name or _host_of(name) != name.lower():
            raise ConfigurationError(f"--name {name} is not a host name; give it without https:// and port")
    return frozenset(name.lower() for name in names)
