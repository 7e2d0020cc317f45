"""Running `emi serve --cluster`: deploy the application of `web.replicas`, replace it, own it, end it."""

from __future__ import annotations

import logging
import math
import re
import secrets
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import ray
from ray import serve
from ray.serve.config import HTTPOptions

from emi_live.errors import ConfigurationError, StageError
from emi_live.health import Health
from emi_live.web.ray_inside import (
    ANSWER_S,
    deploy_parts,
    drop_notes,
    parts_of,
    read_notes,
    where_serve_listens,
)
from emi_live.web.replicas import (
    APP,
    BETWEEN_S,
    FUSION,
    PEOPLE,
    RUNS,
    Note,
    Plan,
    keep_note,
    kept_note,
    make_application,
    replicas_beside,
)
from emi_live.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Deployed", "Door", "check_room", "deploy", "machines", "machines_without", "running_at"]

LOOK_S: Final = 60.0  # for a process to start on each machine, and to look at its files
SLOW_S: Final = 35.0  # after which it is said what a start waits for; Ray knows why after 30 s
# What Ray says of a replica that no machine has room for.
NO_ROOM: Final = re.compile(
    r"Resources required for each replica: (\{.*?\}), total resources available: (\{.*?\})"
)


@dataclass(frozen=True, slots=True)
class Door:
    """Where the application is reached: the same on each machine of the cluster.

    Attributes:
        host: address that Ray's proxies listen on.
        port: theirs.
        certificate: of TLS, a PEM file; None: no TLS.
        key: its private key.
        token: that clients of the service which runs there give; None: none, or it is not known.
    """

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    token: str | None = field(default=None, repr=False)


def _what_runs(run: str) -> dict[str, list[str]]:
    """By machine, what the replicas of a deployment said of themselves, one line each."""
    said = (msgspec.json.decode(note, type=tuple[str, list[str]]) for note in read_notes(f"{RUNS}/{run}/"))
    return dict(sorted(said))


def machines() -> list[Mapping[str, float]]:
    """What each machine of the cluster has, by Ray's names of resources."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def machines_without(files: Sequence[Path]) -> list[str]:
    """The names of the cluster's machines on which one of these files is not there.

    Raises:
        StageError: a machine does not answer.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(_lacks)
    there = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    asked = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(files)
        for node in there
    ]
    try:
        return sorted(host for host, lacks in ray.get(asked, timeout=LOOK_S) if lacks)
    except Exception as error:  # whatever Ray raises
        raise StageError(f"a machine of the cluster does not answer: {_reason(str(error))}") from error


def _lacks(files: Sequence[Path]) -> tuple[str, bool]:
    return socket.gethostname(), not all(file.is_file() for file in files)


def check_room(plan: Plan, machines: Sequence[Mapping[str, float]]) -> None:
    """Raise StageError if a cluster of these machines can never run the plan: Ray would wait for ever.

    Args:
        plan: what is to run; each of its processes reserves `cpus` of one machine.
        machines: `CPU` and `GPU` of each that is there now, free or not.
    """
    whole = [math.floor(one.get("CPU", 0.0) / plan.cpus) if plan.cpus else math.inf for one in machines]
    if plan.cores > plan.cpus * sum(whole):
        raise StageError(
            f"{_asked(plan)} take {plan.cores:g} cores, one for each process, and the cluster has "
            f"{sum(whole):g}; ask for fewer, or add machines (`ray start --address …`)"
        )
    gpus = [one.get("GPU", 0.0) for one in machines]
    if plan.gpus > sum(min(cores, math.floor(own)) for cores, own in zip(whole, gpus, strict=True)):
        raise StageError(
            f"--networks {plan.networks} with fusion.device=cuda takes a GPU for each and a core of the same "
            f"machine; Ray has {sum(gpus):g} GPUs; ask for fewer, add machines, or leave fusion.device out"
        )


def _asked(plan: Plan) -> str:
    said = [f"--replicas {plan.least}"]
    said += [f"--networks {plan.networks}"] if plan.networks else []
    said += [f"--recognizers {plan.recognizers}"] if plan.recognizers_run else []
    return " ".join(said)


