"""Clips in actors of Ray Data: what `Pool` is on one machine, on many.

Each actor loads its models once and does what a process of the pool does, by the same function. It writes a
clip's files before it answers. A killed actor loses the clip under way, and so does a killed driver, with
each actor's; the next run goes on from there. Jobs and answers are JSON in Arrow blocks, a clip each.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
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

__all__ = ["RayWorkers", "actor_count"]

CORES: Final = 2.0  # of an actor, as of a process of the pool
TRIES_AGAIN: Final = 1  # for a clip whose actor died: then it is the clip that kills
DIED: Final = "the actor died on it, twice"


def actor_count(cluster: Cluster, asked: int | None) -> int:
    """How many actors: as asked, else one for every two cores of the cluster."""
    return asked or max(1, int(cluster.cpus // CORES))


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

        load: Any = ray.remote(num_cpus=self._cores, max_retries=0)(_load)
        try:
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
        refused.

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
                _Actor,
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

    @property
    def _cores(self) -> float:
        """What each actor reserves, so that as many as are asked for fit."""
        return min(CORES, self._cluster.cpus / self._count)


def _anywhere(job: Job) -> Job:
    """With a path that does not depend on the folder that a process works in."""
    return job if is_url(job.path) else replace(job, path=str(Path(job.path).absolute()))


def _tries() -> dict[str, Any]:
    """How often a clip is tried again whose actor died; Ray Data starts actors again as often as it takes."""
    return {"max_task_retries": TRIES_AGAIN}


class _Actor:
    """Loads the models once, then does one clip at a time."""

    def __init__(self, task: Task, fingerprint: str) -> None:
        self._opened = ExitStack()
        self._failure: Message | None = None
        try:
            ready, self._do = task.open(self._opened)
        except EmiError as error:
            self._failure = Failed(reason=str(error))
        else:
            if ready.unavailable or ready.settings != fingerprint:
                self._failure = ready

    def __call__(self, block: dict[str, Any]) -> dict[str, list[str]]:
        answers = []
        for text in block["job"]:
            job = from_text(str(text))
            if self._failure is not None:
                answers.append(to_text(self._failure))
            elif isinstance(job, Job):
                answers.append(to_text(self._do(job)))
        give_memory_back()
        return {"done": answers}


def _load(task: Task) -> str:
    """What a worker has loaded, as text; it is let go again."""
    with ExitStack() as opened:
        try:
            return to_text(task.open(opened)[0])
        except EmiError as error:
            return to_text(Failed(reason=str(error)))


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
