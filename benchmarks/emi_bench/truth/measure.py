"""Runs a checkpoint over rated files, and compares what it says with the ratings and with simple baselines.

Each modality is measured alone, the others missing, and all that a file has together. The score of a file is
the mean of its estimates, one a hop, from the first frame of the modality on. A window in which live use
would not show the voice to the network (less than 0.9 s of it, or none for a second) is left out, unless a
file has no other. Words that the ratings give are taken as known from the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_bench.measurement import Machine, load_average
from emi_bench.truth.ratings import high_ratings
from emi_bench.truth.scores import Folds, agreement, best_column, ridge
from emi_bench.truth_report import GroupRow, GroupShare, Problem, TruthReport, TruthRow
from emi_engine.load import load_engine
from emi_live.errors import ConfigurationError
from emi_models import EMOTIONS, MODALITIES
from emi_models.encoders.face import BLENDSHAPES, FACE_DIM, FACE_FEATURES
from emi_models.encoders.prosody import ENERGY, PROSODY_DIM
from emi_models.inputs import FusionInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from emi_bench.truth.features import Features
    from emi_bench.truth.ratings import Pair, RatedItem, Ratings
    from emi_engine import FusionEngine
    from emi_models import Modality
    from emi_models.data.clip import Clip

__all__ = ["Predictions", "measure_truth", "predict", "subsets_of"]

NS_PER_S: Final = 1_000_000_000
HOP_S: Final = 0.2
BATCH: Final = 64
LEAST_FILES: Final = 20  # rated files of a modality, below which no baseline is fitted
LEAST_OF_A_GROUP: Final = 10

Subset = tuple["Modality", ...]
Show = "Callable[[str, int, int], None]"


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What a checkpoint says of each item with one subset of modalities.

    `places` (n,) are the items that have all of the subset; `means` (n, 6) the mean estimates in [0, 1].
    `unheard` of them were judged although live use would never show their voice to the network.
    """

    subset: Subset
    places: NDArray[np.intp]
    means: NDArray[np.float64]
    unheard: int


def subsets_of(clips: Mapping[int, Clip], trained: Sequence[Modality]) -> list[Subset]:
    """Each modality alone, and each larger combination that a clip has completely, as far as trained."""
    found: set[Subset] = set()
    for clip in clips.values():
        present = tuple(m for m in MODALITIES if m in trained and len(getattr(clip, m).t_ns))
        found |= {(modality,) for modality in present}
        if present:
            found.add(present)
    return sorted(found, key=lambda subset: (len(subset), [MODALITIES.index(m) for m in subset]))


def predict(
    engine: FusionEngine,
    features: Features,
    subset: Subset,
    show: Callable[[str, int, int], None],
) -> Predictions:
    """The mean estimate of each clip that has all of these modalities, with the others missing."""
    clips = features.clips
    places = [p for p, clip in clips.items() if all(len(getattr(clip, m).t_ns) for m in subset)]
    sums = np.zeros((len(places), len(EMOTIONS)))
    counts = np.zeros(len(places))
    waiting: list[FusionInputs] = []
    rows: list[int] = []
    unheard = 0

    def flush() -> None:
        if waiting:
            values = np.clip(engine.infer(FusionInputs.stack(waiting)), 0.0, 1.0)
            np.add.at(sums, rows, values)
            np.add.at(counts, rows, 1)
        waiting.clear()
        rows.clear()

    for row, place in enumerate(places):
        if row % BATCH == 0:
            show(" + ".join(subset), row, len(places))
        ends = hops(clips[place], subset)
        heard = [end_ns for end_ns in ends if "audio" not in subset or features.hears(place, end_ns)]
        unheard += not heard
        for window in windows(engine, clips[place], subset, heard or ends):
            waiting.append(window)
            rows.append(row)
            if len(waiting) == BATCH:
                flush()
    flush()
    return Predictions(subset, np.array(places, np.intp), sums / np.maximum(counts, 1)[:, None], unheard)