def _missing(plan: Plan, free: Mapping[str, float], held: Mapping[str, float]) -> str:
    """What others use that the plan waits for; nothing if it can start. Resources by Ray's names.

    Args:
        plan: what is to run.
        free: what nobody uses.
        held: what the version before gives back.
    """
    waits = []
    for name, what, needed in (("CPU", "cores", plan.cores), ("GPU", "GPUs", plan.gpus)):
        found, back = free.get(name, 0.0), held.get(name, 0.0)
        if needed > found + back:
            also = f", given back by the version before {back:g}" if back else ""
            waits.append(f"{what}: needed {needed:g}, free {found:g}{also}")
    return "; ".join(waits)


@contextmanager
def _told_if_slow(tell: Callable[[str], None]) -> Iterator[None]:
    """A span that says what it waits for, when it takes long; Ray has no limit of time."""

    def look(stop: threading.Event) -> None:
        said = ""
        while not stop.wait(SLOW_S):
            with suppress(Exception):  # whatever Ray raises while its controller starts
                now = _waits_for(serve.status().applications[APP].deployments)
                if now and now != said:
                    tell(f"still waiting for {now}")
                    said = now

    worker = Worker("serve-start", look, Health())
    worker.start()
    try:
        yield
    finally:
        worker.request_stop()


def _waits_for(deployments: Mapping[str, Any]) -> str:
    """The parts that do not run yet, each with the reason; nothing if all do."""
    waits = []
    for name, one in sorted(deployments.items()):
        if one.status != "HEALTHY":
            said = ", ".join(f"{n} {state.lower()}" for state, n in one.replica_states.items() if n)
            if room := NO_ROOM.search(one.message):
                free = "nothing is" if room[2] == "{}" else f"{room[2]} are"
                said += f"; no machine has room for one more: it takes {room[1]}, and {free} free"
            waits.append(f"{name} ({said or 'none yet'})")
    return " and ".join(waits)


class Deployed:
    """The application on a cluster, from `deploy` until `close`."""

    def __init__(self, owner: str, *, here: bool = False) -> None:
        """`owner` is as in the note; `here`: Ray ends with this command."""
        self._owner = owner
        self._here = here
        self._silent = False  # the cluster has not answered for long, though it may go on
        self.replaced = False  # another program has deployed it again: it is not ours any more

    def what_runs(self) -> dict[str, list[str]]:
        """By machine, the models of its replicas, one line each."""
        with suppress(Exception):  # the cluster is gone: `wait` says it
            return _what_runs(self._owner)
        return {}

    def wait(self, within_s: float = ANSWER_S) -> None:
        """Return when another program has deployed the application again.

        Args:
            within_s: for so long the cluster may not answer.

        Raises:
            StageError: the application has ended, or the cluster does not answer.
        """
        waiting, answered_s = threading.Event(), time.monotonic()
        while not self.replaced:
            try:
                note, running = self._look()
            except Exception as error:  # whatever Ray raises
                if time.monotonic() - answered_s > within_s:
                    self._silent = True
                    raise StageError(
                        f"the cluster does not answer any more: {_reason(str(error))}"
                    ) from error
            else:
                answered_s = time.monotonic()
                if not self.replaced and (note is None or not running):
                    raise StageError("the application was ended by another program")
            if not self.replaced:
                waiting.wait(BETWEEN_S)

    def _look(self) -> tuple[Note | None, bool]:
        note, running = kept_note(), APP in serve.status().applications
        self.replaced = note is not None and note.owner != self._owner
        return note, running

    def close(self) -> bool:
        """End the application and free its port, if it is still ours; whether it has ended.

        Where the cluster does not answer, the application may go on; one that runs `here` ends with Ray.
        """
        if self._silent:
            return self._here
        try:
            note, running = self._look()
        except Exception:  # noqa: BLE001  # the cluster is gone
            return self._here
        if self.replaced:
            return False
        if note is not None and running:
            with suppress(Exception):  # the cluster is gone meanwhile
                _end_application(self._owner)
        return True


def _end_application(owner: str) -> None:
    """End it, and Ray Serve if nothing else runs there; forget its secret and its token.

    The note itself stays: a command before may not have seen yet that it was replaced.
    """
    keep_note(Note(owner, secrets.token_bytes(32)))
    drop_notes(f"{RUNS}/")
    if set(serve.status().applications) <= {APP}:
        serve.shutdown()
    else:
        serve.delete(APP)


