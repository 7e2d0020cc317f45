"""Clips in actors of Ray Data: what `Pool` is on one machine, on many.

Each actor loads its models once and does what a process of the pool does, by the same function. It writes a
clip's files before it answers. A killed actor loses the clip under way, and so does a killed driver, with
each actor's; the next run goes on from there. Jobs and answers are JSON in Arrow blocks, a clip each.
"""

from __future__ import annotations

import logging
import socket
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from emi_live.cluster.ray_start import Cluster, check_address, connected
from emi_live.errors import StageError
from emi_live.extract.places import is_url
from emi_live.extract.pool import (
    Failed,
    Job,
    Ready,
    Refused,
    Written,
    cannot_load,
    from_text,
    give_memory_back,
    to_text,
)
from emi_models.errors import EmiError

if TYPE_CHECKING:
    from emi_live.extract.pool import Message, Task

__all__ = ["Actor", "RayWorkers", "actor_count", "await_cores", "cores_each"]

CORES: Final = 2.0  # of an actor, as of a process of the pool
PARTS: Final = 10_000  # of a core: Ray counts no smaller ones
TRIES_AGAIN: Final = 1  # for a clip whose actor died: then it is the clip that kills
DIED: Final = "the actor died on it, twice"
SAID_AFTER_S: Final = 30.0  # without cores for a worker

logger = logging.getLogger(__name__)


