"""The worker processes of `emi extract` and `emi score`: each loads its models once, then does clips.

A worker that dies costs one clip and is replaced. The main process and its workers exchange JSON over a
pipe, so nothing is unpickled.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
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

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

__all__ = [
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
    "give_memory_back",
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

    def open(self, opened: ExitStack) -> tuple[Ready, Do]:
        """Load what it needs, which `opened` closes; return what was loaded, and what does one clip.

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

    def send(self, message: Message) -> bool:
        """Send one message; False if nobody is at the other end."""
        try:
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
MOST_LOST: Final = 3  # processes in a row that die without finishing a clip


@dataclass(slots=True, eq=False)
class _Child:
    process: BaseProcess
    link: Link
    ready: bool = False
    job: Job | None = None


class Pool:
    """Up to `count` processes that run `body(connection, *args)`.

    The body sends `Ready` or `Failed`, then answers each `Job` with `Written` or `Refused`. Only the main
    process handles an interrupt: the others do not see it, and `__exit__` ends them within about a second.
    """

    def __init__(self, count: int, body: Callable[..., None], *args: object) -> None:
        """Prepare; nothing is started before `with`. `body` must be importable by name."""
        self._count = count
        self._body = body
        self._args = args
        self._context = get_context("spawn")
        self._children: list[_Child] = []
        self._fingerprint = ""  # of what the first process has loaded; the others must have the same
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
        self._fingerprint = message.settings
        return message

    def run(self, jobs: Iterable[Job]) -> Iterator[Written | Refused]:
        """Do the jobs; yield the result of each as soon as it is known.

        If a process dies, its clip is refused and the process is replaced.

        Raises:
            StageError: three processes in a row died, or one died while it loaded its encoders.
        """
        left = deque(jobs)
        while left or any(child.job for child in self._children):
            idle = sum(child.job is None for child in self._children)
            for _ in range(min(len(left) - idle, self._count - len(self._children))):
                self._start()
            for child in self._children:
                if child.ready and child.job is None and left:
                    child.job = left.popleft()
                    child.link.send(child.job)
            connections = {child.link.connection: child for child in self._children}
            for connection in wait(list(connections)):
                if isinstance(connection, Connection) and (done := self._hear(connections[connection])):
                    yield done

    def _hear(self, child: _Child) -> Written | Refused | None:
        message = child.link.receive()
        if isinstance(message, Written | Refused):
            child.job, self._lost = None, 0
            return message
        if isinstance(message, Ready) and message.settings == self._fingerprint:
            child.ready = True
            return None
        if message is not None or not child.ready:
            raise cannot_load(message, "" if message is not None else _ending(child))
        self._children.remove(child)
        self._lost += 1
        ending = _ending(child)
        child.process.kill()  # it may have closed its pipe and live on
        child.link.connection.close()
        if self._lost >= MOST_LOST:
            raise StageError(f"{self._lost} worker processes in a row died, the last one {ending}")
        return None if child.job is None else Refused(id=child.job.id, reason=f"the worker process {ending}")

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
        while not ready.unavailable and isinstance(job := link.receive(), Job):
            link.send(do(job))
            give_memory_back()


def give_memory_back() -> None:
    """Hand freed memory back to the system, which glibc does not do by itself.

    Each clip has its own threads, and glibc keeps what they freed in pieces: without this a process grew
    by 1.4 MB a clip over 400 clips of 2.4 s.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have no such call
    if trim is not None:
        trim(0)


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
