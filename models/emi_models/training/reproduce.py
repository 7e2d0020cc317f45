"""The rows of a paper's table, made from a user's own data.

::

    OUT/
    ├── runs/NAME/            one training a run, as `emi train` leaves it; rows and tables share runs by name
    │   ├── measures.json     what the rows need of it, there once it is done
    │   └── predictions.csv   of the test split, if there is one
    └── table-N.md, table-N.json

A run is made once: later, or after an interruption, it is read or continued. A row that cannot be made has a
reason in place of numbers. Several devices work at the same time, one run each.
"""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import torch

from emi_models import EMOTIONS, MODALITIES
from emi_models.checkpoint import load_checkpoint
from emi_models.data.dataset import check_folder, open_clips
from emi_models.data.summary import STATISTICS
from emi_models.data.vidmimic import NONE, has_features
from emi_models.device import choose_device
from emi_models.errors import EmiError, TrainingError
from emi_models.files import replacing
from emi_models.inputs import FusionInputs
from emi_models.processes import worker_processes
from emi_models.training.config import TrainConfig
from emi_models.training.fit import fit
from emi_models.training.predict import predict_split
from emi_models.training.published import OFFICIAL
from emi_models.training.rows import Made, MadeRow

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from emi_models import Modality
    from emi_models.data.clip import ClipSet
    from emi_models.data.dataset import ManifestClips
    from emi_models.data.vidmimic import VidmimicClips
    from emi_models.networks.semantic_matters import SemanticMatters
    from emi_models.training.fit import FitResult
    from emi_models.training.rows import Paper, Row, Run, Table

__all__ = ["make_table", "whose"]

MEASURES: Final = "measures.json"
OFFICIAL_COUNTS: Final = {"train": 8072, "valid": 4588}


def whose(clips: ClipSet) -> tuple[str, bool]:
    """The data's name, and whether they are the papers': by their description and the official counts."""
    counts = {split: len(clips.ids(split)) for split in OFFICIAL_COUNTS}
    return clips.description, clips.description.startswith(OFFICIAL) and counts == OFFICIAL_COUNTS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One run to make: all that a process of its own must be told."""

    system: str
    run: Run
    data: Path
    labels: Path | None
    cache: Path | None
    folders: Mapping[str, str]  # by modality, and motion; empty in emi-live's own layout
    settings: Mapping[str, Any]  # the user's own, of `TrainConfig`
    out: Path
    encoders: tuple[Modality, ...] = ()  # those that are trained with the network

    def config(self, device: str, threads: int | None) -> TrainConfig:
        """The settings of the training: the row's, then the user's."""
        modalities = {"network": {"modalities": list(self.run.modalities)}}
        mine = {"training": {"device": device, "threads": threads, "recipe": "paper"}}
        encoders = {"encoders": {"train": list(self.encoders)}} if self.encoders else {}
        row = _merged(self.run.settings, modalities, {"data": {"use": self.run.use}}, mine, encoders)
        found = TrainConfig.model_validate(_merged(row, self.settings))
        # Those of an encoder that this row does not have are for others.
        layers = {m: count for m, count in found.encoders.frozen_layers.items() if m in found.encoders.train}
        return found.model_copy(
            update={"encoders": found.encoders.model_copy(update={"frozen_layers": layers})}
        )

    def asked(self) -> dict[str, Any]:
        """What makes its result this one, as JSON can hold it."""
        settings = self.config("auto", None).model_dump(mode="json")
        for name in ("device", "threads"):
            settings["training"].pop(name)
        asked = {"system": self.system, "data": str(self.data.resolve()), "settings": settings}
        return json.loads(json.dumps(asked | {"folders": dict(self.folders)}))  # type: ignore[no-any-return]  # JSON

    def clips(self) -> ManifestClips | VidmimicClips:
        """The data, with this run's features and no others."""
        if self.labels is not None or check_folder(self.data):
            return open_clips(self.data, labels=self.labels)
        vision, audio, text = (self.folders.get(name, NONE) for name in MODALITIES)
        motion = self.folders.get("motion", NONE)
        return open_clips(self.data, cache=self.cache, vision=vision, audio=audio, text=text, motion=motion)


