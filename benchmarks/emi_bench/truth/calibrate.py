"""Makes the 90 % intervals of a checkpoint from rated files, and tests them on other ones.

A rating column takes part if its numbers are shares in [0, 1] of the same emotion; classes such as arousal
say nothing of an intensity's scale and are left out.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_bench.calibration_report import CalibrationReport, CalibrationRow
from emi_bench.measurement import Machine, load_average
from emi_bench.truth.measure import predict, subsets_of
from emi_engine.load import load_engine
from emi_live.errors import ConfigurationError
from emi_models import EMOTIONS, MODALITIES
from emi_models.calibration import LEVEL, NONE, Calibration, IntervalTable, fit_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from emi_bench.truth.features import Features
    from emi_bench.truth.ratings import Pair, RatedItem, Ratings
    from emi_models import Modality

__all__ = ["RatedSet", "calibrate"]

SHOWN: Final = 0.5  # ratings from which on an emotion clearly shows
CLASSES: Final = ("arousal", "valence")  # columns on another scale than an intensity


@dataclass(frozen=True, slots=True, eq=False)
class RatedSet:
    """One file of ratings with its features."""

    ratings: Ratings
    pairs: Sequence[Pair]
    features: Features


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """Estimates and ratings (n,) of one emotion with one set of modalities; `half` is True to calibrate."""

    estimates: NDArray[np.float64]
    ratings: NDArray[np.float64]
    half: NDArray[np.bool_]


def calibrate(
    checkpoint: Path,
    sets: Sequence[RatedSet],
    encoders: Mapping[Modality, str],
    show: Callable[[str, int, int], None],
) -> tuple[Calibration, CalibrationReport]:
    """The calibration of a checkpoint, and its test on the other half of the files.

    Raises:
        ConfigurationError: too few files are rated on the scale of an intensity.
        CheckpointError, EngineError: the checkpoint cannot run, or is one for other encoders.
    """
    busy = load_average()
    samples: dict[tuple[str, str], list[_Sample]] = defaultdict(list)
    with load_engine(
        checkpoint, expect_encoders={str(name): encoder for name, encoder in encoders.items()}
    ) as engine:
        for rated in sets:
            items = rated.ratings.items
            half = _halves(items)
            for subset in subsets_of(rated.features.clips, engine.modalities):
                found = predict(engine, rated.features, subset, show)
                for pair in rated.pairs:
                    sample = _sample(found.places, found.means, pair, items, half)
                    if sample is not None:
                        samples["+".join(subset), pair.emotion].append(sample)
    joined = {key: _joined(parts) for key, parts in samples.items()}
    tables = _tables(joined)
    if not tables:
        raise ConfigurationError(
            "too few files are rated on the scale of an intensity; give 100 or more with shares in [0, 1]"
        )
    calibration = Calibration(tables)
    order: dict[str, int] = {modality: place for place, modality in enumerate(MODALITIES)}
    rows = [
        _tested(name, emotion, joined[name, emotion], calibration)
        for name, emotion in sorted(
            joined, key=lambda key: (len(key[0].split("+")), order[key[0].split("+")[0]], key[1])
        )
        if emotion in tables.get(name, {})
    ]
    report = CalibrationReport(
        machine=Machine.here(),
        load_before=busy,
        checkpoint=checkpoint.name,
        ratings=[str(rated.ratings.path.parent.name + "/" + rated.ratings.path.name) for rated in sets],
        rows=rows,
    )
    return calibration, report


def _tables(joined: Mapping[tuple[str, str], _Sample]) -> dict[str, dict[str, IntervalTable]]:
    """The tables by set of modalities and emotion; without any modality the widest range of all of them."""
    tables: dict[str, dict[str, IntervalTable]] = defaultdict(dict)
    for (name, emotion), sample in joined.items():
        if table := fit_table(sample.estimates[sample.half], sample.ratings[sample.half]):
            tables[name][emotion] = table
    nothing = {}
    for emotion in EMOTIONS:
        known = [rows[emotion] for rows in tables.values() if emotion in rows]
        if known:
            below = max(width for table in known for width in table.below)
            above = max(width for table in known for width in table.above)
            nothing[emotion] = IntervalTable((), (below,), (above,), sum(table.n for table in known))
    return {**tables, NONE: nothing} if nothing else {}


def _halves(items: Sequence[RatedItem]) -> NDArray[np.bool_]:
    """Which items calibrate (n,): half of the speakers, or of the items of those that name none."""
    names = [item.speaker or f"\0{place}" for place, item in enumerate(items)]
    known = sorted(set(names))
    chosen = set(np.random.default_rng(0).permutation(known)[: len(known) // 2])
    return np.array([name in chosen for name in names])


def _sample(
    places: NDArray[np.intp],
    means: NDArray[np.float64],
    pair: Pair,
    items: Sequence[RatedItem],
    half: NDArray[np.bool_],
) -> _Sample | None:
    rated = np.array([pair.column in items[place].ratings for place in places], np.bool_)
    ratings = np.array([items[place].ratings[pair.column] for place in places[rated]])
    if pair.column in CLASSES or not len(ratings) or ratings.min() < 0 or ratings.max() > 1:
        return None
    return _Sample(means[rated, EMOTIONS.index(pair.emotion)], ratings, half[places[rated]])


def _joined(parts: Sequence[_Sample]) -> _Sample:
    return _Sample(
        np.concatenate([part.estimates for part in parts]),
        np.concatenate([part.ratings for part in parts]),
        np.concatenate([part.half for part in parts]),
    )


def _tested(name: str, emotion: str, sample: _Sample, calibration: Calibration) -> CalibrationRow:
    """Coverage and widths on the half that did not calibrate."""
    table = calibration.tables[name][emotion]
    fitted, tested = sample.half, ~sample.half
    errors = np.abs(sample.ratings[fitted] - sample.estimates[fitted])
    constant = float(np.quantile(errors, LEVEL, method="higher"))
    nothing = calibration.tables[NONE][emotion]
    estimates, ratings = sample.estimates[tested], sample.ratings[tested]
    low, high = _bounds(estimates, table)
    low_constant, high_constant = np.maximum(0.0, estimates - constant), np.minimum(1.0, estimates + constant)
    shown = ratings >= SHOWN
    return CalibrationRow(
        modality=name.replace("+", " + "),
        emotion=emotion,
        calibrated=table.n,
        tested=len(ratings),
        coverage=float(((ratings >= low) & (ratings <= high)).mean()),
        width=float((high - low).mean()),
        constant=float((high_constant - low_constant).mean()),
        coverage_shown=float((ratings <= high)[shown].mean()) if shown.any() else None,
        coverage_shown_constant=float((ratings <= high_constant)[shown].mean()) if shown.any() else None,
        nothing=float(np.subtract(*reversed(_bounds(estimates, nothing))).mean()),
    )


def _bounds(
    estimates: NDArray[np.float64], table: IntervalTable
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper ends (n,), within [0, 1]."""
    below, above = np.array([table.widths(float(estimate)) for estimate in estimates]).T
    return np.maximum(0.0, estimates - below), np.minimum(1.0, estimates + above)
