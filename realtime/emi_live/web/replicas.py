"""`emi serve --cluster`: the server of `web.server` in several processes or machines, on Ray Serve.

::

    browser ── proxy of Ray Serve ── PinnedRouter ──┬── People (replica 1): sessions, their engines
                                                    └── People (replica 2)  ──┬── Fusion (if asked for)
                                                                              └── Words  (if asked for)

Each replica runs the same application as one-process `emi serve`. The id of a session names the replica
that has it (`Tickets`), and the router sends every request with that id there. If that replica is gone, all
requests with the id go to the same other one, which takes the session over (`Sessions.take_over`); the client
sends the last seconds of its media again. A replica that Ray ends, because the application is deployed again
or fewer are needed, cuts its connections first (`Replica.leave`).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import socket
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig

from emi_live.bundle import bundle_of
from emi_live.errors import StageError
from emi_live.live import LiveEngine
from emi_live.sharing import SharedModels
from emi_live.web.access import Access
from emi_live.web.figures import AskAll, Figures, figures_of
from emi_live.web.ray_inside import before_end, bind_to_own_address, own_port, read_note, write_note
from emi_live.web.remote import START_S, Fusion, RemoteEngine, RemoteModels, Words
from emi_live.web.routing import PinnedRouter, replicas_for
from emi_live.web.server import build_app
from emi_live.web.sessions import TAKEN_OVER, Sessions, Tickets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ray.serve import Application
    from starlette.applications import Starlette

    from emi_live.config import LiveConfig

__all__ = ["Note", "Plan", "keep_note", "kept_note", "make_application", "replicas_beside"]

logger = logging.getLogger(__name__)

APP: Final = "emi"
PEOPLE: Final = "People"
FUSION: Final = "Fusion"
WORDS: Final = "Words"
NOTE: Final = "serve"  # under which the cluster keeps who deployed the application
RUNS: Final = "runs"  # and what each replica runs
HEALTH_S: Final = 1.0  # Ray asks a replica so often whether it is well
HANGS_S: Final = 10.0  # who takes longer three times in a row hangs; a full machine takes 5 s
COUNT_S: Final = 1.0  # and how many sessions it has
LOOK_BACK_S: Final = 3.0  # their mean over so long decides about more or fewer replicas
MORE_S: Final = 2.0  # for so long they must have been too many before replicas are added
ROUTERS_S: Final = 0.5  # until all proxies know that a replica ends
BETWEEN_S: Final = 0.5  # two looks at what others do
FIGURES_S: Final = 2.0  # for the figures of all replicas, which an operator waits for
CUT_S: Final = 15.0  # for connections that are cut to end
READERS: Final = 32  # connections for each session: its source, and who watches or asks
BUSY: Final = 0.7  # share of taken sessions above which a replica is added
BATCH: Final = 32  # rows of the network


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
        drain_s: how long at most a replica that is to end waits with its sessions for new replicas to start.
        calm_s: for so long fewer replicas must have been enough before some are ended.
        rolling: when it is deployed again, one replica after the other, not all new ones beside the old ones.
        run: of which deployment its replicas are.
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
    drain_s: float = 60.0
    calm_s: float = 120.0
    rolling: bool = False
    run: str = ""

    @property
    def recognizers_run(self) -> int:
        """Replicas of the recogniser: none if words are switched off."""
        return 0 if self.config.speech.backend == "none" else self.recognizers

    @property
    def cores(self) -> float:
        """Cores that it reserves at least."""
        return self.cpus * (self.least + self.networks + self.recognizers_run)

    @property
    def gpus(self) -> int:
        """GPUs that it reserves: one for each network."""
        return self.networks if self.config.fusion.device == "cuda" else 0


class Note(msgspec.Struct):
    """What the cluster keeps about the application that runs.

    Attributes:
        owner: of which command it is.
        secret: proves that an id was issued here.
        rolling: whether the last deployment replaces one replica after the other, or a few: an old one that
            ends does not wait for all new ones then, some of which may wait for its core.
        token: that clients give; a new version without one of its own has it too.
        cpus: cores that each of its processes reserves.
        gpus: GPUs that each of its networks reserves.
    """

    owner: str
    secret: bytes
    rolling: bool = False
    token: str | None = None
    cpus: float = 0.0
    gpus: float = 0.0


def kept_note() -> Note | None:
    """What the cluster keeps; None: nothing runs there, or never did."""
    found = read_note(NOTE)
    return None if found is None else msgspec.json.decode(found, type=Note)


def keep_note(note: Note) -> None:
    """Have the cluster keep it, in place of the one before."""
    write_note(NOTE, msgspec.json.encode(note))


class People:
    """The deployment with the sessions; its application is that of one-process `emi serve`."""

    app: Starlette  # set by Ray Serve

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """For `replicas_for`."""
        return {"sessions": float(len(self.app.state.crowd.running))}

    async def record_routing_stats(self) -> dict[str, Any]:
        """For `choose`: sessions that find room, and where this machine can be reached."""
        crowd = self.app.state.crowd
        return {"room": crowd.most - len(crowd.running), "at": self.app.state.replica.at}

    async def check_health(self) -> None:
        """Answer, in the event loop of the sessions; Ray asks."""

    async def figures(self) -> Figures:
        """What this replica counts; another replica asks."""
        found: Figures = self.app.state.replica.figures()
        return found


class Replica:
    """What one replica holds, besides the application."""

    def __init__(self, plan: Plan) -> None:
        """Load the first engine."""
        context = serve.get_replica_context()
        self._app_name, self._name = context.app_name, context.replica_id.unique_id
        self._drain_s = plan.drain_s
        self.at = own_port()
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
        said = (socket.gethostname(), self.crowd.prepare())
        gc.freeze()  # what is loaded stays: the collector need not look at it after each session
        write_note(f"{RUNS}/{plan.run}/{self._name}", msgspec.json.encode(said))
        people = self._handle(PEOPLE)

        def ask() -> list[Any]:
            answers: list[Any] = people.broadcast("figures").results(
                timeout_s=FIGURES_S, return_exceptions=True
            )
            return answers

        self.ask_all = AskAll(ask, self.figures, plan.least)

    def _handle(self, name: str) -> Any:
        return serve.get_deployment_handle(name, self._app_name)

    def _models(self, plan: Plan) -> SharedModels:
        from emi_models.store import ModelStore

        config, bundle = plan.config, bundle_of(plan.config)
        store = ModelStore(config.models.directory, offline=config.models.offline)
        if not plan.recognizers_run:
            return SharedModels(bundle.load_words(config, store))
        words = self._handle(WORDS)
        recognizer = RemoteModels.recognizer(words, *_answer(words.about.remote()))
        return RemoteModels(bundle.load_words(config, store, recognizer=recognizer), words)

    def _engine_maker(self, plan: Plan) -> Callable[[LiveConfig], LiveEngine]:
        if not plan.networks:
            return partial(LiveEngine, shared=self._shared)
        fusion = self._handle(FUSION)
        facts = _answer(fusion.about.remote())

        def make(config: LiveConfig) -> LiveEngine:
            engine = RemoteEngine(fusion, facts, config.window.hop_s)
            return LiveEngine(config, shared=self._shared, engine=engine)

        return make

    async def watch(self) -> None:
        """Have the sessions leave when Ray ends this replica."""
        loop = asyncio.get_running_loop()

        async def do() -> None:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.leave(), loop))

        before_end(do)

    async def leave(self) -> None:
        """Cut the connections, for clients to go on at another replica, once the new ones have started."""
        logger.info("replica %s ends: its sessions move", self._name)
        await asyncio.sleep(ROUTERS_S)  # who comes back before that would be sent here again
        deadline_s = time.monotonic() + self._drain_s
        while time.monotonic() < deadline_s and await asyncio.to_thread(self._others_start):
            await asyncio.sleep(BETWEEN_S)
        await self.crowd.drain()

    def _others_start(self) -> bool:
        """Whether new replicas are not ready yet, to which sessions would have to move once more."""
        with suppress(Exception):  # without a controller nobody starts
            note = kept_note()
            if note is not None and not note.rolling:
                status = serve.status().applications[self._app_name].deployments[PEOPLE]
                return bool(status.replica_states.get("STARTING", 0))
        return False

    def figures(self) -> Figures:
        """What this replica counts."""
        return figures_of(self.crowd, self._shared.counts(), self._name)

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
        ask_all=replica.ask_all,
    )
    app.state.replica = replica
    return app


def make_application(plan: Plan, free: Mapping[str, float], runs: Mapping[str, int]) -> Application:
    """The deployments, connected; `serve.run` runs them.

    Args:
        plan: what runs.
        free: what nobody uses on the cluster, by Ray's names of resources.
        runs: replicas of the version before that run, by deployment.
    """

    def build() -> Starlette:
        return _build(plan)

    needed = []
    reserve = {"num_cpus": plan.cpus}
    beside = replicas_beside(plan, free, runs)
    gpus = free.get("GPU", 0.0) if plan.gpus else math.inf
    if plan.networks:
        fusion = serve.deployment(Fusion).options(
            name=FUSION,
            num_replicas=plan.networks,
            max_surge_percent=_surge(plan.networks, min(beside[FUSION], gpus)),
            max_ongoing_requests=plan.sessions * plan.most + 1,
            ray_actor_options=reserve | ({"num_gpus": 1} if plan.gpus else {}),
        )
        needed.append(fusion.bind(plan.config, BATCH))
    if plan.recognizers_run:
        words = serve.deployment(Words).options(
            name=WORDS,
            num_replicas=plan.recognizers,
            max_surge_percent=_surge(plan.recognizers, beside[WORDS]),
            max_ongoing_requests=plan.sessions * plan.most + 1,
            ray_actor_options=reserve,
        )
        needed.append(words.bind(plan.config))
    scaling: dict[str, Any] = {"num_replicas": plan.least}
    if plan.most > plan.least:
        with warnings.catch_warnings():  # Ray wants an interval of its own for all applications of a cluster
            warnings.simplefilter("ignore", DeprecationWarning)
            config = AutoscalingConfig(
                min_replicas=plan.least,
                max_replicas=plan.most,
                target_ongoing_requests=BUSY * plan.sessions,
                metrics_interval_s=COUNT_S,
                look_back_period_s=LOOK_BACK_S,
                upscale_delay_s=MORE_S,
                downscale_delay_s=plan.calm_s,
                policy=AutoscalingPolicy(policy_function=replicas_for),
            )
        scaling = {"autoscaling_config": config}

    class Ingress(People):
        """Takes the handles of the deployments that it needs, so that they are deployed with it."""

        def __init__(self, *handles: Any) -> None:
            self.handles = handles

    people = serve.deployment(serve.ingress(build)(Ingress)).options(
        name=PEOPLE,
        # Ray lets a request wait that is one too many, without a word; it is refused if others wait already.
        max_ongoing_requests=READERS * TAKEN_OVER * plan.sessions,
        max_queued_requests=READERS + TAKEN_OVER * plan.sessions * plan.most,  # all may come back at once
        health_check_period_s=HEALTH_S,
        health_check_timeout_s=HANGS_S,
        max_surge_percent=_surge(plan.least, min(1 if plan.rolling else plan.least, beside[PEOPLE])),
        graceful_shutdown_timeout_s=plan.drain_s + CUT_S,
        graceful_shutdown_wait_loop_s=0.2,
        ray_actor_options=reserve,
        request_router_config=RequestRouterConfig(
            request_router_class=PinnedRouter, request_routing_stats_period_s=COUNT_S
        ),
        **scaling,
    )
    return people.bind(*needed)


def replicas_beside(plan: Plan, free: Mapping[str, float], runs: Mapping[str, int]) -> dict[str, float]:
    """How many new replicas have a core beside the old ones, by deployment; as `make_application`."""
    wanted = {FUSION: plan.networks, WORDS: plan.recognizers_run, PEOPLE: plan.least}
    return _beside(wanted, runs, free.get("CPU", 0.0) / plan.cpus if plan.cpus else math.inf)


def _beside(wanted: Mapping[str, int], runs: Mapping[str, int], room: float) -> dict[str, float]:
    """How many more replicas than wanted may run while a new version replaces another, by deployment.

    Args:
        wanted: replicas of the new version, by deployment.
        runs: those of the version before.
        room: processes that find a free core.
    """
    room -= sum(max(0, number - runs.get(name, 0)) for name, number in wanted.items())
    found: dict[str, float] = {}
    for name, number in wanted.items():
        found[name] = max(0, min(number, room))
        room -= found[name]
    return found


def _surge(replicas: int, beside: float) -> int:
    """Per cent of the replicas that may run more while they are replaced, for so many beside the old ones."""
    whole = max(0, math.floor(min(replicas, beside)))
    return max(min(1, whole), 100 * whole // replicas)
