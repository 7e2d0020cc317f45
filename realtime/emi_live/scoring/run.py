"""A folder of clips into a folder of results: found, shared out to worker processes, resumed.

A record of each clip, `.emi-score/CLIP.json`, is begun before its files are written and completed after. So
after a crash the next run knows which files are its own, and which clips are done.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from glob import escape, glob
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from emi_live.config import LiveConfig
from emi_live.errors import ConfigurationError, StageError
from emi_live.extract.folder import SUFFIXES, Entry, Listing, Video, claimed
from emi_live.extract.places import (
    Place,
    in_folder,
    in_manifest,
    in_store,
    is_manifest,
    is_url,
    local_copy,
    sweep_copies,
)
from emi_live.extract.pool import ON_GPU, Do, Failed, Job, Ready, Refused, Written
from emi_live.extract.run import PATIENCE_S, Outcome, Results, run_jobs
from emi_live.scoring.files import FORMATS, summary_of, write_summary
from emi_models.data.clip import check_id
from emi_models.errors import DataError, EmiError
from emi_models.files import WriteError, atomic_write

if TYPE_CHECKING:
    from emi_live.extract.run import Watcher, Workers
    from emi_live.scoring.clip import Scores
    from emi_models import Modality

__all__ = ["RECORDS", "Plan", "Report", "Task", "find_clips", "score_all"]

RECORDS: Final = ".emi-score"
SUMMARY: Final = "summary.csv"
VERSION: Final = 1  # of the files; one more when the same settings give other ones
PICTURES: Final = {"png": ".png", "svg": ".svg"}
OVERLAY: Final = ".overlay.mp4"


def find_clips(given: Sequence[str], found_so_far: Callable[[int], None] = lambda _: None) -> Listing:
    """The clips of folders (with those below), files, patterns such as `day*/*.mp4`, manifests and URLs.

    The id of a clip is its name without the suffix, below the folder that was given; where two would have the
    same, or that of the summary, the suffix stays. A manifest may give another id.

    Args:
        given: where they are.
        found_so_far: called with the number of files, after each: a store may take minutes to list.

    Raises:
        ConfigurationError: one of them is not there, or there is no clip at all.
    """
    found: dict[str, Place] = {}
    unusable: list[tuple[str, str]] = []
    others: Counter[str] = Counter()
    for number, place in enumerate(_places(given, unusable), start=1):
        found_so_far(number)
        suffix, name = Path(place.name).suffix, place.name
        if place.id:
            try:
                name = check_id(place.id) + suffix
            except DataError as error:
                unusable.append((place.name, str(error)))
                continue
        if suffix.lower() not in SUFFIXES:
            others[suffix.lower() or "no suffix"] += 1
        elif name not in found:
            found[name] = place
        elif not _one(found[name].path, place.path):
            unusable.append((place.path, f"has the name of {found[name].path}; score it into another folder"))
    if not found:
        seen = f" (but {sum(others.values())} other files)" if others else ""
        seen += f" ({unusable[0][0]}: {unusable[0][1]})" if unusable else ""
        raise ConfigurationError(f"there is no media file in {', '.join(given)}{seen}")
    stems = Counter(name.removesuffix(Path(name).suffix) for name in found)
    videos = []
    for name, place in sorted(found.items()):
        stem = name.removesuffix(Path(name).suffix)
        alone = stems[stem] == 1 and stem != Path(SUMMARY).stem
        videos.append(Video(stem if alone else name, place.path, name, place.size, place.mtime_ns))
    return Listing(videos, unusable, dict(others))


def _one(first: str, second: str) -> bool:
    return first == second or (not is_url(first) and Path(first).resolve() == Path(second).resolve())


def _places(given: Sequence[str], unusable: list[tuple[str, str]]) -> Iterator[Place]:
    for text in given:
        path = Path(text)
        if path.is_dir():
            yield from in_folder(path)
        elif is_manifest(text) and (is_url(text) or path.is_file()):
            yield from in_manifest(text, unusable)
        elif is_url(text):
            yield from in_store(text)
        elif path.is_file():
            yield _file(path)
        elif matches := [Path(match) for match in sorted(glob(text, recursive=True))]:
            yield from (_file(match) for match in matches if match.is_file())
        else:
            raise ConfigurationError(f"{text}: there is no such file or folder")


def _file(path: Path) -> Place:
    status = path.stat()
    return Place(path.name, str(path), status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is written of each clip."""

    out: Path
    formats: tuple[str, ...] = ("csv",)  # names of `FORMATS`, png or svg
    overlay: bool = False
    cut: float = 0.5  # a share of a value's range: time above it is summed up

    def files(self, clip_id: str) -> list[Path]:
        """The main file of each format."""
        endings = [PICTURES.get(name) or FORMATS[name].ending for name in self.formats]
        return [self.out / f"{clip_id}{ending}" for ending in endings]

    def all_files(self, clip_id: str) -> list[Path]:
        """Every file that may be written of the clip."""
        second = [FORMATS[name].also for name in self.formats if name in FORMATS]
        endings = [ending for ending in (*second, OVERLAY if self.overlay else None) if ending is not None]
        return [*self.files(clip_id), *(self.out / f"{clip_id}{ending}" for ending in endings)]

    def record(self, clip_id: str) -> Path:
        """Where the clip's record is."""
        return self.out / RECORDS / f"{clip_id}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a worker process is for."""

    plan: Plan
    config: LiveConfig
    at_once: int | None = None  # clips that one worker does at once; None: one, or some on a GPU
    debug: bool = False

    @property
    def device(self) -> str:
        """The setting `models.device`."""
        return self.config.models.device

    def open(self, opened: ExitStack) -> tuple[Ready, Do]:
        """Load the models, which `opened` closes; return what they are, and what scores a clip.

        Raises:
            EmiError: they cannot be loaded.
        """
        from emi_live.scoring.clip import ClipScorer

        sweep_copies()
        models = self.config.models.model_copy(update={"offline": True})  # they were fetched before
        scorer = opened.enter_context(ClipScorer(self.config.model_copy(update={"models": models})))
        ready = Ready(
            encoders=scorer.encoders,
            recognizer=scorer.recognizer,
            settings=self.fingerprint(scorer.encoders, scorer.recognizer),
            announcements=scorer.announcements,
            unavailable=scorer.unavailable,
            at_once=self.at_once or (ON_GPU if scorer.gains_by_several else 1),
        )
        free: SimpleQueue[ClipScorer] = SimpleQueue()
        writing = Lock()  # matplotlib is for one thread at a time
        if ready.at_once == 1 or ready.unavailable:
            free.put(scorer)
        else:
            for one in scorer.for_several(ready.at_once):
                free.put(opened.enter_context(one))

        def score(path: Path) -> Scores:
            used = free.get()
            try:
                scores = used.score(path)
                for modality, reason in used.unavailable.items():  # it loads them again after a failure
                    raise StageError(f"{modality} could not be loaded again: {reason}")
                return scores
            finally:
                free.put(used)

        def do(job: Job) -> Written | Refused | Failed:
            try:
                with local_copy(job.path, job.size) as path:
                    return _score(job, path, self, ready.settings, score, writing)
            except WriteError as error:
                return Failed(reason=str(error))
            except EmiError as error:
                return Refused(id=job.id, reason=str(error))

        return ready, do

    def fingerprint(self, encoders: Mapping[Modality, str], recognizer: str) -> str:
        """The same 16 letters for the same results of the same file.

        Args:
            encoders: the encoder that runs, by modality.
            recognizer: the speech recogniser that runs, "" for none.
        """
        dumped = self.config.model_dump(mode="json", exclude={"source": True, "output": True, "models": True})
        checkpoint = self.config.fusion.checkpoint
        facts = {
            "version": VERSION,
            "config": dumped,
            "encoders": dict(encoders),
            "recognizer": recognizer,
            "track": self.config.source.audio_track,
            "cut": self.plan.cut,
            "checkpoint": None if checkpoint is None else hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(slots=True)
class Report(Outcome):
    """The result for each file."""

    kept: list[str] = field(default_factory=list)  # ids of clips that were done before
    rows: list[dict[str, Any]] = field(default_factory=list)  # of the summary


def score_all(
    listing: Listing,
    task: Task,
    workers: AbstractContextManager[Workers],
    watcher: Watcher,
    *,
    overwrite: bool = False,
    strict: bool = False,
    patience_s: float = PATIENCE_S,
) -> Report:
    """Score all clips that are not done yet, and write the summary.

    Args:
        listing: the clips.
        task: what the workers do.
        workers: a `Pool` of the task, or Ray's actors.
        watcher: gets the progress.
        overwrite: replace files that are in the way.
        strict: fail on the first clip that cannot be used.
        patience_s: as of `Results`.

    Raises:
        ConfigurationError: the folder cannot be written to, has files that this command has not written
            with these settings, or is not the workers' folder.
        SourceError: strict, and a clip cannot be used.
        EmiError: what the workers raise.
    """
    plan, report = task.plan, Report()
    with ExitStack() as opened:
        opened.enter_context(claimed(plan.out))
        _sweep(listing, plan)
        _check_summary(plan, overwrite=overwrite)
        pool = opened.enter_context(workers)
        ready = pool.ready()
        todo = _to_do(listing, plan, ready.settings, report, overwrite=overwrite)
        watcher.ready(ready, len(report.kept), len(todo))

        def seen(entry: Entry) -> bool:
            record = _read(plan.record(entry.id)) or {"done": False}
            same = (record.get("settings"), record.get("size"), record.get("mtime_ns"))
            return record["done"] and same == (entry.settings, entry.size, entry.mtime_ns)

        results = Results(plan.out, seen, patience_s)
        for _ in run_jobs(pool, listing, todo, report, watcher, results, strict=strict):
            pass  # the workers have written everything
    records = [_read(plan.record(video.id)) for video in listing.videos]
    report.rows = [record["summary"] for record in records if record is not None and record["done"]]
    if report.rows:
        write_summary(report.rows, plan.out / SUMMARY)
    return report


def _check_summary(plan: Plan, *, overwrite: bool) -> None:
    if not overwrite and (plan.out / SUMMARY).exists() and not (plan.out / RECORDS).is_dir():
        raise ConfigurationError(f"{plan.out / SUMMARY} is there; give --overwrite, or another folder")


def _to_do(listing: Listing, plan: Plan, settings: str, report: Report, *, overwrite: bool) -> list[Video]:
    """The clips that are not done yet; those that are go into the report."""
    todo = list[Video]()
    for video in listing.videos:
        record = _read(plan.record(video.id)) or {}
        ours = record.get("settings") == settings
        files = plan.all_files(video.id)
        if ours and record["done"] and _same(record, video) and _all_there(plan, video.id, record):
            report.kept.append(video.id)
            continue
        if not (ours or overwrite) and (there := [file for file in files if file.exists()]):
            raise ConfigurationError(
                f"{there[0]} is there, and not from a run with these settings and models; give --overwrite, "
                "or another folder"
            )
        todo.append(video)
    return todo


def _sweep(listing: Listing, plan: Plan) -> None:
    """Remove what a run that was killed was writing; other hidden files are not ours."""
    for video in listing.videos:
        for file in (*plan.all_files(video.id), plan.record(video.id)):
            for part in file.parent.glob(f".{escape(file.name)}.*.part"):
                part.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "done" in found else None


def _same(record: Mapping[str, Any], video: Video) -> bool:
    return (record.get("size"), record.get("mtime_ns")) == (video.size, video.mtime_ns)


def _all_there(plan: Plan, clip_id: str, record: Mapping[str, Any]) -> bool:
    files = plan.files(clip_id)
    if plan.overlay and record.get("picture", True):
        files.append(plan.out / f"{clip_id}{OVERLAY}")
    return all(file.exists() for file in files)


def _score(
    job: Job, path: Path, task: Task, settings: str, score: Callable[[Path], Scores], writing: Lock
) -> Written | Refused | Failed:
    try:
        scores = score(path)
        with writing:
            _write(job, path, task.plan, settings, scores)
    except WriteError as error:  # the disk is full: the next clip would fare no better
        return Failed(reason=str(error))
    except EmiError as error:
        return Refused(id=job.id, reason=str(error).replace(str(path), job.path))
    entry = Entry(
        id=job.id,
        source=job.name,
        size=job.size,
        mtime_ns=job.mtime_ns,
        settings=settings,
        duration_s=round(scores.duration_s, 3),
        pictures=scores.pictures,
        faces=scores.faces,
        sounds=sum(scores["audio_used"]),
        words=len(scores.words),
    )
    return Written(entry=entry, damaged=scores.damaged)


def _write(job: Job, path: Path, plan: Plan, settings: str, scores: Scores) -> None:
    """Write a clip's files, and the record of them before and after."""
    record: dict[str, Any] = {
        "settings": settings,
        "source": job.name,
        "size": job.size,
        "mtime_ns": job.mtime_ns,
        "done": False,
    }
    atomic_write(plan.record(job.id), json.dumps(record))
    for name, file in zip(plan.formats, plan.files(job.id), strict=True):
        if name in PICTURES:
            from emi_live.scoring.picture import plot

            plot(scores, file)
        else:
            FORMATS[name].write(scores, file, plan.cut)
    if plan.overlay:
        from emi_live.scoring.picture import has_picture, overlay

        record["picture"] = has_picture(path)
        if record["picture"]:
            overlay(path, scores, plan.out / f"{job.id}{OVERLAY}")
    record |= {"done": True, "summary": summary_of(scores, job.name, plan.cut)}
    atomic_write(plan.record(job.id), json.dumps(record))
