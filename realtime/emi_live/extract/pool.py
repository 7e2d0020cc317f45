"""The worker processes of `emi extract` and `emi score`: each loads its models once, then does clips.

A worker that dies costs one clip and is replaced. The main process and its workers exchange JSON over a
pipe, so nothing is unpickled.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeAlias

from emi_live.errors import ConfigurationError, StageError
from emi_live.extract.folder import Entry
from emi_live.extract.places import sweep_copies
from emi_models import Modality
from emi_models.errors import EmiError, ModelUnavailableError
from emi_models.processes import give_memory_back

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

__all__ = [
    "ON_GPU",
    "PER_GPU",
    "Do",
    "Failed",
    "Job",
    "Link",
    "Message",
    "Pool",
    "Ready",
    "Refused",
    "Task",
    "Written",
    "cannot_load",
    "from_text",
    "serve",
    "to_text",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A worker has loaded its encoders; with anything in `unavailable`, it has ended instead."""

    encoders: dict[Modality, str]
    recognizer: str
    settings: str  # the fingerprint of the settings with these
    announcements: list[str] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    at_once: int = 1  # how many clips it does at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A worker cannot work, and has ended."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A clip to extract; the fields are those of `Video`."""

    id: str
    path: str
    name: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A clip's features are in place."""

    entry: Entry
    damaged: int  # packets of the file that could not be decoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A clip's file is of no use."""

    id: str
    reason: str


logger = logging.getLogger(__name__)

Message: TypeAlias = Ready | Failed | Job | Written | Refused
Do: TypeAlias = Callable[[Job], Written | Refused | Failed]
KINDS: Final[dict[str, type[Message]]] = {
    kind.__name__: kind for kind in (Ready, Failed, Job, Written, Refused)
}


class Task(Protocol):
    """What a worker is for: a process of the pool, or an actor of Ray."""

    @property
    def debug(self) -> bool:
        """Whether its output is shown."""

    @property
    def device(self) -> str:
        """What its encoders run on, as the setting `models.device`."""

    def open(self, opened: ExitStack) -> tuple[Ready, Do]:
        """Load what it needs, which `opened` closes; return what was loaded, and what does one clip.

        As many threads as `Ready.at_once` says may do clips at the same time.

        Raises:
            EmiError: it cannot be loaded, or no clip can be done.
        """


def to_text(message: Message) -> str:
    """A message as JSON."""
    return json.dumps([type(message).__name__, asdict(message)])


def from_text(text: str | bytes) -> Message:
    """The message that `to_text` wrote."""
    kind, fields = json.loads(text)
    if "entry" in fields:
        fields["entry"] = Entry(**fields["entry"])
    return KINDS[kind](**fields)


