"""Which replica of `emi serve --cluster` gets a request, and how many there are.

Ray's proxy and its controller load this module, so it imports little.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import TYPE_CHECKING, Any, Final

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

__all__ = ["PinnedRouter", "choose", "replicas_for"]

ID: Final = re.compile(rb"/v1/sessions/(([0-9a-z]+)\.[\w.-]+)")


class PinnedRouter(RequestRouter):
    """Sends requests of a session to its replica; a new session to one with room, and few connections."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The replica of the session, or that which takes it over; without an id, those with room first."""
        # The proxy's request comes as bytes, in which the path is readable. Nothing in them is believed: who
        # writes another path is sent to another replica, which does not know him.
        request = next(iter(pending_request.args), None) if pending_request is not None else None
        found = ID.search(request) if isinstance(request, bytes) else None
        return choose(candidate_replicas, found)


def choose(replicas: list[Any], found: re.Match[bytes] | None) -> list[list[Any]]:
    """Those of the replicas that may get the request, in order; with an id, the same in every proxy."""
    if found is None:
        full = [one for one in replicas if one.routing_stats.get("room", 1) <= 0]
        return [[one for one in replicas if one not in full], full]
    name, owner = found[1], found[2].decode()
    owners = [one for one in replicas if one.replica_id.unique_id == owner]

    def rank(replica: Any) -> bytes:
        return hashlib.sha256(name + replica.replica_id.unique_id.encode()).digest()

    return [owners or sorted(replicas, key=rank)[:1]]


def replicas_for(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """How many replicas the sessions need; Ray keeps to the limits and the delays.

    Ray itself would count requests: a session by WebRTC is none, and each viewer is one.
    """
    sessions = sum((context.aggregated_metrics or {}).get("sessions", {}).values())
    return math.ceil(sessions / context.config.target_ongoing_requests - 1e-9), {}
