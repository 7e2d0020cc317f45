"""All variants trained on one folder of clips, and compared.

The results are `systems.md`, `systems.png` and `systems.json`. Each run's result is kept as soon as it is
there: the same command again does only what is missing.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from itertools import pairwise
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final

from emi_bench.machine import Machine
from emi_bench.render import draw_figures, markdown
from emi_bench.report_file import write_report
from emi_bench.systems.report import (
    Avoidable,
    Expectation,
    LinearProbe,
    Spread,
    SystemsReport,
    TrainingRun,
    VariantRow,
    Verdict,
)
from emi_bench.systems.training import (
    TRAINING,
    VARIANTS,
    TrainingJob,
    kept_result,
    one_thread,
    train_and_evaluate,
)
from emi_live.errors import ConfigurationError
from emi_models import MODALITIES
from emi_models.data import open_clips
from emi_models.data.synth import (
    SMALL_SIZES,
    SynthConfig,
    SynthCorpus,
    SynthError,
    SynthSizes,
    probe,
    write_corpus,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from emi_models import Modality
    from emi_models.data.synth import Pooling

__all__ = [
    "avoidable",
    "compare_systems",
    "corpus_of",
    "expectations",
    "probes_of",
    "rows",
    "write_small_corpus",
]

QUICK_CLIPS: Final = 100
LIBRARIES: Final = ("lightning", "torchmetrics", "numpy")
READINGS: Final[tuple[tuple[Modality, Pooling, str], ...]] = (
    ("text", "mean", "words"),
    ("audio", "mean", "voice, mean of all frames"),
    ("vision", "mean", "face, mean of all frames"),
    ("audio", "marked", "voice, mean of the frames with the clip's topic"),
    ("vision", "marked", "face, mean of the frames with the clip's topic"),
)
LEAST_SEEDS: Final = 3  # for a verdict
ANCHORS: Final = ("taemi", "anchor_audio", "anchor_vision")  # in the order of the papers' results
HALF: Final = 0.5


def write_small_corpus(folder: Path) -> Path:
    """Write a small synthetic corpus into a folder, in a moment; for `--quick`."""
    corpus = SynthCorpus(SynthConfig(clips=QUICK_CLIPS, seed=0, sizes=SMALL_SIZES))
    write_corpus(corpus, folder, lambda _done: None, replace=False)
    return folder


def corpus_of(folder: Path) -> SynthCorpus | None:
    """The corpus that `emi synth` wrote into a folder, made again from its settings; None for other clips.

    Raises:
        ConfigurationError: `truth.json` is damaged, or of another version.
    """
    path = folder / "truth.json"
    if not path.is_file():
        return None
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
        return SynthCorpus(SynthConfig(**{**settings, "sizes": SynthSizes(**settings["sizes"])}))
    except (ValueError, TypeError, KeyError, SynthError) as error:
        raise ConfigurationError(f"{path} cannot be understood: {error}; make the corpus again") from error


def probes_of(corpus: SynthCorpus) -> list[LinearProbe]:
    """What each modality alone gives a linear reader; takes seconds for thousands of clips."""
    return [
        LinearProbe(reads=reads, rho=float(probe(corpus, modality, pooling).mean()))
        for modality, pooling, reads in READINGS
    ]


def compare_systems(
    data: Path,
    out: Path,
    runs: Path,
    *,
    seeds: int,
    epochs: int,
    jobs: int,
    only: Sequence[str] = (),
    report: Callable[[int, int, TrainingRun | None], None],
) -> SystemsReport:
    """Train and evaluate every variant with every seed, write the page, and return the report.

    Args:
        data: a folder of clips.
        out: folder of the page.
        runs: folder where each result is kept.
        seeds: how many, from 0 on.
        epochs: most epochs of a stage.
        jobs: processes, each on one core.
        only: names of variants; none = all.
        report: called with the runs done, all runs, and the latest; first with the number of kept results.

    Raises:
        ConfigurationError: a variant is unknown, a kept result has other settings, or a process was killed.
        EmiError: as training and evaluation raise.
    """
    names = [variant.name for variant in VARIANTS]
    if unknown := sorted(set(only) - set(names)):
        raise ConfigurationError(f"no variant is called {', '.join(unknown)}; there are {', '.join(names)}")
    began = time.perf_counter()
    clips = open_clips(data)  # converts features once, before several processes would
    wanted = [
        TrainingJob(
            variant=name, seed=seed, epochs=epochs, data=data, description=clips.description, runs=runs
        )
        for seed in range(seeds)
        for name in names
        if not only or name in only
    ]
    there = {job: run for job in wanted if (run := kept_result(job)) is not None}
    done = list(there.values())
    report(len(done), len(wanted), None)
    for run in _run_all([job for job in wanted if job not in there], jobs):
        done.append(run)
        report(len(done), len(wanted), run)
    corpus = corpus_of(data)
    table = rows(done)
    comparison = SystemsReport(
        machine=Machine.here(),
        libraries={name: version(name) for name in LIBRARIES},
        data=clips.description,
        synthetic=corpus is not None,
        clips={split: len(clips.ids(split)) for split in ("train", "valid")},
        training={**TRAINING, "max_epochs": epochs},
        seeds=seeds,
        jobs=jobs,
        wall_s=round(time.perf_counter() - began, 1),
        resumed=len(there),
        probes=[] if corpus is None else probes_of(corpus),
        runs=done,
        rows=table,
        expectations=expectations(table),
        avoidable=avoidable(table),
    )
    _write(comparison, out)
    return comparison


def _run_all(todo: Sequence[TrainingJob], jobs: int) -> Iterator[TrainingRun]:
    """Results in order of completion; if a run fails, the started ones finish and the others do not start."""
    if not todo:
        return
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=one_thread)
    try:
        for future in as_completed([pool.submit(train_and_evaluate, job) for job in todo]):
            yield future.result()
    except BrokenProcessPool as error:
        raise ConfigurationError(
            "a training was killed, perhaps because memory ran out; run the same command with fewer --jobs"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _write(comparison: SystemsReport, out: Path) -> None:
    page = comparison.page()
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_report(out / "systems.json", comparison)
        draw_figures(out / "systems.png", [page])
        (out / "systems.md").write_text(markdown([page], "systems.png"), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{out} cannot be written: {error.strerror}; name another --out") from error


def rows(runs: Sequence[TrainingRun]) -> list[VariantRow]:
    """One row for each variant that has runs, in the order of `VARIANTS`."""
    found = []
    for variant in VARIANTS:
        mine = sorted((run for run in runs if run.variant == variant.name), key=lambda run: run.seed)
        if not mine:
            continue
        losses = {m: [run.rho - run.rho_without[m] for run in mine] for m in MODALITIES}
        found.append(
            VariantRow(
                variant=variant,
                seeds=tuple(run.seed for run in mine),
                rhos=tuple(run.rho for run in mine),
                rho=Spread.of([run.rho for run in mine]),
                rhos_without={m: tuple(run.rho_without[m] for run in mine) for m in MODALITIES},
                without={m: Spread.of([run.rho_without[m] for run in mine]) for m in MODALITIES},
                loss={m: Spread.of(losses[m]) for m in MODALITIES},
                total_loss=Spread.of([sum(parts) for parts in zip(*losses.values(), strict=True)]),
                parameters=mine[0].parameters,
                cpu_s=Spread.of([run.cpu_s for run in mine]),
            )
        )
    return found


def expectations(table: Sequence[VariantRow]) -> list[Expectation]:
    """The expectations and verdicts; variants that were not run have none."""
    by_name = {row.variant.name: row for row in table}
    found = []
    if all(name in by_name for name in ANCHORS):
        found += _anchors(by_name)
    if {"taemi", "neither"} <= by_name.keys():
        found += _losses(by_name["taemi"], by_name["neither"])
    return found


def avoidable(table: Sequence[VariantRow]) -> list[Avoidable]:
    """What each TAEMI loses beyond the references; empty unless these ran with the same seeds."""
    references = {m: row for m in MODALITIES for row in table if row.variant.name == f"never_{m}"}
    if len(references) < len(MODALITIES):
        return []
    found = []
    for row in table:
        same = all(reference.seeds == row.seeds for reference in references.values())
        if row.variant.system != "taemi" or row.variant.kind == "reference" or not same:
            continue
        losses = {
            m: [x - y for x, y in zip(references[m].rhos, row.rhos_without[m], strict=True)]
            for m in MODALITIES
        }
        total = Spread.of([sum(parts) for parts in zip(*losses.values(), strict=True)])
        found.append(
            Avoidable(variant=row.variant, loss={m: Spread.of(losses[m]) for m in MODALITIES}, total=total)
        )
    return found


def _anchors(by_name: Mapping[str, VariantRow]) -> list[Expectation]:
    found = []
    for better, worse in pairwise(ANCHORS):
        a, b = by_name[better], by_name[worse]
        ahead = Spread.of([x - y for x, y in zip(a.rhos, b.rhos, strict=True)])
        found.append(
            Expectation(
                expected=f"{a.variant.label} ≥ {b.variant.label}",
                found=f"rho {a.rho} against {b.rho}; seed by seed it is ahead by {ahead}",
                verdict=_verdict(ahead, len(a.seeds)),
            )
        )
    return found


def _losses(kept: VariantRow, bare: VariantRow) -> list[Expectation]:
    found = []
    parts = {f"without {m}": (kept.loss[m], bare.loss[m]) for m in reversed(MODALITIES)}
    for name, (mine, theirs) in (parts | {"sum of the three": (kept.total_loss, bare.total_loss)}).items():
        share = f"{mine.mean / theirs.mean:.2f} of it" if theirs.mean > 0 else "no share: it loses nothing"
        said: Verdict = "yes" if mine.mean < HALF * theirs.mean else "no"
        found.append(
            Expectation(
                expected=f"{name}, tokens and dropout lose less than half of what TAEMI with neither loses",
                found=f"{mine} against {theirs}: {share}",
                verdict=said if len(kept.seeds) >= LEAST_SEEDS else "too few seeds",
            )
        )
    return found


def _verdict(ahead: Spread, seeds: int) -> Verdict:
    """Whether one variant is better than another; within the spread of seeds they cannot be told apart."""
    if seeds < LEAST_SEEDS:
        return "too few seeds"
    if abs(ahead.mean) <= ahead.sd:
        return "cannot be told apart"
    return "yes" if ahead.mean > 0 else "no"
