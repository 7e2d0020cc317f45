"""The work of `emi extract` on one clip: the same in a process of the pool and in an actor of Ray."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from emi_live.extract.encoders import ExtractSettings
from emi_live.extract.folder import Entry, leave_note
from emi_live.extract.places import local_copy, sweep_copies
from emi_live.extract.pool import ON_GPU, Do, Failed, Job, Ready, Refused, Written
from emi_models.errors import DataError, EmiError
from emi_models.files import WriteError

if TYPE_CHECKING:
    from emi_live.extract.encoders import ClipEncoders
    from emi_models.data.dataset import ClipWriter

__all__ = ["Task"]

# What computes features or decodes media: recorded next to them.
LIBRARIES: Final = (
    *("emi-live", "ai-edge-litert", "av", "ctranslate2", "mediapipe", "numpy", "onnxruntime"),
    *("opencv-contrib-python", "opencv-python-headless", "pocketsphinx"),
    *("tokenizers", "torch", "transformers"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is done to each clip, and where it goes."""

    settings: ExtractSettings
    out: Path
    description: str
    licence: str | None = None  # the clips' own terms; None = Hume-Vidmimic2's if they are, else not stated
    vidmimic: bool = False  # whether the clips are those of Hume-Vidmimic2
    at_once: int | None = None  # clips that one worker does at once; None: one, or some on a GPU
    debug: bool = False

    @property
    def device(self) -> str:
        """The setting `models.device`."""
        return self.settings.live.models.device

    def open(self, opened: ExitStack) -> tuple[Ready, Do]:
        """Load the encoders, which `opened` closes; return what they are, and what extracts a clip.

        Raises:
            EmiError: they cannot be loaded, or the folder holds features of others.
        """
        from emi_live.extract.encoders import ClipEncoders
        from emi_models.store import ModelStore

        sweep_copies()
        store = ModelStore(self.settings.live.models.directory, offline=True)
        encoders = ClipEncoders(self.settings, store)
        opened.callback(encoders.close)
        if (torch := sys.modules.get("torch")) is not None:  # of an encoder that runs in it
            torch.set_num_threads(1)  # as live use does; and the processes share the cores
        at_once = self.at_once or (ON_GPU if encoders.gains_by_several else 1)
        ready = Ready(
            encoders=dict(encoders.ids),
            recognizer=encoders.recognizer,
            settings=self.settings.fingerprint(encoders.ids, encoders.recognizer),
            announcements=list(encoders.announcements),
            unavailable=dict(encoders.unavailable),
            at_once=at_once,
        )
        writer = None if ready.unavailable else _writer(self, encoders, ready)
        free: SimpleQueue[ClipEncoders] = SimpleQueue()
        if at_once == 1 or ready.unavailable:
            free.put(encoders)
        else:
            for lane in encoders.for_several(at_once):
                opened.callback(lane.close)
                free.put(lane)

        def do(job: Job) -> Written | Refused | Failed:
            assert writer is not None  # noqa: S101  # nobody asks where an encoder is unavailable
            used = free.get()
            try:
                used.forget()
                with local_copy(job.path, job.size) as path:
                    return _extract(job, path, self.settings, used, writer, ready.settings)
            except WriteError as error:
                return Failed(reason=str(error))
            except EmiError as error:
                return Refused(id=job.id, reason=str(error))
            finally:
                free.put(used)

        return ready, do


def _extract(
    job: Job,
    path: Path,
    settings: ExtractSettings,
    encoders: ClipEncoders,
    writer: ClipWriter,
    fingerprint: str,
) -> Written | Refused | Failed:
    from emi_live.extract.encoders import dims_of
    from emi_live.extract.recorder import record_clip
    from emi_models.data.clip import Clip
    from emi_models.data.media import media_path, write_media

    dims = dims_of(encoders.shapes)
    try:
        record = record_clip(path, settings.live, encoders.stages, dims, settings.until_ns, encoders.give_up)
        recording = record.recording
        tracks = recording.tracks
        clip = Clip(job.id, tracks["vision"], tracks["audio"], tracks["text"], recording.duration_ns)
    except EmiError as error:
        return Refused(id=job.id, reason=str(error).replace(str(path), job.path))
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
    try:
        if (media := encoders.media(clip)) is not None:  # before the features, which say that all is there
            write_media(media_path(writer.folder, clip.id), media)
        writer.write(clip, transcript=recording.transcript, source=job.name)
        leave_note(writer.folder, entry)
    except DataError as error:  # the disk is full: the next clip would fare no better
        return Failed(reason=str(error))
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


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""
