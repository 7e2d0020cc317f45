"""Which system is best, and what is each part of TAEMI for? All of them trained on one folder of clips.

One page comes of it, `systems.md`, with `systems.png` and, for machines, `systems.json` beside it. A run's
result is kept as soon as there is one: the same command again does what is not done yet.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Final

from emi_bench.machine import Machine
from emi_bench.systems_page import page
from emi_bench.systems_plot import draw_systems
from emi_bench.systems_probes import Probe, corpus_of, probes_of
from emi_bench.systems_run import Job, Run, finished, one_thread, run_job
from emi_bench.systems_summary import Avoidable, Expectation, Row, avoidable, expectations, rows
from emi_bench.systems_variants import TRAINING, VARIANTS
from emi_live.errors import ConfigurationError
from emi_models.data import open_clips

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

__all__ = ["Comparison", "compare_systems"]

LIBRARIES: Final = ("lightning", "torchmetrics", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All that was run and what came of it."""

    machine: Machine
    libraries: dict[str, str]  # those that train, and their versions
    data: str
    synthetic: bool
    clips: dict[str, int]  # by split
    training: dict[str, int | float]
    seeds: int
    jobs: int
    wall_s: float  # of this call; less than all runs took where some had been done before
    resumed: int  # runs that had been
    probes: list[Probe]
    runs: list[Run]
    rows: list[Row]
    expectations: list[Expectation]
    avoidable: list[Avoidable]

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def compare_systems(
    data: Path,
    out: Path,
    runs: Path,
    *,
    seeds: int,
    epochs: int,
    jobs: int,
    only: Sequence[str] = (),
    report: Callable[[int, int, Run | None], None],
) -> Comparison:
    """Train and evaluate every variant with every seed, write the page, and give what is on it.

    Args:
        data: a folder of clips.
        out: where the page goes.
        runs: where each result is kept.
        seeds: how many, from 0 on.
        epochs: at most so many a stage.
        jobs: processes, each on one core.
        only: names of variants; none = all.
        report: told how many runs are done, of how many, and the latest; first with what is done already.

    Raises:
        ConfigurationError: a variant is unknown, a result is of other settings, or a process was killed.
        EmiError: as training and evaluation raise.
    """
    names = [variant.name for variant in VARIANTS]
    if unknown := sorted(set(only) - set(names)):
        raise ConfigurationError(f"no variant is called {', '.join(unknown)}; there are {', '.join(names)}")
    began = time.perf_counter()
    clips = open_clips(data)  # converts features once, before several processes would
    wanted = [
        Job(variant=name, seed=seed, epochs=epochs, data=data, description=clips.description, runs=runs)
        for seed in range(seeds)
        for name in names
        if not only or name in only
    ]
    there = {job: run for job in wanted if (run := finished(job)) is not None}
    done = list(there.values())
    report(len(done), len(wanted), None)
    for run in _run_all([job for job in wanted if job not in there], jobs):
        done.append(run)
        report(len(done), len(wanted), run)
    corpus = corpus_of(data)
    table = rows(done)
    comparison = Comparison(
        machine=Machine(),
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


def _run_all(todo: Sequence[Job], jobs: int) -> Iterator[Run]:
    """Results as they come; what was begun is finished first if one fails, and the rest is left undone."""
    if not todo:
        return
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=one_thread)
    try:
        for future in as_completed([pool.submit(run_job, job) for job in todo]):
            yield future.result()
    except BrokenProcessPool as error:
        raise ConfigurationError(
            "a training was killed, perhaps for want of memory; the same command goes on, with fewer --jobs"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _write(comparison: Comparison, out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        story = json.dumps(comparison.to_json(), indent=1) + "\n"
        (out / "systems.json").write_text(story, encoding="utf-8")
        (out / "systems.md").write_text(page(comparison), encoding="utf-8")
        draw_systems(out / "systems.png", comparison.rows, comparison.data)
    except OSError as error:
        raise ConfigurationError(f"{out} cannot be written: {error.strerror}; name another --out") from error
