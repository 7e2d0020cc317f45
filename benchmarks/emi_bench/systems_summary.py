"""From runs to rows, and from rows to what was expected and whether it came."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Final, Literal

from emi_bench.systems_variants import VARIANTS
from emi_models.vocabulary import MODALITIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from emi_bench.systems_run import Run
    from emi_bench.systems_variants import Variant
    from emi_models.vocabulary import Modality

__all__ = [
    "ANCHORS",
    "LEAST_SEEDS",
    "Avoidable",
    "Expectation",
    "Row",
    "Spread",
    "Verdict",
    "avoidable",
    "expectations",
    "rows",
]

LEAST_SEEDS: Final = 3  # on which a claim may rest
ANCHORS: Final = ("taemi", "anchor_audio", "anchor_vision")  # in the order that the papers found
HALF: Final = 0.5

Verdict = Literal["yes", "no", "cannot be told apart", "too few seeds"]


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over seeds, and the standard deviation between them (0 for one seed)."""

    mean: float
    sd: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """That of one value a seed."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else 0.0)

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.sd:.3f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A variant over its seeds. `loss` of a modality: rho with all, less rho without it, seed by seed."""

    variant: Variant
    seeds: tuple[int, ...]
    rhos: tuple[float, ...]  # in the order of `seeds`
    rho: Spread
    rhos_without: Mapping[Modality, tuple[float, ...]]
    without: Mapping[Modality, Spread]
    loss: Mapping[Modality, Spread]
    total_loss: Spread  # the sum of the three
    parameters: int
    cpu_s: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Avoidable:
    """What TAEMI trained without a modality has more than a variant has when it is missing, seed by seed."""

    variant: Variant
    loss: Mapping[Modality, Spread]
    total: Spread  # the sum of the three


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What was expected before anything was run, what was found, and what that says of it."""

    expected: str
    found: str
    verdict: Verdict


def rows(runs: Sequence[Run]) -> list[Row]:
    """One row for each variant that has runs, in the order of `VARIANTS`."""
    found = []
    for variant in VARIANTS:
        mine = sorted((run for run in runs if run.variant == variant.name), key=lambda run: run.seed)
        if not mine:
            continue
        losses = {m: [run.rho - run.rho_without[m] for run in mine] for m in MODALITIES}
        found.append(
            Row(
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


def expectations(table: Sequence[Row]) -> list[Expectation]:
    """What the comparison was made to find out; nothing is said of variants that were not run."""
    by_name = {row.variant.name: row for row in table}
    found = []
    if all(name in by_name for name in ANCHORS):
        found += _anchors(by_name)
    if {"taemi", "neither"} <= by_name.keys():
        found += _losses(by_name["taemi"], by_name["neither"])
    return found


def avoidable(table: Sequence[Row]) -> list[Avoidable]:
    """What each TAEMI loses beyond what must be lost; empty unless the references ran on the same seeds."""
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


def _anchors(by_name: Mapping[str, Row]) -> list[Expectation]:
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


def _losses(kept: Row, bare: Row) -> list[Expectation]:
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
    """Whether one variant is better than another; they are not told apart within the spread of seeds."""
    if seeds < LEAST_SEEDS:
        return "too few seeds"
    if abs(ahead.mean) <= ahead.sd:
        return "cannot be told apart"
    return "yes" if ahead.mean > 0 else "no"
