"""Which replica of `emi serve --cluster` gets a request, and how many there are.

A machine that is lost without a word is noticed by Ray after half a minute or more. Before a request goes to
another machine, the proxy therefore opens a connection to it; that is answered by the kernel, at once even
where all cores are busy.

Ray's proxy and its controller load this module, so it imports little.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import math
import re
import socket
import time
from typing import TYPE_CHECKING, Any, Final

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from collections.abc import Set as AbstractSet

    from ray.serve.config import AutoscalingContext

__all__ = ["Lost", "PinnedRouter", "choose", "replicas_for"]

ID: Final = re.compile(rb"/v1/sessions/(([0-9a-z]+)\.[\w.-]+)")
ANSWERS_S: Final = 1.5  # TCP asks a second time after 1 s
KNOWN_S: Final = 1.0  # after that it is asked again
LOST_S: Final = 5.0  # for so long a machine counts as lost if nobody asks again


class Lost:
    """Which machines do not answer."""

    def __init__(self) -> None:
        """Nobody has been asked yet."""
        self._asked: dict[str, tuple[asyncio.Task[None], float]] = {}  # by address, with when it was asked
        self._lost: dict[str, float] = {}  # and when it did not answer

    async def among(self, addresses: Iterable[str]) -> set[str]:
        """Those that do not answer within `ANSWERS_S`, or did not a moment ago.

        Args:
            addresses: `HOST:PORT` each. Whether anybody listens there does not matter.
        """
        wanted, now_s, waits = set(addresses), time.monotonic(), []
        for address in wanted:
            task, since_s = self._asked.get(address, (None, now_s))
            if task is None or (task.done() and now_s - since_s > KNOWN_S):
                task = asyncio.create_task(self._ask(address))
                self._asked[address] = task, now_s
            if not task.done() and not self._is_lost(address):  # else it is asked again meanwhile
                waits.append(task)
        if waits:
            await asyncio.wait(waits)
        return {address for address in wanted if self._is_lost(address)}

    async def _ask(self, address: str) -> None:
        if await _answers(address):
            self._lost.pop(address, None)
        else:
            self._lost[address] = time.monotonic()

    def _is_lost(self, address: str) -> bool:
        return time.monotonic() - self._lost.get(address, -math.inf) < LOST_S


async def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as asking:
        asking.setblocking(False)
        connected = asyncio.get_running_loop().sock_connect(asking, (host, int(port)))
        try:
            await asyncio.wait_for(connected, ANSWERS_S)
        except TimeoutError:  # it may be this program that is late, not the answer
            return _connected(asking)
        except OSError as error:
            # Refused: the machine is there, and Ray notices at once what has ended on it.
            return error.errno == errno.ECONNREFUSED
    return True


def _connected(asking: socket.socket) -> bool:
    if asking.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED:
        return True
    try:
        asking.getpeername()
    except OSError:
        return False
    return True


class PinnedRouter(RequestRouter):
    """Sends requests of a session to its replica; a new session to one with room, and few connections."""

    _lost: Lost | None = None

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The replica of the session, or that which takes it over; without an id, those with room first."""
        # The proxy's request comes as bytes, in which the path is readable. Nothing in them is believed: who
        # writes another path is sent to another replica, which does not know him.
        request = next(iter(pending_request.args), None) if pending_request is not None else None
        found = ID.search(request) if isinstance(request, bytes) else None
        self._lost = self._lost or Lost()
        return await choose(candidate_replicas, found, self._lost.among)


async def choose(
    replicas: list[Any],
    found: re.Match[bytes] | None,
    lost_among: Callable[[Iterable[str]], Awaitable[AbstractSet[str]]],
) -> list[list[Any]]:
    """Those of the replicas that may get the request, in order; with an id, the same in every proxy.

    Args:
        replicas: all that run, as far as Ray knows.
        found: the id of a session that the request is for.
        lost_among: which of some machines do not answer; it may take a while if one does not.
    """

    async def there(some: list[Any]) -> list[Any]:
        at = [one.routing_stats["at"] for one in some if "at" in one.routing_stats]  # not in the first second
        lost = await lost_among(at)
        return [one for one in some if one.routing_stats.get("at") not in lost]

    if found is None:
        open_ = await there(replicas) or replicas
        full = [one for one in open_ if one.routing_stats.get("room", 1) <= 0]
        return [[one for one in open_ if one not in full], full]
    name, owner = found[1], found[2].decode()

    def rank(replica: Any) -> tuple[bool, bytes]:
        own = replica.replica_id.unique_id
        return own != owner, hashlib.sha256(name + own.encode()).digest()

    in_order = sorted(replicas, key=rank)
    first, rest = in_order[:1], in_order[1:]
    # Nobody waits for a machine that is not needed. If all are lost, it is this one that is alone.
    return [await there(first) or (await there(rest))[:1] or first]


def replicas_for(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """How many replicas the sessions need; Ray keeps to the limits and the delays.

    Ray itself would count requests: a session by WebRTC is none, and each viewer is one.
    """
    sessions = sum((context.aggregated_metrics or {}).get("sessions", {}).values())
    return math.ceil(sessions / context.config.target_ongoing_requests - 1e-9), {}
