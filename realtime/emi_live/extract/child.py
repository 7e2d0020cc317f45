"""A worker process of extraction: loads the encoders once, then turns clips that it is given into files."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from emi_live.extract.ledger import Entry
from emi_live.extract.link import Failed, Job, Link, Ready, Refused, Written
from emi_live.extract.settings import ExtractSettings
from emi_models.data.errors import DataError
from emi_models.errors import EmiError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from emi_live.extract.encoders import ClipEncoders
    from emi_models.data.store import ClipWriter

__all__ = ["Task", "run_child"]

# What computes features or decodes media: recorded beside them.
LIBRARIES: Final = (
    *("emi-live", "av", "faster-whisper", "mediapipe", "numpy", "onnxruntime", "pocketsphinx"),
    *("torch", "torchaudio", "transformers"),
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
    _set_up_output(task.debug)
    link = Link(connection)
    with ExitStack() as opened:
        import torch

        from emi_live.extract.encoders import ClipEncoders
        from emi_models.store import ModelStore

        torch.set_num_threads(1)  # as live use does; and the processes share the cores
        store = ModelStore(task.settings.live.models.directory, offline=True)
        try:
            encoders = ClipEncoders(task.settings, store)
            opened.callback(encoders.close)
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
            _give_memory_back()


def _extract(
    job: Job, settings: ExtractSettings, encoders: ClipEncoders, writer: ClipWriter, fingerprint: str
) -> Written | Refused | Failed:
    from emi_live.extract.encoders import dims_of
    from emi_live.extract.record import record_clip
    from emi_models.data.clip import Clip

    dims = dims_of(encoders.shapes)
    try:
        record = record_clip(Path(job.path), settings.live, encoders.stages, dims, settings.until_ns)
        recording = record.recording
        tracks = recording.tracks
        clip = Clip(job.id, tracks["vision"], tracks["audio"], tracks["text"], recording.duration_ns)
    except EmiError as error:
        return Refused(id=job.id, reason=str(error))
    try:
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
    from emi_models.data.info import DatasetInfo, read_info, write_info
    from emi_models.data.store import ClipWriter

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
        return "not stated: ask whoever recorded the clips"
    from emi_models.data.vidmimic import LICENCE

    return LICENCE


def _give_memory_back() -> None:
    """Hand freed memory back to the system, which glibc does not do by itself.

    Each clip has threads of its own, and glibc keeps what they freed in pieces: without this a process grew
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


def _set_up_output(debug: bool) -> None:
    """Keep native libraries' chatter, and ours, off the terminal that the main process draws on."""
    if debug:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
        return
    logging.getLogger().addHandler(logging.NullHandler())
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