def running_at() -> Door | None:
    """Where an application of ours runs on the cluster; None: Ray Serve does not run there.

    Raises:
        ConfigurationError: Ray Serve runs there for others.
    """
    options = where_serve_listens()
    if options is None:
        return None
    note = kept_note()
    if APP not in serve.status().applications or note is None:
        raise ConfigurationError(
            f"Ray Serve runs other applications on this cluster, at {options.host}:{options.port}; "
            "end it there (`serve shutdown`), or use another cluster"
        )
    certificate, key = (Path(one) if one else None for one in (options.ssl_certfile, options.ssl_keyfile))
    return Door(str(options.host), int(options.port), certificate, key, note.token)


def deploy(
    plan: Plan, door: Door, *, here: bool = False, tell: Callable[[str], None] = lambda _: None
) -> Deployed:
    """Run the plan on the cluster that this process is connected to, and wait until it serves.

    An application that runs there is replaced, and its sessions move; its `Door` cannot be changed. If the
    new one does not start, or this is interrupted, the old one goes on, and belongs to who deployed it. If
    there was none, nothing is left.

    Args:
        plan: what runs.
        door: where.
        here: whether Ray ends with this command.
        tell: is told what the start waits for, if it takes long, and that a new version was taken back.

    Raises:
        StageError: it does not start; the message has Ray's reason.
    """
    from ray.serve.config import ProxyLocation

    options = HTTPOptions(
        host=door.host,
        port=door.port,
        ssl_certfile=None if door.certificate is None else str(door.certificate),
        ssl_keyfile=None if door.key is None else str(door.key),
    )
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    owner, old, parts = secrets.token_hex(8), None, []
    alone = where_serve_listens() is None
    try:
        serve.start(proxy_location=ProxyLocation.EveryNode, http_options=options)
        old = kept_note() if APP in serve.status().applications else None
        parts = [] if old is None else parts_of(APP)
        secret = secrets.token_bytes(32) if old is None else old.secret
        runs, held = {}, {}
        if old is not None:
            parts_run = serve.status().applications[APP].deployments
            runs = {name: sum(part.replica_states.values()) for name, part in parts_run.items()}
            held = {"CPU": old.cpus * sum(runs.values()), "GPU": old.gpus * runs.get(FUSION, 0)}
        free = ray.available_resources()
        gpus = 1.0 if plan.gpus else 0.0
        few = old is not None and replicas_beside(plan, free, runs)[PEOPLE] < plan.least
        new = Note(owner, secret, plan.rolling or few, plan.access.token, plan.cpus, gpus)
        if missing := _missing(plan, free, held):
            tell(f"waiting until other programs on the cluster need less ({missing})")
        keep_note(new if old is None else msgspec.structs.replace(new, owner=old.owner))
        drop_notes(f"{RUNS}/")
        app = make_application(replace(plan, secret=secret, run=owner), free, runs)
        with _told_if_slow(tell):
            serve.run(app, name=APP, route_prefix="/", blocking=False)
        keep_note(new)
    except BaseException as error:
        why = _why(error) if isinstance(error, Exception) else ""
        if alone and not here:
            with suppress(Exception):  # the cluster is gone
                _end_application(owner)
        goes_on = "" if old is None or not parts else _take_back(old, parts, owner)
        if not isinstance(error, Exception):  # Ctrl-C
            if goes_on:
                tell(f"interrupted; {goes_on}")
            raise
        raise StageError(f"emi serve does not start on Ray: {why}{goes_on and '; '}{goes_on}") from error
    return Deployed(owner, here=here)


def _take_back(note: Note, parts: list[bytes], owner: str) -> str:
    """Have the application run again as it did before `owner` began to replace it; returns what goes on.

    A target that fails must go too: Ray would start a replica of it in place of an old one that is killed.
    """
    try:
        deploy_parts(APP, parts)
        keep_note(note)
        drop_notes(f"{RUNS}/{owner}/")
    except Exception as error:  # noqa: BLE001  # whatever Ray raises: the cluster may be gone
        return f"the new version could not be taken back, and may still start: {_reason(str(error))}"
    return "the version before goes on"


def _why(error: Exception) -> str:
    """Why it does not start, as Ray's controller says it, else as the error does."""
    said = []
    with suppress(Exception):  # the controller is gone too
        status = serve.status().applications[APP]
        said = [status.message, *(one.message for one in status.deployments.values())]
    return _reason("\n".join(one for one in said if one) or str(error))


def _reason(text: str) -> str:
    """The line of a traceback that says what went wrong."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (errors or lines or ["no reason was given"])[-1]
