"""What operators ask a service for: `/healthz` and `/metrics`, of one server or of all its replicas."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from emi_live.sinks.metrics import event_family

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from emi_live.web.server import Crowd

__all__ = ["AskAll", "Figures", "Report", "figures_of"]

SAME_S: Final = 1.0  # for so long all get the same answer, so that who asks often costs the replicas nothing


@dataclass(frozen=True, slots=True)
class Figures:
    """What one server counts.

    Attributes:
        sessions: that are open.
        most: it takes at one time.
        behind: sessions that get too few estimates.
        events: what happened since it started, by name.
        replica: its name; empty: it is the only server.
    """

    sessions: int
    most: int
    behind: int
    events: Mapping[str, int]
    replica: str = ""


def figures_of(crowd: Crowd, counts: Mapping[str, int], replica: str = "") -> Figures:
    """The figures of these sessions, and of those that have ended here.

    Args:
        crowd: the sessions.
        counts: further events.
        replica: as of `Figures`.
    """
    running = list(crowd.running.values())
    events = crowd.counters + sum((one.counters for one in running), Counter(counts))
    return Figures(len(running), crowd.most, sum(one.behind for one in running), dict(events), replica)


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of a service.

    Attributes:
        servers: one, or each replica that has answered.
        silent: replicas that run and have not answered in time; None: there are no replicas.
    """

    servers: Sequence[Figures]
    silent: int | None = None

    def health(self) -> dict[str, Any]:
        """For /healthz: sums over all servers that have answered."""
        told: dict[str, Any] = {"status": "ok"}
        for name in ("sessions", "most", "behind"):
            told[name] = sum(getattr(one, name) for one in self.servers)
        if self.silent is not None:
            told["replicas"] = len(self.servers) + self.silent
            told["replicas_without_answer"] = self.silent
        return told

    def metrics(self) -> bytes:
        """For /metrics: Prometheus' text format; with replicas, each series names its own."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(self))
        return generate_latest(registry)


class _Collector:
    """The families of a report."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        servers, silent = self._report.servers, self._report.silent
        labels = () if silent is None else ("replica",)

        def own(one: Figures) -> Sequence[str]:
            return () if silent is None else (one.replica,)

        for name, what, field in (
            ("emi_sessions", "Sessions that are open.", "sessions"),
            ("emi_sessions_behind", "Sessions that get too few estimates.", "behind"),
        ):
            family = GaugeMetricFamily(name, what, labels=labels)
            for one in servers:
                family.add_metric(own(one), getattr(one, field))
            yield family
        yield event_family([(own(one), one.events) for one in servers], labels)
        if silent is not None:
            yield GaugeMetricFamily("emi_replicas", "Replicas that run.", len(servers) + silent)
            said = "Replicas that run and did not answer in time: their series are missing."
            yield GaugeMetricFamily("emi_replicas_without_answer", said, silent)


class AskAll:
    """Gives the figures of all replicas, in the one of them that was asked."""

    def __init__(
        self, ask: Callable[[], Sequence[object]], own: Callable[[], Figures], replicas: int
    ) -> None:
        """For one event loop.

        Args:
            ask: is called in a thread; returns the `Figures` of each replica that runs, and whatever else for
                one that has not answered. It may raise anything.
            own: the figures of this replica.
            replicas: how many there are, until they have been asked.
        """
        self._ask = ask
        self._own = own
        self._replicas = replicas
        self._asking: asyncio.Task[Report] | None = None
        self._asked_s = 0.0

    async def __call__(self) -> Report:
        """The figures of those that have answered; never older than `SAME_S`."""
        now_s = time.monotonic()
        if self._asking is None or (self._asking.done() and now_s - self._asked_s >= SAME_S):
            self._asked_s = now_s
            # Not as a part of this request: who asks may go, and others wait for the same answer.
            self._asking = asyncio.create_task(self._report(), context=contextvars.Context())
        return await asyncio.shield(self._asking)

    async def _report(self) -> Report:
        answers: Sequence[object] = ()
        with suppress(Exception):  # nobody can be asked: as many as before are silent
            answers = await asyncio.to_thread(self._ask)
            self._replicas = len(answers)
        found = {one.replica: one for one in answers if isinstance(one, Figures)}
        own = self._own()
        found[own.replica] = own
        return Report([found[name] for name in sorted(found)], max(0, self._replicas - len(found)))
