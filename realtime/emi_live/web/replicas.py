"""`emi serve --cluster`: the server of `web.server` in several processes or machines, on Ray Serve.

::

    browser ── proxy of Ray Serve ── PinnedRouter ──┬── People (replica 1): sessions, their engines
                                                    └── People (replica 2)  ──┬── Fusion (if asked for)
                                                                              └── Words  (if asked for)

Each replica runs the same application as one-process `emi serve`. The id of a session names the replica
that has it (`Tickets`), and the router sends every request with that id there. If that replica is gone, all
requests with the id go to the same other one, which takes the session over (`Sessions.take_over`); the client
sends the last seconds of its media again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ray import serve
from ray.serve.config import AutoscalingConfig, HTTPOptions, RequestRouterConfig
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from emi_live.bundle import bundle_of
from emi_live.errors import StageError
from emi_live.live import LiveEngine
from emi_live.sharing import SharedModels
from emi_live.web.remote import START_S, Fusion, RemoteEngine, RemoteModels, Words, bind_to_own_address
from emi_live.web.server import Access, build_app
from emi_live.web.sessions import Sessions, Tickets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ray.serve import Application
    from starlette.applications import Starlette

    from emi_live.config import LiveConfig

__all__ = ["Deployed", "PinnedRouter", "Plan", "deploy", "make_application"]

logger = logging.getLogger(__name__)

APP: Final = "emi"
PEOPLE: Final = "People"
ID: Final = re.compile(rb"/v1/sessions/(([0-9a-z]+)\.[\w.-]+)")
HEALTH_S: Final = 1.0  # Ray asks a replica so often whether it is well, but not one that it wants to end
FORGOTTEN: Final = 3  # times that it was not asked, before a replica looks whether it is to end
READERS: Final = 4  # connections for each session: its source, and who watches or asks
BUSY: Final = 0.7  # share of taken sessions above which a replica is added
BATCH: Final = 32  # rows of the network
READY_S: Final = 300.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What runs where.

    Attributes:
        config: of every session.
        access: who may connect.
        least: replicas that always run.
        most: replicas that run when many people come.
        sessions: people of one replica.
        idle_s: as of `Sessions`.
        version: as of `Sessions`.
        notice: as of `Sessions`.
        networks: replicas of the network that all sessions share; 0: each session has its own.
        recognizers: replicas of the recogniser that all sessions share; 0: each replica has one.
        cpus: cores that a replica reserves; 0 on one machine, where the system shares them.
        ice: servers that WebRTC may ask.
        loopback: whether WebRTC uses this machine's loopback alone.
        secret: proves that an id was issued here.
        comeback_s: as of `Sessions`.
        drain_s: how long a replica that is to end keeps connections that do not go.
    """

    config: LiveConfig
    access: Access
    least: int = 2
    most: int = 2
    sessions: int = 4
    idle_s: float = 60.0
    version: str = ""
    notice: str | None = None
    networks: int = 0
    recognizers: int = 0
    cpus: float = 0.0
    ice: Sequence[str] = ()
    loopback: bool = True
    secret: bytes = b""
    comeback_s: float = 15.0
    drain_s: float = 20.0


class PinnedRouter(RequestRouter):
    """Sends requests of a session to its replica; a new session to the one with the fewest connections."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The replica of the session, or that which takes it over; without a session, any."""
        # The proxy's request comes as bytes, in which the path is readable. Nothing in them is believed: who
        # writes another path is sent to another replica, which does not know him.
        request = next(iter(pending_request.args), None) if pending_request is not None else None
        found = ID.search(request) if isinstance(request, bytes) else None
        return [choose(candidate_replicas, found)]


def choose(replicas: list[Any], found: re.Match[bytes] | None) -> list[Any]:
    """Those of the replicas that may get the request; the same in every proxy."""
    if found is None:
        return list(replicas)
    name, owner = found[1], found[2].decode()
    owners = [one for one in replicas if one.replica_id.unique_id == owner]

    def rank(replica: Any) -> bytes:
        return hashlib.sha256(name + replica.replica_id.unique_id.encode()).digest()

    return owners or sorted(replicas, key=rank)[:1]