def make_table(
    paper: Paper,
    table: Table,
    data: Path,
    out: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    features: Mapping[str, str] | None = None,
    labels: Path | None = None,
    cache: Path | None = None,
    only: Sequence[str] = (),
    train_encoders: Sequence[Modality] = (),
    devices: Sequence[str] = ("auto",),
    resume: bool = False,
    console: Console | None = None,
) -> Made:
    """Make the rows of a table; those that were made before are read.

    Args:
        paper: whose.
        table: one of its tables.
        data: the folder of clips.
        out: the folder of this paper's runs.
        settings: of `TrainConfig`, nested; they win over a row's own.
        features: folders in place of those that a row names, by that name, such as `dinov2`.
        labels: ratings in place of the folder's own.
        cache: where converted features are kept.
        only: parts of names of rows; others are left out. Empty: all.
        train_encoders: modalities whose encoders train with the network, in the rows that have them. The
            clips are in emi-live's own layout, with media.
        devices: each makes one run at a time. One device works in this process, more in one each.
        resume: go on with what is in `out`.
        console: where progress is shown.

    Raises:
        TrainingError: `out` holds runs and `resume` is not given, or no row has such a name.
        DataError: the folder has no clips.
    """
    if (out / "runs").exists() and not resume:
        raise TrainingError(
            f"{out / 'runs'} holds runs already; --resume goes on with them, --force throws them away, or "
            "name another --out"
        )
    if train_encoders and not check_folder(data):
        raise TrainingError(
            f"{data} has features only; encoders are trained on clips that `emi extract --keep-media` wrote"
        )
    rows = [row for row in table.rows if not only or any(part in row.name for part in only)]
    if not rows:
        names = "; ".join(row.name for row in table.rows)
        raise TrainingError(f"no row of table {table.number} has {only[0]!r} in its name; there are: {names}")
    whole = open_clips(data, labels=labels, cache=None if check_folder(data) else cache)
    description, theirs = whose(whole)
    if table.statistics:
        computed = STATISTICS[table.statistics](whole)
        made = [
            MadeRow(row=row, yours=tuple(computed[row.name].get(c) for c in table.columns)) for row in rows
        ]
    else:
        jobs: dict[str, _Job] = {}
        reasons: dict[str, str] = {}
        for run in {row.run.name: row.run for row in rows if row.run}.values():
            try:
                folders = _folders(run, data, features or {}, cache)
            except TrainingError as error:
                reasons[run.name] = str(error)
                continue
            jobs[run.name] = _Job(
                system=paper.system,
                run=run,
                data=data,
                labels=labels,
                cache=cache,
                folders=folders,
                settings=settings or {},
                out=out / "runs" / run.name,
                encoders=tuple(m for m in MODALITIES if m in train_encoders and m in run.read),
            )
        results, failures = _carry_out(list(jobs.values()), devices, console)
        made = [_made(row, table, results, reasons, failures, jobs) for row in rows]
    trained = () if table.statistics else tuple(m for m in MODALITIES if m in train_encoders)
    found = Made(paper=paper, table=table, data=description, theirs=theirs, rows=tuple(made), trained=trained)
    out.mkdir(parents=True, exist_ok=True)
    for suffix, text in (("md", found.markdown()), ("json", json.dumps(found.to_json(), indent=1) + "\n")):
        with replacing(out / f"table-{table.number}.{suffix}") as part:
            part.write_text(text, encoding="utf-8")
    return found


def _made(
    row: Row,
    table: Table,
    results: Mapping[str, Mapping[str, Any]],
    reasons: Mapping[str, str],
    failures: Mapping[str, str],
    jobs: Mapping[str, _Job],
) -> MadeRow:
    """A row with what its run measured."""
    nothing = (None,) * len(table.columns)
    if row.run is None:
        return MadeRow(row=row, yours=nothing, why=row.why)
    name = row.run.name
    if name in reasons or name in failures:
        why = reasons.get(name) or failures[name]
        return MadeRow(row=row, yours=nothing, why=why, failed=name in failures)
    measures = results[name]
    stage = measures["stages"].get(row.stage or measures["last"], {})
    values = {**stage, "test": measures["test"], **measures["weights"]}
    notes = [row.note] if row.note else []
    if jobs[name].encoders:
        notes.append(f"encoders trained: {', '.join(jobs[name].encoders)}")
    for modality, folder in jobs[name].folders.items():
        wanted = row.run.features[modality][0]
        notes += (
            [f"{modality}: {folder} stands in for {wanted}"]
            if folder in row.run.features[modality][1:]
            else []
        )
    if "test" in table.columns and measures["test"] is None and measures["predictions"]:
        notes.append(f"test: hand in runs/{name}/predictions.csv")
    return MadeRow(row=row, yours=tuple(values.get(column) for column in table.columns), notes=tuple(notes))


def _folders(run: Run, data: Path, given: Mapping[str, str], cache: Path | None) -> dict[str, str]:
    """The folder of each modality's features; empty in emi-live's own layout, which has one of each.

    Raises:
        TrainingError: there is none; the message is the row's reason.
    """
    if check_folder(data):
        encoders = open_clips(data).encoders
        single = [names[0] for names in run.features.values() if len(names) == 1]
        if single:
            raise TrainingError(
                f"needs features of {single[0]} by themselves, as in Hume-Vidmimic2's layout ({single[0]}/)"
            )
        if gone := [m for m in run.read if m not in encoders]:
            raise TrainingError(f"these clips have no {gone[0]} features")
        return {}
    found = {}
    for modality, names in run.features.items():
        here = [given.get(name, name) for name in names]
        folder = next((name for name in here if has_features(data, name, cache)), None)
        if folder is None:
            raise TrainingError(
                f"no folder {here[0]} of {modality} features in {data}; make it, or give --features "
                f"{names[0]}=NAME"
            )
        found[modality] = folder
    return found


