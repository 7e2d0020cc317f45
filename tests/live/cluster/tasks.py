"""What the tests of Ray run: a head in a process of its own, a task without encoders, a driver to kill."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import numpy as np

from emi_live.cluster.clips import RayWorkers
from emi_live.cluster.ray_start import connected
from emi_live.extract.folder import Entry, leave_note, list_videos
from emi_live.extract.pool import Do, Job, Ready, Refused, Written
from emi_live.extract.run import Report, extract
from emi_models.data.clip import Clip, FeatureTrack
from emi_models.data.dataset import ClipWriter, DatasetInfo
from emi_models.inputs import FusionShapes
from tests.live.extract.bodies import entry_of

INFO = DatasetInfo(
    bundle="fake",
    encoders={"vision": "fake"},
    shapes=FusionShapes(vision_frames=400, vision_dim=1, audio_frames=599, audio_dim=1, text_dim=1),
    description="test",
    licence="none",
)


@dataclass(frozen=True)
class Task:
    """Writes a clip of one picture, whose feature is the size of the file, after what its name asks for."""

    out: Path
    log: Path
    pause_s: float = 0.0
    at_once: int = 1
    debug: bool = False
    device: str = "cpu"

    def open(self, opened: ExitStack) -> tuple[Ready, Do]:
        writer = ClipWriter(self.out, INFO)
        busy: set[str] = set()

        def do(job: Job) -> Written | Refused:
            busy.add(job.id)
            facts = {".hosts": socket.gethostname(), ".busy": len(busy), "": job.id}
            for suffix, fact in facts.items():
                with self.log.with_suffix(suffix).open("a", encoding="utf-8") as log:
                    log.write(f"{fact}\n")
            Event().wait(self.pause_s)
            tried = self.log.read_text(encoding="utf-8").split().count(job.id)
            if job.id.startswith("die") or (job.id.startswith("once") and tried == 1):
                os.kill(os.getpid(), signal.SIGKILL)
            if job.id.startswith("refuse"):
                return Refused(id=job.id, reason=f"{job.path}: it is bad")
            track = FeatureTrack(np.zeros(1, np.int64), np.full((1, 1), job.size, np.float32))
            clip = Clip(job.id, track, FeatureTrack.empty(1), FeatureTrack.empty(1), 2_000_000_000)
            writer.write(clip, source=job.name, transcript=f"words of {job.id}")
            leave_note(self.out, entry := entry_of(job))
            busy.discard(job.id)
            return Written(entry=entry, damaged=0)

        ready = Ready(encoders={"vision": "fake"}, recognizer="", settings="s", at_once=self.at_once)
        return ready, do


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Telling:
    """A watcher that tells the process that started it how many clips are done."""

    def ready(self, what: Ready, done: int, todo: int) -> None:
        tell(f"ready {done} {todo}")

    def wrote(self, entry: Entry) -> None:
        tell(f"wrote {entry.id}")

    def refused(self, name: str, reason: str) -> None:
        tell(f"refused {name}: {reason}")


def run(address: str, videos: Path, out: Path, log: Path, pause_s: float, at_once: int) -> Report:
    workers = RayWorkers(Task(out, log, pause_s, at_once), address, 2)
    return extract(list_videos(videos), {}, out, workers, Telling(), shards=True)


if __name__ == "__main__":
    if sys.argv[1] == "head":
        with connected(cpus=2) as cluster:
            tell(f"{cluster.address} {os.environ['RAY_AUTH_TOKEN']}")
            sys.stdin.read()
    else:
        videos, out, log = map(Path, sys.argv[2:5])
        run(sys.argv[1], videos, out, log, float(sys.argv[5]), int(sys.argv[6]))