def hops(clip: Clip, subset: Subset) -> list[int]:
    """The ends of the clip's windows, one a hop, from the moment on at which all of the subset came."""
    first_ns = max(int(getattr(clip, modality).t_ns[0]) for modality in subset)
    last_ns = max(clip.duration_ns, first_ns)
    hop_ns = round(HOP_S * NS_PER_S)
    return list(range((first_ns // hop_ns + 1) * hop_ns, last_ns + 1, hop_ns)) or [last_ns]


def windows(
    engine: FusionEngine, clip: Clip, subset: Subset, ends_ns: Sequence[int]
) -> Iterator[FusionInputs]:
    """The clip's windows with these ends in which all of the subset is present; the others are missing."""
    absent = [modality for modality in MODALITIES if modality not in subset]
    for end_ns in ends_ns:
        window = clip.window(engine.shapes, end_ns, engine.header.spans_s)  # type: ignore[arg-type]  # modalities
        if all(bool(getattr(window, f"{modality}_present")) for modality in subset):
            yield window.without(*absent)


def measure_truth(
    ratings: Ratings,
    pairs: Sequence[Pair],
    features: Features,
    checkpoint: Path,
    encoders: Mapping[Modality, str],
    speakers: Sequence[str],
    show: Callable[[str, int, int], None],
    baseline: str = "off",
) -> TruthReport:
    """Compare a checkpoint with ratings.

    Args:
        ratings: what people said.
        pairs: which rating is compared with which intensity.
        features: of the items, in their order.
        checkpoint: what is judged.
        encoders: which encoders made the features.
        speakers: score these alone, and fit the baselines on the others; empty: score all, and hold out each
            speaker in turn.
        show: is told what is done, how much of it, and of how much.
        baseline: to what the features are relative already.

    Raises:
        ConfigurationError: a speaker is not there, or no item can be scored.
        CheckpointError, EngineError: the checkpoint cannot run, or is one for other encoders.
    """
    busy = load_average()
    items = ratings.items
    clusters, named = _clusters(items)
    scored = _scored(items, speakers)
    unheard = 0
    rows: list[TruthRow] = []
    groups: list[GroupRow] = []
    with load_engine(
        checkpoint, expect_encoders={str(name): encoder for name, encoder in encoders.items()}
    ) as engine:
        subsets = subsets_of(features.clips, engine.modalities)
        if not subsets:
            raise ConfigurationError(
                f"{ratings.path}: no file shows a face, has a voice or words: nothing can be scored"
                + (f"; {next(iter(features.problems.values()))}" if features.problems else "")
            )
        rest = np.clip(engine.infer(FusionInputs.empty(engine.shapes)), 0.0, 1.0)[0].astype(np.float64)
        for subset in subsets:
            found = predict(engine, features, subset, show)
            if subset == ("audio",):
                unheard = found.unheard
            keep = scored[found.places]
            for pair in pairs:
                show(f"{' + '.join(subset)}: {pair.name}", len(rows), len(subsets) * len(pairs) * 4)
                rows += _rows(found, pair, items, clusters, scored, features.clips)
            groups += _groups(found, keep, pairs, ratings, clusters)
        header = engine.header
        name = engine.name
    return TruthReport(
        machine=Machine.here(),
        load_before=busy,
        ratings=f"{ratings.path.resolve().parent.name}/{ratings.path.name}",
        checkpoint=checkpoint.name,
        engine=name,
        baseline=baseline,
        trained_on=header.data,
        items=len(items),
        scored=int(scored.sum()),
        speakers_named=named,
        held_out_speakers=list(speakers),
        rest={emotion: float(value) for emotion, value in zip(EMOTIONS, rest, strict=True)},
        problems=[Problem(file=items[place].name, reason=why) for place, why in features.problems.items()],
        nothing_seen=[
            items[place].name
            for place, clip in features.clips.items()
            if not any(len(getattr(clip, modality).t_ns) for modality in MODALITIES)
        ],
        ignored=[column for column in ratings.columns if column not in {pair.column for pair in pairs}],
        rows=rows,
        groups=groups,
        unheard=unheard,
    )


def _clusters(items: Sequence[RatedItem]) -> tuple[NDArray[np.intp], bool]:
    """The number of each item's speaker, and whether speakers are named; without a name, each is his own."""
    numbers: dict[str, int] = {}
    found = [
        numbers.setdefault(item.speaker or f"\0{place}", len(numbers)) for place, item in enumerate(items)
    ]
    return np.array(found, np.intp), any(item.speaker for item in items)


def _scored(items: Sequence[RatedItem], speakers: Sequence[str]) -> NDArray[np.bool_]:
    """Which items are scored (n,)."""
    known = {item.speaker for item in items if item.speaker}
    if unknown := [speaker for speaker in speakers if speaker not in known]:
        there = ", ".join(sorted(known)) or "none named"
        raise ConfigurationError(f"--speakers {unknown[0]}: the ratings have no such speaker ({there})")
    return np.array([not speakers or item.speaker in speakers for item in items])


def _rows(
    found: Predictions,
    pair: Pair,
    items: Sequence[RatedItem],
    clusters: NDArray[np.intp],
    scored: NDArray[np.bool_],
    clips: Mapping[int, Clip],
) -> list[TruthRow]:
    """The checkpoint's agreement in one pair, and that of the baselines where one modality is alone."""
    rated = np.array([pair.column in items[place].ratings for place in found.places], np.bool_)
    places = found.places[rated]
    values = np.array([items[place].ratings[pair.column] for place in places])
    scores = found.means[rated, EMOTIONS.index(pair.emotion)]
    keep = scored[places]
    if not keep.any():
        return []
    high = high_ratings(values)
    modality = " + ".join(found.subset)

    def row(by: str, judged: NDArray[np.float64]) -> TruthRow:
        return TruthRow(
            modality=modality,
            pair=pair.name,
            by=by,
            agreement=agreement(judged[keep], values[keep], high[keep], clusters[places][keep]),
        )

    rows = [row("checkpoint", scores)]
    if len(found.subset) > 1 or len(places) < LEAST_FILES:
        return rows
    (only,) = found.subset
    folds = Folds.of(clusters[places], keep)
    if len(np.unique(folds.fold)) < 2:  # one speaker: nothing is left to learn from
        return rows
    frames = [getattr(clips[place], only).values for place in places]
    for name, judged in _baselines(only, frames, values, folds).items():
        if np.isfinite(judged[keep]).all():
            rows.append(row(name, judged))
    return rows


def _baselines(
    modality: Modality, frames: Sequence[NDArray[np.float32]], values: NDArray[np.float64], folds: Folds
) -> dict[str, NDArray[np.float64]]:
    """Scores (n,) of simple rules on the same features, each file by what other speakers' files teach."""
    means = np.stack([each.mean(axis=0) for each in frames]).astype(np.float64)
    width = means.shape[1]
    found: dict[str, NDArray[np.float64]] = {}
    if modality == "vision" and width == FACE_DIM:
        chosen: list[int] = []

        def one(
            x: NDArray[np.float64], y: NDArray[np.float64]
        ) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
            column, sign = best_column(x[:, :BLENDSHAPES], y)
            chosen.append(column)
            return lambda other: sign * other[:, column]

        scores = folds.predict(means, values, one)
        found[f"blendshape {FACE_FEATURES[max(chosen, key=chosen.count)]}"] = scores
    if modality == "audio" and width == PROSODY_DIM:
        found["loudness"] = means[:, ENERGY]
    spreads = np.stack([each.std(axis=0) for each in frames]).astype(np.float64)
    table = means if modality == "text" else np.hstack([means, spreads])
    found["ridge"] = folds.predict(table, values, ridge)
    return found


def _groups(
    found: Predictions,
    keep: NDArray[np.bool_],
    pairs: Sequence[Pair],
    ratings: Ratings,
    clusters: NDArray[np.intp],
) -> list[GroupRow]:
    """Mean estimates, and the agreement, of each value of each column of groups."""
    rows = []
    for column in ratings.groups:
        values = np.array([ratings.items[place].groups.get(column, "") for place in found.places])
        for value in sorted(set(values[keep]) - {""}):
            member = keep & (values == value)
            if member.sum() < LEAST_OF_A_GROUP:
                continue
            rows.append(
                GroupRow(
                    modality=" + ".join(found.subset),
                    column=column,
                    value=value,
                    n=int(member.sum()),
                    means=dict(zip(EMOTIONS, found.means[member].mean(axis=0).tolist(), strict=True)),
                    shares=_shares(found, member, pairs, ratings.items, clusters),
                )
            )
    return rows


def _shares(
    found: Predictions,
    member: NDArray[np.bool_],
    pairs: Sequence[Pair],
    items: Sequence[RatedItem],
    clusters: NDArray[np.intp],
) -> list[GroupShare]:
    """The agreement of one group in each pair; those without any spread of ratings are left out."""
    shares = []
    for pair in pairs:
        places, means = found.places[member], found.means[member, EMOTIONS.index(pair.emotion)]
        rated = np.array([pair.column in items[place].ratings for place in places], np.bool_)
        values = np.array([items[place].ratings[pair.column] for place in places[rated]])
        if len(values) < LEAST_OF_A_GROUP or np.ptp(values) == 0:
            continue
        shares.append(
            GroupShare(
                pair=pair.name,
                agreement=agreement(means[rated], values, high_ratings(values), clusters[places[rated]]),
            )
        )
    return shares
