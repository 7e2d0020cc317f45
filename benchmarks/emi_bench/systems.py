"""`emi bench systems`: every variant trained on one folder of clips, evaluated, and compared.

Variants are the four systems, TAEMI with one of its parts changed, and references for what must be lost. The
networks are small because the corpus' features are: widths, and the settings of `TRAINING`, are ours; all
else is as in the papers (each system's defaults and recipe). Every variant has the same training settings.

The results are `systems.md`, `systems.png` and `systems.json`. Each run's result is kept as soon as it is
there: the same command again does only what is missing.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import torch

from emi_bench.measurement import Machine
from emi_bench.render import draw_figures, markdown
from emi_bench.report import from_json, to_json, write_report
from emi_bench.systems_report import (
    Avoidable,
    Expectation,
    LinearProbe,
    Spread,
    SystemsReport,
    TrainingRun,
    Variant,
    VariantKind,
    VariantRow,
    Verdict,
)
from emi_live.errors import ConfigurationError
from emi_models import MODALITIES
from emi_models.checkpoint import load_checkpoint
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
from emi_models.files import replacing
from emi_models.processes import worker_processes
from emi_models.training.config import TrainConfig
from emi_models.training.evaluate import evaluate
from emi_models.training.fit import fit

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from emi_models import Modality
    from emi_models.data.clip import ClipSet
    from emi_models.data.synth import Pooling

__all__ = [
    "TRAINING",
    "VARIANTS",
    "TrainingJob",
    "avoidable",
    "compare_systems",
    "corpus_of",
    "expectations",
    "kept_result",
    "one_thread",
    "probes_of",
    "rows",
    "train_and_evaluate",
    "variant",
    "write_small_corpus",
]

# The same for all stages of all systems: most epochs of a stage, and most epochs without a better one.
TRAINING: Final[Mapping[str, int | float]] = {
    "max_epochs": 12,
    "patience": 5,
    "batch_size": 32,
    "learning_rate": 1e-3,
}
_TAEMI: Final = {"d_model": 32, "heads": 4, "mlp_hidden": 64}
_TWO_STAGE: Final = {"hidden": 64, "fusion_hidden": 64}
_DUAL_STAGE: Final = {"shared": 32, "d_model": 32}
_SEMANTIC_MATTERS: Final = {"audio_hidden": 32, "vision_hidden": 32, "fusion_hidden": 64}
QUICK_CLIPS: Final = 100
RATERS: Final = "raters.csv"
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


def _taemi(name: str, label: str, kind: VariantKind = "ablation", **network: object) -> Variant:
    return Variant(name=name, label=label, kind=kind, system="taemi", network=_TAEMI | network)


VARIANTS: Final[tuple[Variant, ...]] = (
    _taemi("taemi", "TAEMI: text anchor, tokens, dropout", "system"),
    Variant(name="two_stage", label="two-stage", kind="system", system="two_stage", network=_TWO_STAGE),
    Variant(name="dual_stage", label="dual-stage", kind="system", system="dual_stage", network=_DUAL_STAGE),
    Variant(
        name="semantic_matters",
        label="Semantic Matters",
        kind="system",
        system="semantic_matters",
        network=_SEMANTIC_MATTERS,
    ),
    Variant(
        name="semantic_multitask",
        label="Semantic Matters, multi-task",
        kind="system",
        system="semantic_matters",
        network=_SEMANTIC_MATTERS | {"fusion": "multitask"},
    ),
    _taemi("anchor_audio", "TAEMI, audio anchor", anchor="audio"),
    _taemi("anchor_vision", "TAEMI, vision anchor", anchor="vision"),
    _taemi("self_attention", "TAEMI, self-attention only", attention="self"),
    _taemi("concatenation", "TAEMI, plain concatenation", attention="none"),
    _taemi("no_tokens", "TAEMI, zeros for tokens", missing="zero"),
    _taemi("no_dropout", "TAEMI, no modality dropout", modality_dropout=0.0),
    _taemi("neither", "TAEMI, neither", missing="zero", modality_dropout=0.0),
    _taemi("gated", "TAEMI, gate times intensity", "beyond", gated=True),
    _taemi("divergence", "TAEMI, divergence of voice and face", "beyond", divergence=True),
    replace(
        _taemi("correlation", "TAEMI, squared error and 1 - Pearson", "beyond"),
        training={"loss": "correlation"},
    ),
    replace(_taemi("raters", "TAEMI, clips count by √raters", "beyond"), raters=True),
    _taemi("never_text", "TAEMI, trained without text", "reference", modalities=("vision", "audio")),
    _taemi("never_audio", "TAEMI, trained without audio", "reference", modalities=("vision", "text")),
    _taemi("never_vision", "TAEMI, trained without vision", "reference", modalities=("audio", "text")),
)


def variant(name: str) -> Variant:
    """The variant of that name; it must exist."""
    return next(variant for variant in VARIANTS if variant.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """One variant with one seed, on the clips of a folder; results are kept in `runs`."""

    variant: str
    seed: int
    epochs: int
    data: Path
    description: str  # the clips'
    runs: Path

    @property
    def folder(self) -> Path:
        """Folder of the training's curves and checkpoint."""
        return self.runs / f"{self.variant}-{self.seed}"

    @property
    def path(self) -> Path:
        """File of the result."""
        return self.runs / f"{self.variant}-{self.seed}.json"

    @property
    def settings(self) -> dict[str, Any]:
        """All that the result depends on, except the code; a kept result must have the same."""
        chosen = variant(self.variant)
        training = {**TRAINING, **chosen.training, "max_epochs": self.epochs, "seed": self.seed}
        network = {key: list(v) if isinstance(v, tuple) else v for key, v in chosen.network.items()}
        found = {"system": chosen.system, "network": network, "training": training, "data": self.description}
        return found | ({"raters": True} if chosen.raters else {})