class Link:
    """One end of a pipe."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._sending = threading.Lock()

    def send(self, message: Message) -> bool:
        """Send one message, in any thread; False if nobody is at the other end."""
        try:
            with self._sending:
                self.connection.send_bytes(to_text(message).encode())
        except OSError:
            return False
        return True

    def receive(self) -> Message | None:
        """The next message, waited for; None when the other end is gone."""
        try:
            return from_text(self.connection.recv_bytes())
        except (EOFError, OSError):
            return None


END_S: Final = 0.5  # for a process to end after SIGTERM; past that it is killed
HANG_UP_S: Final = 5.0  # for one that closed its pipe to end: its libraries take their time
PER_GPU: Final = 4  # workers, since each has its own copy of the models there
ON_GPU: Final = 4  # clips at once; neither was measured
MOST_LOST: Final = 3  # processes in a row that die without finishing a clip


@dataclass(slots=True, eq=False)
class _Child:
    process: BaseProcess
    link: Link
    ready: bool = False
    jobs: dict[str, Job] = field(default_factory=dict)  # that it does at present, by id
    alone: bool = False  # whether it gets no other: its clip may have killed a process


class Pool:
    """Up to `count` processes that run `body(connection, *args)`.

    The body sends `Ready` or `Failed`, then answers each `Job` with `Written` or `Refused`; it gets as many
    at once as `Ready.at_once` says. Only the main process handles an interrupt: the others do not see it,
    and `__exit__` ends them within about a second.
    """

    def __init__(self, count: int, body: Callable[..., None], *args: object) -> None:
        """Prepare; nothing is started before `with`. `body` must be importable by name."""
        self._count = count
        self._body = body
        self._args = args
        self._context = get_context("spawn")
        self._children: list[_Child] = []
        self._fingerprint = ""  # of what the first process has loaded; the others must have the same
        self._at_once = 1
        self._suspects: deque[Job] = deque()  # clips that were done together when a process died
        self._blamed = True  # whether one of them has killed a process by itself
        self._lost = 0

    def __enter__(self) -> Self:
        """Start the first process; the others start once there is work for them."""
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        """End all processes, at once."""
        for child in self._children:
            child.process.terminate()
        for child in self._children:
            child.process.join(END_S)
            if child.process.is_alive():
                child.process.kill()
                child.process.join()
            child.link.connection.close()
        self._children.clear()
        sweep_copies()  # of those that were ended within a clip

    def ready(self) -> Ready:
        """Wait until the first process has loaded its encoders, and return what it loaded.

        Raises:
            ModelUnavailableError: an encoder is not there.
            ConfigurationError: it found that the extraction cannot continue.
            StageError: it died.
        """
        child = self._children[0]
        message = child.link.receive()
        if not isinstance(message, Ready) or message.unavailable:
            raise cannot_load(message, "" if message is not None else _ending(child))
        child.ready = True
        self._fingerprint, self._at_once = message.settings, message.at_once
        return message

    def run(self, jobs: Iterable[Job]) -> Iterator[Written | Refused]:
        """Do the jobs; yield the result of each as soon as it is known.

        If a process dies, its clip is refused and the process is replaced. If it did several, each of them is
        done once more, by itself.

        Raises:
            StageError: three processes in a row died, or one died while it loaded its encoders.
        """
        left = deque(jobs)
        while left or self._suspects or any(child.jobs for child in self._children):
            waiting = len(left) + len(self._suspects)
            idle = sum(not child.jobs for child in self._children)
            for _ in range(min(waiting - idle, self._count - len(self._children))):
                self._start()
            self._hand_out(left)
            connections = {child.link.connection: child for child in self._children}
            for connection in wait(list(connections)):
                if isinstance(connection, Connection) and (done := self._hear(connections[connection])):
                    yield done

    def _hand_out(self, left: deque[Job]) -> None:
        """Give each process as many jobs as it can do, the same number to all as far as they go."""
        for count in range(self._at_once):
            for child in self._children:
                if not child.ready or child.alone or len(child.jobs) != count:
                    continue
                if self._suspects and not child.jobs:
                    child.alone = True
                    job = self._suspects.popleft()
                elif left and not self._suspects:  # a process that has jobs may be needed for a suspect
                    job = left.popleft()
                else:
                    continue
                child.jobs[job.id] = job
                child.link.send(job)

    def _hear(self, child: _Child) -> Written | Refused | None:
        message = child.link.receive()
        if isinstance(message, Written | Refused):
            del child.jobs[message.id if isinstance(message, Refused) else message.entry.id]
            alone, child.alone, self._lost = child.alone, False, 0
            if alone and not (self._blamed or self._suspects or any(one.alone for one in self._children)):
                self._at_once, self._blamed = max(1, self._at_once // 2), True
                logger.warning("no clip kills by itself; from now on %d at once", self._at_once)
            return message
        if isinstance(message, Ready) and message.settings == self._fingerprint:
            child.ready = True
            return None
        if message is not None or not child.ready:
            raise cannot_load(message, "" if message is not None else _ending(child))
        self._children.remove(child)
        ending = _ending(child)
        child.process.kill()  # it may have closed its pipe and live on
        child.link.connection.close()
        if len(child.jobs) > 1:
            count = len(child.jobs)
            logger.warning(
                "a worker process %s with %d clips at once: each is done again alone", ending, count
            )
            self._suspects += child.jobs.values()
            self._blamed = False
            return None
        self._blamed = True
        self._lost += 1
        if self._lost >= MOST_LOST:
            raise StageError(f"{self._lost} worker processes in a row died, the last one {ending}")
        return next((Refused(id=job, reason=f"the worker process {ending}") for job in child.jobs), None)

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=self._body, args=(theirs, *self._args), daemon=True)
        # A blocked signal stays blocked in the child: Ctrl-C reaches all of a terminal's processes.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._children.append(_Child(process, Link(ours)))


def cannot_load(message: Message | None, ending: str) -> EmiError:
    """Why a worker cannot work, from what it sent in place of `Ready` or of a result.

    Args:
        message: what it sent; None: it died.
        ending: how it died, after "a worker".
    """
    if isinstance(message, Failed):
        return ConfigurationError(message.reason)
    if isinstance(message, Ready) and message.unavailable:
        modality, reason = next(iter(message.unavailable.items()))
        return ModelUnavailableError(f"{modality} cannot be extracted: {reason}; or --without {modality}")
    if isinstance(message, Ready):
        return StageError(
            "a worker runs other models than the first one; give all the same (`emi models pull`), and start "
            "again"
        )
    return StageError(f"a worker process {ending} while it loaded the encoders; try fewer --workers")


def _ending(child: _Child) -> str:
    child.process.join(HANG_UP_S)
    code = child.process.exitcode
    if code is None:
        return "hung up"
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}; --debug shows more"


def serve(connection: Connection, task: Task) -> None:
    """Do a task's jobs until the other side hangs up; the body of a worker process."""
    set_up_output(task.debug)
    link = Link(connection)
    with ExitStack() as opened:
        try:
            ready, do = task.open(opened)
        except EmiError as error:
            link.send(Failed(reason=str(error)))
            return
        link.send(ready)
        if ready.unavailable:
            return
        gc.freeze()  # what is loaded stays, so the collector need not look at it after each clip
        with ThreadPoolExecutor(ready.at_once) as threads:
            while isinstance(job := link.receive(), Job):
                threads.submit(_answer, link, do, job)


def _answer(link: Link, do: Do, job: Job) -> None:
    """Do a job; an error that nobody expected ends the process, since what it has loaded may be broken."""
    try:
        link.send(do(job))
        give_memory_back()
    except BaseException:
        logger.exception("%s", job.path)
        os._exit(1)


def set_up_output(debug: bool) -> None:
    """Keep native libraries' chatter, and ours, off the terminal that the main process draws on."""
    if debug:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
        return
    logging.getLogger().addHandler(logging.NullHandler())
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
