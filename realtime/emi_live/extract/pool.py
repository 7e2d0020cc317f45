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
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from emi_live.errors import ConfigurationError, StageError
from emi_live.extract.encoders import ExtractSettings
from emi_live.extract.folder import Entry
from emi_models import Modality
from emi_models.errors import DataError, EmiError, ModelUnavailableError

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from emi_live.extract.encoders import ClipEncoders
    from emi_models.data.dataset import ClipWriter

__all__ = [
    "Failed",
    "Job",
    "Link",
    "Message",
    "Pool",
    "Ready",
    "Refused",
    "Task",
    "Written",
    "give_memory_back",
    "run_child",
    "set_up_output",
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
KINDS: Final[dict[str, type[Message]]] = {
    kind.__name__: kind for kind in (Ready, Failed, Job, Written, Refused)
}


class Link:
    """One end of a pipe."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def send(self, message: Message) -> bool:
        """Send one message; False if nobody is at the other end."""
        try:
            self.connection.send_bytes(json.dumps([type(message).__name__, asdict(message)]).encode())
        except OSError:
            return False
        return True

    def receive(self) -> Message | None:
        """The next message, waited for; None when the other end is gone."""
        try:
            kind, fields = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            return None
        if "entry" in fields:
            fields["entry"] = Entry(**fields["entry"])
        return KINDS[kind](**fields)


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
            raise _cannot_load(child, message)
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


# What computes features or decodes media: recorded next to them.
LIBRARIES: Final = (
    *("emi-live", "ai-edge-litert", "av", "ctranslate2", "mediapipe", "numpy", "onnxruntime"),
    *("opencv-contrib-python", "opencv-python-headless", "pocketsphinx"),
    *("tokenizers", "torch", "transformers"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a worker process is for."""

    settings: ExtractSettings
    out: Path
    description: str
    licence: str | None = None  # the clips' own terms; None = Hume-Vidmimic2's if they are, else not stated
    vidmimic: bool = False  # whether the clips are those of Hume-Vidmimic2
    debug: bool = False


def run_child(connection: Connection, task: Task) -> None:
    """Serve until the other side hangs up; the body of the process."""
    set_up_output(task.debug)
    link = Link(connection)
    with ExitStack() as opened:
        from emi_live.extract.encoders import ClipEncoders
        from emi_models.store import ModelStore

        store = ModelStore(task.settings.live.models.directory, offline=True)
        try:
            encoders = ClipEncoders(task.settings, store)
            opened.callback(encoders.close)
            if (torch := sys.modules.get("torch")) is not None:  # of an encoder that runs in it
                torch.set_num_threads(1)  # as live use does; and the processes share the cores
            ready = Ready(
                encoders=dict(encoders.ids),
                recognizer=encoders.recognizer,
                settings=task.settings.fingerprint(encoders.ids, encoders.recognizer),
                announcements=list(encoders.announcements),
                unavailable=dict(encoders.unavailable),
            )
            writer = None if ready.unavailable else _writer(task, encoders, ready)
        except EmiError as error:
            link.send(Failed(reason=str(error)))
            return
        link.send(ready)
        while writer is not None and isinstance(job := link.receive(), Job):
            encoders.forget()
            link.send(_extract(job, task.settings, encoders, writer, ready.settings))
            give_memory_back()


def _extract(
    job: Job, settings: ExtractSettings, encoders: ClipEncoders, writer: ClipWriter, fingerprint: str
) -> Written | Refused | Failed:
    from emi_live.extract.encoders import dims_of
    from emi_live.extract.recorder import record_clip
    from emi_models.data.clip import Clip
    from emi_models.data.media import media_path, write_media

    dims = dims_of(encoders.shapes)
    try:
        record = record_clip(Path(job.path), settings.live, encoders.stages, dims, settings.until_ns)
        recording = record.recording
        tracks = recording.tracks
        clip = Clip(job.id, tracks["vision"], tracks["audio"], tracks["text"], recording.duration_ns)
    except EmiError as error:
        return Refused(id=job.id, reason=str(error))
    try:
        if (media := encoders.media(clip)) is not None:  # before the features, which say that all is there
            write_media(media_path(writer.folder, clip.id), media)
        writer.write(clip, transcript=recording.transcript, source=job.name)
    except DataError as error:  # the disk is full: the next clip would fare no better
        return Failed(reason=str(error))
    entry = Entry(
        id=job.id,
        source=job.name,
        size=job.size,
        mtime_ns=job.mtime_ns,
        settings=fingerprint,
        duration_s=round(recording.duration_ns / 1e9, 3),
        pictures=recording.pictures,
        faces=len(clip.vision.t_ns),
        sounds=len(clip.audio.t_ns),
        words=len(recording.transcript.split()),
    )
    return Written(entry=entry, damaged=record.damaged)


def _writer(task: Task, encoders: ClipEncoders, ready: Ready) -> ClipWriter:
    """A writer into the folder, whose description is brought up to date."""
    from emi_models.data.dataset import ClipWriter, DatasetInfo, read_info, write_info

    settings = task.settings
    info = DatasetInfo(
        bundle=settings.bundle,
        encoders=dict(encoders.ids),
        shapes=encoders.shapes,
        description=task.description,
        licence="; ".join((task.licence or _licence(task), *encoders.terms)),
        notes={
            "recognizer": ready.recognizer or "none",
            "seconds": "all" if settings.seconds is None else f"the first {settings.seconds:g}",
            "settings": ready.settings,
            "versions": ", ".join(f"{name} {found}" for name in LIBRARIES if (found := _version(name))),
        },
    )
    writer = ClipWriter(task.out, info)
    if read_info(task.out) != info:
        write_info(task.out, info)
    return writer


def _licence(task: Task) -> str:
    if not task.vidmimic:
        return "not stated: ask the people who recorded the clips"
    from emi_models.data.vidmimic import LICENCE

    return LICENCE


def give_memory_back() -> None:
    """Hand freed memory back to the system, which glibc does not do by itself.

    Each clip has its own threads, and glibc keeps what they freed in pieces: without this a process grew
    by 1.4 MB a clip over 400 clips of 2.4 s.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have no such call
    if trim is not None:
        trim(0)


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


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
