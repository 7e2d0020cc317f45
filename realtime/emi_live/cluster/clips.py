"""Clips in actors of Ray Data: what `Pool` is on one machine, on many.

Each actor loads its models once and does what a process of the pool does, by the same function. It writes a
clip's files before it answers. A killed actor loses the clips under way, one unless it does several at once,
and so does a killed driver, with each actor's; the next run goes on from there. Jobs and answers are JSON in
Arrow blocks, a clip each.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import socket
import threading
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from emi_live.cluster.ray_start import Cluster, check_address, connected
from emi_live.errors import ConfigurationError, StageError
from emi_live.extract.places import is_url
from emi_live.extract.pool import (
    PER_GPU,
    Failed,
    Job,
    Ready,
    Refused,
    Written,
    cannot_load,
    from_text,
    to_text,
)
from emi_models.errors import EmiError
from emi_models.processes import give_memory_back

if TYPE_CHECKING:
    from emi_live.extract.pool import Message, Task

__all__ = ["Actor", "RayWorkers", "Share", "await_room", "share"]

CORES: Final = 2.0  # of an actor, as of a process of the pool
PARTS: Final = 10_000  # of a core: Ray counts no smaller ones
TRIES_AGAIN: Final = 1  # for a clip whose actor died; then once more, with other actors
DIED: Final = "the actor died on it, each time"
SAID_AFTER_S: Final = 30.0  # without cores for a worker
ELSEWHERE: Final = "is not there, or another file, on "  # before the name of a machine
VERSION: Final = version("emi-live")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Share:
    """How many actors there are, and what each of them has of a machine."""

    count: int
    cores: float
    gpus: float = 0.0


def share(cluster: Cluster, device: str, asked: int | None) -> Share:
    """What the actors have, when each lies on one machine, and on one GPU if they need one.

    Args:
        cluster: what there is.
        device: the setting `models.device`; with `auto`, GPUs are used if there are some.
        asked: how many actors; None: one for every two cores, but at most four for a GPU.

    Raises:
        ConfigurationError: a GPU is needed and there is none, or one is chosen by its number.
    """
    if ":" in device:
        raise ConfigurationError(f"--device {device}: Ray chooses which GPU an actor has; give --device cuda")
    machines = list(zip(cluster.nodes, cluster.nodes_gpus, strict=True))
    on_gpu = [(cores, gpus) for cores, gpus in machines if gpus >= 1]
    if device == "cpu" or (device == "auto" and not on_gpu):
        count = asked or max(1, int(cluster.cpus // CORES))
        return Share(count, _each(cluster.nodes, count, CORES))
    if not on_gpu:
        raise ConfigurationError(
            f"--device cuda: Ray knows of no GPU at {cluster.address}: start its machines with --num-gpus, "
            "or give --device cpu"
        )
    single = [1.0 for _, gpus in on_gpu for _ in range(int(gpus))]
    cores = [cores for cores, _ in on_gpu]
    count = asked or min(max(1, int(sum(cores) // CORES)), PER_GPU * len(single))
    gpus_each = _each(single, count, 1.0)
    most = [int(gpus) * int(1 / gpus_each + 1 / PARTS) for _, gpus in on_gpu] if gpus_each else None
    return Share(count, _each(cores, count, CORES, most), gpus_each)


def _each(parts: Sequence[float], count: int, most: float, limits: Sequence[int] | None = None) -> float:
    """The largest size, at most `most`, of which `count` fit into parts when each lies within one of them.

    Args:
        parts: their sizes, such as the cores of each machine.
        count: how many must fit; more than there are cores share them.
        most: of one.
        limits: how many each part may have at most; None: as many as fit.
    """
    sizes = {int(PARTS * part / each) / PARTS for part in set(parts) for each in range(1, count + 1)}
    room = limits or [count] * len(parts)
    for size in sorted({most, *sizes}, reverse=True):
        if 0 < size <= most:
            fit = (min(int(part / size + 1 / PARTS), limit) for part, limit in zip(parts, room, strict=True))
            if sum(fit) >= count:
                return size
    return 0.0


class RayWorkers:
    """`Workers` of `extract` and `score_all` on Ray Data."""

    def __init__(self, task: Task, address: str, count: int | None = None) -> None:
        """Prepare; nothing is started before `with`.

        Args:
            task: what is done to each clip; its folder must be the same one on every machine.
            address: `auto` or HOST:PORT, as of `connected`.
            count: how many actors; None: as of `share`.

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
        self._at_once = 1

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            ConfigurationError: as of `share`.
        """
        cluster = self._opened.enter_context(connected(self._address))
        self._here = cluster.here
        try:
            self._share = share(cluster, self._task.device, self._asked)
        except ConfigurationError:
            self._opened.close()
            raise
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

        needs = ray.remote(num_cpus=self._share.cores, num_gpus=self._share.gpus, max_retries=0)
        begin: Any = needs(_begin)
        load: Any = needs(_load)
        try:
            await_room(ray, begin.remote(), self._share)
            host, text = ray.get(load.remote(self._task, self._share.gpus))
            message = from_text(text)
        except ray.exceptions.RayError as error:
            raise _failure(error, "a worker of Ray died while it loaded the encoders") from error
        if not isinstance(message, Ready) or message.unavailable:
            why = cannot_load(message, "")
            raise why if self._here else type(why)(f"on {host}: {why}")
        self._fingerprint, self._at_once = message.settings, message.at_once
        return message

    def run(self, jobs: Iterable[Job]) -> Iterator[Written | Refused]:
        """Do the jobs; yield the result of each as soon as it is known.

        If an actor dies, it is started again and its clips are tried again, in the end each by itself: a
        machine that is lost is not the fault of its clips. A clip whose actors die each time is refused. One
        on which an actor raises an unexpected error is refused at once, and the actor loads its models again.

        Raises:
            StageError: the actors cannot be started, or Ray failed.
            ConfigurationError: an actor cannot work, or its machine does not have the clips.
        """
        results = self._results({job.id: job for job in jobs})
        # Ray Data works on while nobody asks for results; if Ray is left then, it may end this process.
        self._opened.callback(results.close)
        return results

    def _results(self, waiting: dict[str, Job]) -> Generator[Written | Refused, None, None]:
        yield from self._done(waiting, self._at_once)
        yield from self._done(waiting, 1)
        for job in waiting.values():
            yield Refused(id=job.id, reason=DIED)

    def _done(self, waiting: dict[str, Job], at_once: int) -> Iterator[Written | Refused]:
        """The results of the jobs that wait, so many at once in each actor; those whose actor dies stay."""
        import ray
        import ray.data

        if not waiting:
            return
        _keep_quiet(ray)
        count = min(self._share.count, len(waiting))
        clips = ray.data.from_items(
            [{"job": to_text(_anywhere(job))} for job in waiting.values()], override_num_blocks=len(waiting)
        )
        with warnings.catch_warnings():
            # Ray 2.60 announces another way for `max_task_retries`, which it does not have yet.
            warnings.simplefilter("ignore", DeprecationWarning)
            clips = clips.map_batches(
                Actor,
                fn_constructor_args=(self._task, self._fingerprint, VERSION, self._share.gpus),
                batch_size=1,
                # No clip waits at an actor: one that dies would take it along.
                compute=ray.data.ActorPoolStrategy(
                    size=count,
                    max_tasks_in_flight_per_actor=at_once,
                    max_concurrent_calls_per_actor=at_once,
                    enable_true_multi_threading=at_once > 1,
                ),
                num_cpus=self._share.cores,
                num_gpus=self._share.gpus,
                ray_remote_args_fn=_tries,
            )
        try:
            for block in clips.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
                for text in block["done"].to_pylist():
                    done = _result(from_text(text))
                    job = waiting.pop(done.id if isinstance(done, Refused) else done.entry.id, None)
                    if job is not None:
                        _check_there(job, done)
                        yield done
        except ray.exceptions.RayError as error:
            raise _failure(error, "Ray failed; the same command goes on from here") from error


def await_room(ray: Any, begun: Any, needs: Share, said_after_s: float = SAID_AFTER_S) -> None:
    """Wait until a first task runs on a cluster; say what is waited for if that takes long.

    Args:
        ray: the module.
        begun: what the task returns.
        needs: what it needs.
        said_after_s: without an answer.
    """
    if not ray.wait([begun], timeout=said_after_s)[0]:
        free, there = ray.available_resources(), ray.cluster_resources()
        wanted = {"CPU": ("cores", needs.cores), **({"GPU": ("GPUs", needs.gpus)} if needs.gpus else {})}
        logger.warning(
            "waiting for a machine of the cluster that has for a worker %s",
            " and ".join(
                f"{each:g} free {name} ({free.get(kind, 0.0):g} of all {there.get(kind, 0.0):g} are free)"
                for kind, (name, each) in wanted.items()
            ),
        )
    ray.get(begun)


def _anywhere(job: Job) -> Job:
    """With a path that does not depend on the folder that a process works in."""
    return job if is_url(job.path) else replace(job, path=str(Path(job.path).absolute()))


def _is_here(job: Job) -> bool:
    """Whether a clip is what was listed, as far as this machine can see."""
    try:
        return is_url(job.path) or Path(job.path).stat().st_size == job.size
    except OSError:
        return False


def _check_there(job: Job, done: Written | Refused) -> None:
    """Raise ConfigurationError if an actor lacks a clip that is here: it would lack others too."""
    if isinstance(done, Refused) and done.reason.startswith(ELSEWHERE) and _is_here(job):
        raise ConfigurationError(
            f"{job.path} {done.reason}; give clips that all machines see at the same path, or a URL"
        )


def _tries() -> dict[str, Any]:
    """How often a clip is tried again whose actor died; Ray Data starts actors again as often as it takes."""
    return {"max_task_retries": TRIES_AGAIN}


class Actor:
    """Loads the models once, then does clips, in as many threads as the task takes."""

    def __init__(
        self, task: Task, fingerprint: str, wanted: str = VERSION, gpus: float | None = None
    ) -> None:
        """Load the models of a task, which must be those of this fingerprint.

        Args:
            task: what is done to each clip.
            fingerprint: of the settings and models.
            wanted: emi-live's version.
            gpus: that Ray has given to this process; None: Ray was not asked.
        """
        if gpus is not None:
            _hide_gpus(gpus)
        self._task = task
        self._wanted = wanted
        self._fingerprint = fingerprint
        self._changed = threading.Condition()
        self._busy = 0  # clips under way
        self._broken = False  # whether the models are to be loaded again
        self._open()

    def _open(self) -> None:
        self._opened = ExitStack()
        self._failure: Failed | None = None
        try:
            if self._wanted != VERSION:
                raise ConfigurationError(f"emi-live {VERSION} is installed, not {self._wanted}; install that")
            ready, self._do = self._task.open(self._opened)
            if ready.unavailable or ready.settings != self._fingerprint:
                raise cannot_load(ready, "")
            gc.freeze()  # as in a process of the pool
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
        with self._models() as failure:
            if failure is not None:
                return failure
            if not _is_here(job):
                return Refused(id=job.id, reason=f"{ELSEWHERE}{socket.gethostname()}")
            try:
                done = self._do(job)
            except Exception as error:
                logger.exception("%s", job.path)
                # What it has loaded may be broken: a process of the pool would have died of this.
                self._broken = True
                where = f"{type(error).__name__} on {socket.gethostname()}"
                return Refused(id=job.id, reason=f"{where}: {' '.join(str(error).split())}")
        return _here(done) if isinstance(done, Failed) else done

    @contextmanager
    def _models(self) -> Iterator[Failed | None]:
        """The models, or why there are none; broken ones are loaded again once nobody has them."""
        with self._changed:
            while self._broken and self._busy:
                self._changed.wait()
            if self._broken:
                with suppress(Exception):
                    self._opened.close()
                gc.unfreeze()
                self._open()
                self._broken = False
            self._busy += 1
        try:
            yield self._failure
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()


def _here(failed: Failed) -> Failed:
    return Failed(reason=f"on {socket.gethostname()}: {failed.reason}")


def _begin() -> None:
    """Run where a worker could."""


def _hide_gpus(gpus: float) -> None:
    """Hide this machine's GPUs from PyTorch if Ray has given none to this process: Ray does not do so."""
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _load(task: Task, gpus: float) -> tuple[str, str]:
    """The name of this machine, and what a worker has loaded, as text; it is let go again."""
    _hide_gpus(gpus)
    with ExitStack() as opened:
        try:
            loaded: Message = task.open(opened)[0]
        except EmiError as error:
            loaded = Failed(reason=str(error))
        return socket.gethostname(), to_text(loaded)


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


def _failure(error: BaseException, what: str) -> EmiError:
    """What an error of Ray means; its trace names the address of the machine."""
    if "No module named 'emi_" in str(error):
        at = re.search(r"\bip=([^\s,)]+)", str(error))
        return ConfigurationError(
            f"emi-live is not installed on {at[1] if at else 'a machine'}, or not for the Python of its Ray: "
            "install the same version"
        )
    return StageError(f"{what}: {_line(error)}")


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
