"""A folder of clips into a data set: clips that are done are kept, the workers do the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from emi_live.addresses import safe_address, safe_text
from emi_live.errors import ConfigurationError, SourceError
from emi_live.extract.folder import Entry, Ledger, Listing, Video, claimed, noted
from emi_live.extract.places import is_url
from emi_live.extract.pool import Job, Ready, Refused, Written

if TYPE_CHECKING:
    from emi_models.data.clip import Rating
    from emi_models.data.dataset import ManifestRow

__all__ = ["PATIENCE_S", "Outcome", "Report", "Results", "Watcher", "Workers", "extract", "run_jobs"]

FEATURES: Final = "features"  # of emi_models.data.dataset, which takes seconds to import
SHARDS: Final = "shards"
PATIENCE_S: Final = 90.0  # NFS may show a file that another machine wrote only after a minute
LOOK_EVERY_S: Final = 0.5


class Workers(Protocol):
    """What does the work: a `Pool`, or actors of Ray."""

    def ready(self) -> Ready:
        """Wait until the encoders are loaded, and return what runs."""

    def run(self, jobs: Iterable[Job]) -> Iterator[Written | Refused]:
        """Do the jobs; yield the result of each as soon as it is known."""


class Watcher(Protocol):
    """Gets the progress of a run."""

    def ready(self, what: Ready, done: int, todo: int) -> None:
        """The encoders are loaded: `done` clips were done before, `todo` remain."""

    def wrote(self, entry: Entry) -> None:
        """One more clip is done."""

    def refused(self, name: str, reason: str) -> None:
        """One more file cannot be used."""


@dataclass(frozen=True, slots=True)
class Results:
    """The folder that workers write to, which this process must see as they do."""

    folder: Path
    seen: Callable[[Entry], bool]  # whether the files of a clip are there as they were written
    patience_s: float = PATIENCE_S  # for files that other machines wrote

    def check(self, entry: Entry) -> None:
        """Wait until the files of a clip are seen.

        Raises:
            ConfigurationError: they do not come.
        """
        end_s = monotonic() + self.patience_s
        while not self.seen(entry):
            if monotonic() >= end_s:
                raise ConfigurationError(
                    f"--out {self.folder} is not the same folder on every machine: {entry.source} was "
                    "written into another one; name a folder that all of them share"
                )
            Event().wait(LOOK_EVERY_S)


@dataclass(slots=True)
class Outcome:
    """What became of the files of this run."""

    written: list[Entry] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)  # name and reason
    damaged: dict[str, int] = field(default_factory=dict)  # packets left out, by name


@dataclass(slots=True)
class Report(Outcome):
    """The result for each file."""

    kept: list[Entry] = field(default_factory=list)  # done before
    strangers: int = 0  # clips in the folder that are of none of these files
    rows: list[ManifestRow] = field(default_factory=list)  # of the manifest as it is now


def extract(
    listing: Listing,
    ratings: Mapping[str, Rating],
    out: Path,
    workers: AbstractContextManager[Workers],
    watcher: Watcher,
    *,
    strict: bool = False,
    shards: bool = False,
    patience_s: float = PATIENCE_S,
) -> Report:
    """Extract all clips that are not done yet, and write the manifest.

    After an interruption every clip is whole or absent, and the next run continues from there.

    Args:
        listing: the files.
        ratings: by clip id, for the manifest.
        out: the folder of the data set.
        workers: write clips into it; entered once no other run writes there.
        watcher: gets the progress.
        strict: fail on the first file that cannot be used.
        shards: pack the clips into files of many (see `emi_models.data.shards`).
        patience_s: as of `Results`.

    Raises:
        ConfigurationError: the folder cannot be written to, another run writes to it, or it is not the
            workers' folder.
        SourceError: strict, and a file cannot be used.
        EmiError: what the workers raise.
    """
    report = Report()
    with ExitStack() as opened:
        opened.enter_context(claimed(out))
        _sweep(out)
        pool = opened.enter_context(workers)
        ready = pool.ready()
        ledger = Ledger(out)
        there = _there(out)
        todo = [
            video
            for video in listing.videos
            if video.id not in there or not _is_done(video, ledger, ready.settings)
        ]
        packer = Packer(out, shards)
        again = {video.id for video in todo}
        report.kept = [ledger.entries[video.id] for video in listing.videos if video.id not in again]
        watcher.ready(ready, len(report.kept), len(todo))

        def seen(entry: Entry) -> bool:
            return noted(out, entry) and _features(out, entry.id).is_file()

        results = Results(out, seen, patience_s)
        for done in run_jobs(pool, listing, todo, report, watcher, results, strict=strict):
            if isinstance(done, Refused):
                # Features of what the file was before are not its features.
                if done.id in there:
                    _forget(out, done.id)
            else:
                ledger.add(done.entry)
                packer.add(done.entry.id)
        packer.flush()
    if report.kept or report.written:
        report.rows = _write_manifest(out, ratings)
        report.strangers = len(report.rows) - len(report.kept) - len(report.written)
    return report


def run_jobs(
    pool: Workers,
    listing: Listing,
    todo: Iterable[Video],
    outcome: Outcome,
    watcher: Watcher,
    results: Results,
    *,
    strict: bool,
) -> Iterator[Written | Refused]:
    """Have clips done by workers, and note and report the result of each file.

    Args:
        pool: the workers.
        listing: all files; those that are unusable are refused.
        todo: the clips to do.
        outcome: what became of each file is added to it.
        watcher: gets the progress.
        results: where the workers write.
        strict: fail on the first file that cannot be used.

    Yields:
        Each result, before it is noted: what is to be written down is written by then.

    Raises:
        SourceError: strict, and a file cannot be used.
        ConfigurationError: what they have written is not seen here.
        EmiError: what the workers raise.
    """

    def refuse(name: str, reason: str) -> None:
        if strict:
            raise SourceError(f"{name}: {reason}")
        shown = safe_address(name) if is_url(name) else name
        outcome.refused.append((shown, safe_text(reason)))
        watcher.refused(*outcome.refused[-1])

    for name, reason in listing.unusable:
        refuse(name, reason)
    waiting = {video.id: video for video in todo}
    for done in pool.run(_job(video) for video in waiting.values()):
        if isinstance(done, Written):
            results.check(done.entry)
        yield done
        if isinstance(done, Refused):
            video = waiting[done.id]
            # Without the file's path in front, because the line shows the path anyway.
            refuse(video.name, done.reason.removeprefix(video.path).lstrip(": "))
            continue
        outcome.written.append(done.entry)
        if done.damaged:
            outcome.damaged[done.entry.source] = done.damaged
        watcher.wrote(done.entry)


def _write_manifest(folder: Path, ratings: Mapping[str, Rating]) -> list[ManifestRow]:
    from emi_models.data.dataset import ClipWriter, read_info

    return ClipWriter(folder, read_info(folder)).write_manifest(ratings)


SHARD_CLIPS: Final = 256
SHARD_BYTES: Final = 256 << 20


class Packer:
    """Packs the clips' own files into a shard once there are enough; a kill in between loses none."""

    def __init__(self, folder: Path, wanted: bool) -> None:
        """Also pack what an earlier run left. Unless it is `wanted`, nothing is packed."""
        self._folder = folder
        self._wanted = wanted
        self._files = sorted((folder / FEATURES).glob("[!.]*.safetensors")) if wanted else []
        self._bytes = sum(file.stat().st_size for file in self._files)

    def add(self, clip_id: str) -> None:
        """One more clip has its file."""
        if not self._wanted:
            return
        file = _features(self._folder, clip_id)
        if file not in self._files:
            self._files.append(file)
            self._bytes += file.stat().st_size
        if len(self._files) >= SHARD_CLIPS or self._bytes >= SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Pack what there is."""
        from emi_models.data.dataset import read_info
        from emi_models.data.shards import pack

        while self._files:
            pack(self._folder, self._files[:SHARD_CLIPS], read_info(self._folder).shapes)
            del self._files[:SHARD_CLIPS]
        self._bytes = 0


def _features(folder: Path, clip_id: str) -> Path:
    return folder / FEATURES / f"{clip_id}.safetensors"


def _there(folder: Path) -> set[str]:
    """The clips whose features are in place, in files of their own or in shards."""
    from emi_models.data.shards import shard_metadata, shards_of

    found = {metadata.id for path in shards_of(folder) for metadata in shard_metadata(path)}
    return found | {path.stem for path in (folder / FEATURES).glob("[!.]*.safetensors")}


def _forget(folder: Path, clip_id: str) -> None:
    from emi_models.data.shards import drop

    _features(folder, clip_id).unlink(missing_ok=True)
    drop(folder, [clip_id])


def _is_done(video: Video, ledger: Ledger, settings: str) -> bool:
    entry = ledger.entries.get(video.id)
    return entry is not None and entry.of(video, settings)


def _job(video: Video) -> Job:
    return Job(**asdict(video))


def _sweep(folder: Path) -> None:
    """Remove what a run that was killed was writing."""
    for part in (path for below in (".", FEATURES, SHARDS) for path in (folder / below).glob(".*.part")):
        part.unlink(missing_ok=True)