class People:
    """The deployment with the sessions; its application is that of one-process `emi serve`."""

    app: Starlette  # set by Ray Serve

    async def check_health(self) -> None:
        """Ray asks; a replica that is to end is not asked any more."""
        self.app.state.replica.asked_s = time.monotonic()

    async def secret(self) -> bytes:
        """What proves that an id was issued here, for a deployment that replaces this one."""
        secret: bytes = self.app.state.replica.secret
        return secret

    async def counts(self) -> dict[str, int]:
        """How many sessions it has, and what it counted."""
        crowd = self.app.state.crowd
        return {"sessions": len(crowd.running), **crowd.counters}


class Replica:
    """What one replica holds, besides the application."""

    def __init__(self, plan: Plan) -> None:
        """Load the first engine."""
        context = serve.get_replica_context()
        self._app_name, self._name = context.app_name, context.replica_id.unique_id
        self.asked_s: float | None = None
        self.secret = plan.secret
        self._shared = self._models(plan)
        self.crowd = Sessions(
            plan.config,
            most=plan.sessions,
            idle_s=plan.idle_s,
            comeback_s=plan.comeback_s,
            version=plan.version,
            notice=plan.notice,
            make_engine=self._engine_maker(plan),
            tickets=Tickets(self._name, plan.secret),
        )
        self.announcements = self.crowd.prepare()

    def _handle(self, name: str) -> Any:
        return serve.get_deployment_handle(name, self._app_name)

    def _models(self, plan: Plan) -> SharedModels:
        from emi_models.store import ModelStore

        config, bundle = plan.config, bundle_of(plan.config)
        store = ModelStore(config.models.directory, offline=config.models.offline)
        if not plan.recognizers or config.speech.backend == "none":
            return SharedModels(bundle.load_words(config, store))
        words = self._handle("Words")
        recognizer = RemoteModels.recognizer(words, *_answer(words.about.remote()))
        return RemoteModels(bundle.load_words(config, store, recognizer=recognizer), words)

    def _engine_maker(self, plan: Plan) -> Callable[[LiveConfig], LiveEngine]:
        if not plan.networks:
            return partial(LiveEngine, shared=self._shared)
        fusion = self._handle("Fusion")
        facts = _answer(fusion.about.remote())

        def make(config: LiveConfig) -> LiveEngine:
            engine = RemoteEngine(fusion, facts, config.window.hop_s)
            return LiveEngine(config, shared=self._shared, engine=engine)

        return make

    async def watch(self) -> None:
        """Cut the connections when Ray wants to end this replica, for clients to go on at another one."""
        while True:
            await asyncio.sleep(HEALTH_S)
            forgotten = self.asked_s is not None and time.monotonic() - self.asked_s > FORGOTTEN * HEALTH_S
            if forgotten and await asyncio.to_thread(self._someone_ends):
                logger.info("replica %s ends: its sessions move", self._name)
                await self.crowd.drain()
                return

    def _someone_ends(self) -> bool:
        with suppress(Exception):  # without a controller nobody ends
            status = serve.status().applications[self._app_name].deployments[PEOPLE]
            return bool(status.replica_states.get("STOPPING", 0))
        return False

    def counts(self) -> dict[str, int]:
        """Further counters for /metrics."""
        return self._shared.counts()

    async def close(self) -> None:
        """End all sessions and release the models."""
        await self.crowd.close()
        await asyncio.to_thread(self._shared.close)


def _answer(asked: Any) -> Any:
    """The answer of a deployment, in a constructor: in a thread, because an event loop runs.

    Raises:
        StageError: it gives none.
    """
    with ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(asked.result, timeout_s=START_S).result()
        except Exception as error:  # whatever Ray raises
            raise StageError(f"a part that the replica needs did not answer: {error}") from error


def _build(plan: Plan) -> Starlette:
    """The application of one replica, in its process."""
    bind_to_own_address()
    servers: Sequence[Any] = ()
    with suppress(ImportError):
        from emi_live.web.rtc import check_ice, use_addresses

        use_addresses(loopback=plan.loopback)
        servers = check_ice(plan.ice)
    replica = Replica(plan)
    app = build_app(
        replica.crowd,
        plan.access,
        servers,
        beside=replica.watch,
        at_end=replica.close,
        counts=replica.counts,
    )
    app.state.replica = replica
    return app