def _carry_out(
    jobs: Sequence[_Job], devices: Sequence[str], console: Console | None
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What each run measured, by its name; and why others failed."""
    results: dict[str, dict[str, Any]] = {}
    failures: dict[str, str] = {}

    def ended(job: _Job, found: Callable[[], dict[str, Any]]) -> None:
        try:
            results[job.run.name] = found()
            words = "made"
        except EmiError as error:
            failures[job.run.name] = str(error)
            words = str(error)
        if console is not None:
            line = f"{len(results) + len(failures)}/{len(jobs)} {job.run.name}: {words}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    if len(devices) == 1:
        for job in jobs:
            ended(job, lambda job=job: make_run(job, devices[0], None, console))  # type: ignore[misc]  # bound now
        return results, failures
    threads = max(1, (os.cpu_count() or 1) // len(devices))
    with closing(_spread(jobs, devices, threads)) as spread:  # an interrupt may come in here, too
        for job, future in spread:
            ended(job, future.result)
    return results, failures


def _spread(
    jobs: Sequence[_Job], devices: Sequence[str], threads: int
) -> Generator[tuple[_Job, Future[dict[str, Any]]], None, None]:
    """Each job with its result, as they end; a device has a process of its own and one job at a time."""
    waiting = list(jobs)
    under_way: dict[Future[dict[str, Any]], tuple[_Job, int]] = {}
    with ExitStack() as opened:
        workers = [opened.enter_context(worker_processes(1)) for _ in devices]
        while waiting or under_way:
            busy = {place for _, place in under_way.values()}
            for place in (place for place in range(len(workers)) if place not in busy):
                if waiting:
                    job = waiting.pop(0)
                    count = threads if devices[place] == "cpu" else None
                    future = workers[place].submit(make_run, job, devices[place], count)
                    under_way[future] = job, place
            done, _ = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                yield under_way.pop(future)[0], future


def make_run(job: _Job, device: str, threads: int | None, console: Console | None = None) -> dict[str, Any]:
    """Train one run, or go on with it, and measure it; a run that is done is read.

    Raises:
        TrainingError: it cannot be trained, or its folder holds another run.
    """
    asked, there = job.asked(), job.out / MEASURES
    if there.is_file():
        measures: dict[str, Any] = json.loads(there.read_text(encoding="utf-8"))
        if measures["asked"] == asked:
            return measures
        raise TrainingError(f"{job.out} holds another run; name another --out, or start again with --force")
    began, clips = time.monotonic(), job.clips()
    chosen = str(choose_device(device))
    result = fit(job.system, clips, job.out, job.config(chosen, threads), resume=True, console=console)
    test, predictions = None, None
    if clips.ids("test"):
        found = predict_split([result.checkpoint], clips, "test", device=chosen)
        predictions = job.out / "predictions.csv"
        with replacing(predictions) as part:
            part.write_text(found.csv(), encoding="utf-8")
        test = found.scores.mean_pearson if found.scores else None
    measures = {
        "asked": asked,
        "stages": {stage.name: _stage(stage.best, job.run.use) for stage in result.stages},
        "last": result.stages[-1].name,
        "test": test,
        "predictions": str(predictions) if predictions else None,
        "weights": _weights(result),
        "data": clips.description,
        "encoders": dict(clips.encoders),
        "seconds": round(time.monotonic() - began, 1),
    }
    with replacing(there) as part:
        part.write_text(json.dumps(measures, indent=1) + "\n", encoding="utf-8")
    return measures


def _stage(best: Mapping[str, float], use: str) -> dict[str, float]:
    """A stage's validation scores: their mean as `valid`, and by emotion; none if no clip validated."""
    if use == "train+valid":
        return {}
    each = {emotion: best[f"pearson_{emotion}"] for emotion in EMOTIONS if f"pearson_{emotion}" in best}
    return {"valid": best["score"], **each}


def _weights(result: FitResult) -> dict[str, float]:
    """What each modality's prediction counts where all are present, in a network of tasks: `w_audio`, … ."""
    network = load_checkpoint(result.checkpoint).network
    if getattr(network.config, "fusion", "") != "multitask":
        return {}
    tasks: SemanticMatters = network  # type: ignore[assignment]  # it alone has that setting
    window = FusionInputs.empty(network.config.shapes)
    flags = ("vision_present", "audio_present", "text_present", "vision_mask", "audio_mask")
    window = replace(window, **{name: torch.ones_like(getattr(window, name)) for name in flags})
    weights = tasks.weights(window)[0].tolist()
    return {f"w_{m}": weight for m, weight in zip(tasks.modalities, weights, strict=True)}


def _merged(*settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings in one; later ones win."""
    found: dict[str, Any] = {}
    for each in settings:
        for name, value in each.items():
            inner = found.get(name)
            nested = isinstance(value, dict) and isinstance(inner, dict)
            found[name] = _merged(inner or {}, value) if nested else value
    return found