def one_thread() -> None:
    """Limit this process to one core, because several share the machine."""
    torch.set_num_threads(1)


def kept_result(job: TrainingJob) -> TrainingRun | None:
    """The kept result of a job; None if there is none.

    Raises:
        ConfigurationError: the file has other settings, or is not a result.
    """
    if not job.path.is_file():
        return None
    try:
        run: TrainingRun = from_json(TrainingRun, json.loads(job.path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ConfigurationError(f"{job.path} is not a result of a run: {error}; remove it") from error
    if run.settings != job.settings:
        raise ConfigurationError(
            f"{job.path} has other settings ({_difference(run.settings, job.settings)}); remove it, or "
            "name another folder with --runs"
        )
    return run


def train_and_evaluate(job: TrainingJob) -> TrainingRun:
    """Train, evaluate, and keep the result.

    Raises:
        EmiError: as `fit` and `evaluate` raise.
    """
    clips, settings = _clips(job.data), job.settings
    # On the CPU, and from the start even after an interruption, so that the time is that of a whole training.
    config = TrainConfig.model_validate(
        {
            "training": settings["training"] | {"device": "cpu", "recipe": "paper"},
            "network": settings["network"],
            "data": {"raters": job.data / RATERS} if variant(job.variant).raters else {},
        }
    )
    wall, cpu = time.perf_counter(), time.process_time()
    fitted = fit(settings["system"], clips, job.folder, config, force=True)
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    network = load_checkpoint(fitted.checkpoint).network
    found = evaluate(network, clips, "valid", prefixes=(), system=settings["system"])
    whole = found.whole.mean_pearson
    run = TrainingRun(
        variant=job.variant,
        seed=job.seed,
        settings=settings,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        epochs={stage.name: len(stage.history) for stage in fitted.stages},
        wall_s=round(wall_s, 1),
        cpu_s=round(cpu_s, 1),
        n=found.n,
        rho=whole,
        rho_each=found.whole.pearson,
        # A modality that the network does not use is missing in any case.
        rho_without={m: found.without[m].mean_pearson if m in found.without else whole for m in MODALITIES},
        rho_alone={m: found.alone[m].mean_pearson for m in MODALITIES if m in found.alone},
    )
    with replacing(job.path) as part:
        part.write_text(json.dumps(to_json(run), indent=1) + "\n", encoding="utf-8")
    return run


@lru_cache(maxsize=1)
def _clips(folder: Path) -> ClipSet:
    """Opened once in each process, because it takes seconds."""
    return open_clips(folder)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            return f"{key} {old.get(key)!r}, not {new.get(key)!r}"
    return "the same"


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
        only: names of variants; none = all, but for those that need raters if the folder does not tell them.
        report: called with the runs done, all runs, and the latest; first with the number of kept results.

    Raises:
        ConfigurationError: a variant is unknown, a kept result has other settings, or a process was killed.
        EmiError: as training and evaluation raise.
    """
    rated = (data / RATERS).is_file()
    names = [variant.name for variant in VARIANTS if rated or not variant.raters]
    if not rated and any(name in only for name in (v.name for v in VARIANTS if v.raters)):
        raise ConfigurationError(
            f"{data} has no {RATERS}, which says how many people rated each clip; `emi synth --raters` "
            "writes it"
        )
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
    with closing(_run_all([job for job in wanted if job not in there], jobs)) as runs_made:
        for run in runs_made:  # an interrupt may come in here, too
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


def _run_all(todo: Sequence[TrainingJob], jobs: int) -> Generator[TrainingRun, None, None]:
    """Results in order of completion; if a run fails, the started ones finish and the others do not start."""
    if not todo:
        return
    try:
        with worker_processes(jobs, one_thread) as workers:
            for future in as_completed([workers.submit(train_and_evaluate, job) for job in todo]):
                yield future.result()
    except BrokenProcessPool as error:
        raise ConfigurationError(
            "a training was killed, perhaps because memory ran out; run the same command with fewer --jobs"
        ) from error


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