def make_application(plan: Plan) -> Application:
    """The deployments, connected; `serve.run` runs them."""

    def build() -> Starlette:
        return _build(plan)

    needed = []
    reserve = {"num_cpus": plan.cpus}
    if plan.networks:
        fusion = serve.deployment(Fusion).options(
            name="Fusion",
            num_replicas=plan.networks,
            max_ongoing_requests=plan.sessions * plan.most + 1,
            ray_actor_options=reserve | ({"num_gpus": 1} if plan.config.fusion.device == "cuda" else {}),
        )
        needed.append(fusion.bind(plan.config, BATCH))
    if plan.recognizers and plan.config.speech.backend != "none":
        words = serve.deployment(Words).options(
            name="Words",
            num_replicas=plan.recognizers,
            max_ongoing_requests=plan.sessions * plan.most + 1,
            ray_actor_options=reserve,
        )
        needed.append(words.bind(plan.config))
    scaling: dict[str, Any] = {"num_replicas": plan.least}
    if plan.most > plan.least:
        scaling = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=plan.least,
                max_replicas=plan.most,
                target_ongoing_requests=BUSY * plan.sessions,
                upscale_delay_s=5.0,
                downscale_delay_s=300.0,
            )
        }

    class Ingress(People):
        """Takes the handles of the deployments that it needs, so that they are deployed with it."""

        def __init__(self, *handles: Any) -> None:
            self.handles = handles

    people = serve.deployment(serve.ingress(build)(Ingress)).options(
        name=PEOPLE,
        max_ongoing_requests=READERS * plan.sessions + READERS,
        health_check_period_s=HEALTH_S,
        graceful_shutdown_timeout_s=plan.drain_s,
        graceful_shutdown_wait_loop_s=0.2,
        ray_actor_options=reserve,
        request_router_config=RequestRouterConfig(request_router_class=PinnedRouter),
        **scaling,
    )
    return people.bind(*needed)


class Deployed:
    """The application on a cluster, from `deploy` until `close`."""

    def __init__(self, since_s: float) -> None:
        self._since_s = since_s

    def close(self) -> None:
        """End the application, unless somebody has deployed it again since."""
        with suppress(Exception):  # the cluster is gone
            status = serve.status().applications.get(APP)
            if status is not None and status.last_deployed_time_s == self._since_s:
                serve.delete(APP)


def deploy(
    plan: Plan, host: str, port: int, certificate: Path | None = None, key: Path | None = None
) -> Deployed:
    """Run the plan on the cluster that this process is connected to, and wait until it serves.

    An application that runs there is replaced replica by replica; its sessions move.

    Raises:
        StageError: it does not start; the message has Ray's reason.
    """
    from ray.serve.config import ProxyLocation

    options = HTTPOptions(
        host=host,
        port=port,
        ssl_certfile=None if certificate is None else str(certificate),
        ssl_keyfile=None if key is None else str(key),
    )
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        serve.start(proxy_location=ProxyLocation.EveryNode, http_options=options)
        plan = replace(plan, secret=_secret_of_running() or secrets.token_bytes(32))
        serve.run(make_application(plan), name=APP, route_prefix="/", blocking=False)
    except Exception as error:
        status = serve.status().applications.get(APP)
        why = status.message if status is not None and status.message else str(error)
        raise StageError(f"emi serve does not start on Ray: {_reason(why)}") from error
    status = serve.status().applications[APP]
    return Deployed(status.last_deployed_time_s)


def _reason(text: str) -> str:
    """The line of a traceback that says what went wrong."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (errors or lines or ["no reason was given"])[-1]


def _secret_of_running() -> bytes | None:
    """The secret of the application that is replaced; None: there is none, or it has failed."""
    if APP not in serve.status().applications:
        return None
    with suppress(Exception):
        found: bytes = serve.get_app_handle(APP).secret.remote().result(timeout_s=HEALTH_S)
        return found
    return None