def actor_count(cluster: Cluster, asked: int | None) -> int:
    """How many actors: as asked, else one for every two cores of the cluster."""
    return asked or max(1, int(cluster.cpus // CORES))


def cores_each(nodes: Sequence[float], count: int) -> float:
    """The most cores that each of so many actors can have, at most two, when each lies on one machine.

    Args:
        nodes: the cores of each machine.
        count: how many actors; more than there are cores share them.
    """
    parts = {int(PARTS * cores / each) / PARTS for cores in set(nodes) for each in range(1, count + 1)}
    for each in sorted({CORES, *parts}, reverse=True):
        if 0 < each <= CORES and sum(int(cores / each + 1 / PARTS) for cores in nodes) >= count:
            return each
    return 0.0


class RayWorkers:
    """`Workers` of `extract` and `score_all` on Ray Data."""

    def __init__(self, task: Task, address: str, count: int | None = None) -> None:
        """Prepare; nothing is started before `with`.

        Args:
            task: what is done to each clip; its folder must be the same one on every machine.
            address: `auto` or HOST:PORT, as of `connected`.
            count: how many actors; None: one for every two cores of the cluster.

        Raises:
            MissingPackageError: Ray is not installed.
            ConfigurationError: the address is none.
        """
        check_address(address)
        self._task = task
        self._address = address
        self._asked = count
        self._opened = ExitStack()
        self._fingerprint = ""

    def __enter__(self) -> Self:
        """Connect."""
        self._cluster = self._opened.enter_context(connected(self._address))
        self._count = actor_count(self._cluster, self._asked)
        self._cores = cores_each(self._cluster.nodes, self._count)
        return self

    def __exit__(self, *_: object) -> None:
        """End all actors, and a Ray that was started for them."""
        self._opened.close()

    def ready(self) -> Ready:
        """Load the encoders once, on some machine of the cluster, and return what they are.

        Raises:
            ModelUnavailableError: an encoder is not there.
            ConfigurationError: the extraction cannot continue.
            StageError: the worker died.
        """
        import ray

        begin: Any = ray.remote(num_cpus=self._cores, max_retries=0)(_begin)
        load: Any = ray.remote(num_cpus=self._cores, max_retries=0)(_load)
        try:
            await_cores(ray, begin.remote(), self._cores)
            message = from_text(ray.get(load.remote(self._task)))
        except ray.exceptions.RayError as error:
            raise StageError(f"a worker of Ray died while it loaded the encoders: {_line(error)}") from error
        if not isinstance(message, Ready) or message.unavailable:
            raise cannot_load(message, "")
        self._fingerprint = message.settings
        return message

    def run(self, jobs: Iterable[Job]) -> Iterator[Written | Refused]:
        """Do the jobs; yield the result of each as soon as it is known.

        If an actor dies, it is started again and its clip is tried again; if it dies then, the clip is
        refused. A clip on which an actor raises an unexpected error is refused at once, and the actor loads
        its models again.

        Raises:
            StageError: the actors cannot be started, or Ray failed.
        """
        import ray
        import ray.data

        waiting = {job.id: job for job in jobs}
        if not waiting:
            return
        _keep_quiet(ray)
        count = min(self._count, len(waiting))
        clips = ray.data.from_items(
            [{"job": to_text(_anywhere(job))} for job in waiting.values()], override_num_blocks=len(waiting)
        )
        with warnings.catch_warnings():
            # Ray 2.60 announces another way for `max_task_retries`, which it does not have yet.
            warnings.simplefilter("ignore", DeprecationWarning)
            clips = clips.map_batches(
                Actor,
                fn_constructor_args=(self._task, self._fingerprint),
                batch_size=1,
                # No clip waits at an actor: one that dies would take it along.
                compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=1),
                num_cpus=self._cores,
                ray_remote_args_fn=_tries,
            )
        try:
            for block in clips.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
                for text in block["done"].to_pylist():
                    done = _result(from_text(text))
                    if waiting.pop(done.id if isinstance(done, Refused) else done.entry.id, None) is not None:
                        yield done
        except ray.exceptions.RayError as error:
            raise StageError(f"Ray failed: {_line(error)}; the same command goes on from here") from error
        for job in waiting.values():
            yield Refused(id=job.id, reason=DIED)


def await_cores(ray: Any, begun: Any, cores: float, said_after_s: float = SAID_AFTER_S) -> None:
    """Wait until a first task runs on a cluster; say what is waited for if that takes long.

    Args:
        ray: the module.
        begun: what the task returns.
        cores: what it needs.
        said_after_s: without an answer.
    """
    if not ray.wait([begun], timeout=said_after_s)[0]:
        free, there = (each().get("CPU", 0.0) for each in (ray.available_resources, ray.cluster_resources))
        logger.warning(
            "waiting for a machine of the cluster that has %g free cores for a worker: %g of all %g are free",
            *(cores, free, there),
        )
    ray.get(begun)


def _anywhere(job: Job) -> Job:
    """With a path that does not depend on the folder that a process works in."""
    return job if is_url(job.path) else replace(job, path=str(Path(job.path).absolute()))


def _tries() -> dict[str, Any]:
    """How often a clip is tried again whose actor died; Ray Data starts actors again as often as it takes."""
    return {"max_task_retries": TRIES_AGAIN}


class Actor:
    """Loads the models once, then does one clip at a time."""

    def __init__(self, task: Task, fingerprint: str) -> None:
        """Load the models of a task, which must be those of this fingerprint."""
        self._task = task
        self._fingerprint = fingerprint
        self._open()

    def _open(self) -> None:
        self._opened = ExitStack()
        self._failure: Failed | None = None
        try:
            ready, self._do = self._task.open(self._opened)
            if ready.unavailable or ready.settings != self._fingerprint:
                raise cannot_load(ready, "")
        except EmiError as error:
            self._failure = _here(Failed(reason=str(error)))
        except Exception as error:
            logger.exception("the models cannot be loaded")
            self._failure = _here(Failed(reason=f"{type(error).__name__}: {error}"))

    def __call__(self, block: dict[str, Any]) -> dict[str, list[str]]:
        """The results of jobs; both are the columns of a block."""
        jobs = [from_text(str(text)) for text in block["job"]]
        answers = [to_text(self._answer(job)) for job in jobs if isinstance(job, Job)]
        give_memory_back()
        return {"done": answers}

    def _answer(self, job: Job) -> Message:
        if self._failure is not None:
            return self._failure
        try:
            done = self._do(job)
        except Exception as error:
            logger.exception("%s", job.path)
            # What it has loaded may be broken: a process of the pool would have died of this.
            with suppress(Exception):
                self._opened.close()
            self._open()
            where = f"{type(error).__name__} on {socket.gethostname()}"
            return Refused(id=job.id, reason=f"{where}: {' '.join(str(error).split())}")
        return _here(done) if isinstance(done, Failed) else done


def _here(failed: Failed) -> Failed:
    return Failed(reason=f"on {socket.gethostname()}: {failed.reason}")


def _begin() -> None:
    """Run where a worker could."""


def _load(task: Task) -> str:
    """What a worker has loaded, as text; it is let go again."""
    with ExitStack() as opened:
        try:
            return to_text(task.open(opened)[0])
        except EmiError as error:
            return to_text(_here(Failed(reason=str(error))))


def _result(message: Message) -> Written | Refused:
    if isinstance(message, Written | Refused):
        return message
    raise cannot_load(message, "")


def _keep_quiet(ray: Any) -> None:
    """Our own bar in place of Ray Data's, and a clip that was lost is no reason to stop."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1
    for name in ("ray.data", "ray"):  # Ray Data set them up when it was imported
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
