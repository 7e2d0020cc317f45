"""Worker processes with encoders of their own: started, given clips, replaced when they die, and stopped."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from emi_live.errors import ConfigurationError, StageError
from emi_live.extract.link import Failed, Job, Link, Message, Ready, Refused, Written
from emi_models.errors import EmiError, ModelUnavailableError

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

__all__ = ["Pool"]

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

    The body sends `Ready`, or `Failed`, then answers each `Job` by `Written` or `Refused`. An interrupt is
    the main process's to handle: the others do not see it, and are ended by `__exit__` within about a second.
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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

    def ready(self) -> Ready:
        """What the first process has loaded, waited for.

        Raises:
            ModelUnavailableError: an encoder is not there.
            ConfigurationError: what it found forbids to go on.
            StageError: it died.
        """
        child = self._children[0]
        message = child.link.receive()
        if not isinstance(message, Ready) or message.unavailable:
            raise _cannot_load(child, message)
        child.ready = True
        self._fingerprint = message.settings
        return message

    def run(self, jobs: Iterable[Job]) -> Iterator[Written | Refused]:
        """Have the jobs done, and give what became of each as soon as it is known.

        A clip on which its process dies is refused, and the process replaced.

        Raises:
            StageError: processes die over and over, or one as it loaded its encoders.
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
            raise _cannot_load(child, message)
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


def _cannot_load(child: _Child, message: Message | None) -> EmiError:
    if isinstance(message, Failed):
        return ConfigurationError(message.reason)
    if isinstance(message, Ready) and message.unavailable:
        modality, reason = next(iter(message.unavailable.items()))
        return ModelUnavailableError(f"{modality} cannot be extracted: {reason}; or --without {modality}")
    if isinstance(message, Ready):
        return StageError("a worker process runs other encoders than the first one; start again")
    return StageError(f"a worker process {_ending(child)} while it loaded the encoders; try fewer --workers")


def _ending(child: _Child) -> str:
    child.process.join(HANG_UP_S)
    code = child.process.exitcode
    if code is None:
        return "hung up"
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}; --debug shows more"
