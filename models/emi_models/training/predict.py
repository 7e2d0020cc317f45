"""Predictions for every clip of a split, rated or not, and their file in the challenge's own format.

The file has Hume-Vidmimic2's own header, one line a clip in the order of its split, values in [0, 1]. The
challenge scores such files on its test split, whose ratings it does not give away. Other targets than the six
emotions have a column `id` and one of their own name each, with values in their own units.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from emi_models import MODALITIES
from emi_models.checkpoint import load_checkpoint
from emi_models.data.batches import LEAST_CLIPS, rated_part
from emi_models.data.clip import OFFICIAL_HEADER, SPLITS, WINDOW_S
from emi_models.device import choose_device
from emi_models.errors import TrainingError
from emi_models.targets import EMI_TARGETS, shown_values, targets_of
from emi_models.training.evaluate import (
    Scores,
    check_fit,
    check_widths,
    clips_seen,
    predict,
    shown_windows,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from emi_models import Modality
    from emi_models.checkpoint import LoadedCheckpoint
    from emi_models.data.clip import ClipSet
    from emi_models.targets import Target

__all__ = ["Predictions", "predict_split"]

DIGITS: Final = 6  # behind the point


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """What networks together say of all clips of one split.

    `values` (N, K) are in the units of `targets`, in their order: the mean of the networks' raw outputs, then
    clipped to their ranges. `absent` counts the clips that lack a modality which a network uses. `scores` are
    over the rated clips of the split, None with fewer than two of them.
    """

    ids: tuple[str, ...]
    values: NDArray[np.float64]
    targets: tuple[Target, ...]
    absent: Mapping[Modality, int]
    scores: Scores | None

    def csv(self) -> str:
        """The file's text: the official header or the targets', ids as in the split, six digits a value."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        official = self.targets == EMI_TARGETS
        writer.writerow(OFFICIAL_HEADER if official else ("id", *(target.name for target in self.targets)))
        for clip_id, row in zip(self.ids, self.values, strict=True):
            writer.writerow([clip_id, *(f"{value:.{DIGITS}f}" for value in row)])
        return text.getvalue()


def predict_split(
    checkpoints: Sequence[Path],
    clips: ClipSet,
    split: str = "test",
    *,
    batch_size: int = 32,
    device: str = "cpu",
    advance: Callable[[int], None] | None = None,
) -> Predictions:
    """What the networks of one or several checkpoints predict for every clip of a split, on average.

    A clip without any feature is predicted too, from what stands in for absent modalities: the challenge
    wants a line for each clip. A prediction depends on its own clip alone.

    Args:
        checkpoints: at least one; all trained on the features that these clips have.
        clips: each is loaded once.
        split: `train`, `valid` or `test`.
        batch_size: clips that are shown together.
        device: cpu, cuda, cuda:N or auto.
        advance: told how many more clips are done.

    Raises:
        CheckpointError: a file is no checkpoint that can be used.
        TrainingError: the split has no clip, a network was trained on other features or another task, or
            there is no such device.
        DataError: a clip cannot be read.
    """
    chosen = choose_device(device)
    ids = clips.ids(split) if split in SPLITS else ()
    if not ids:
        there = ", ".join(f"{len(clips.ids(name))} in {name}" for name in SPLITS)
        raise TrainingError(f"there is no clip in {split!r}; the set has {there}; name another --split")
    loaded, seen = [], []
    for path in checkpoints:
        one, theirs = _loaded(path, clips)
        loaded.append(one)
        seen.append(theirs)
    targets = targets_of(clips)
    for one in loaded:
        one.network.to(chosen)
    absent: Counter[Modality] = Counter()
    used = [m for m in MODALITIES if any(m in one.network.config.modalities for one in loaded)]
    parts = []
    for start in range(0, len(ids), batch_size):
        names = ids[start : start + batch_size]
        batch = [clips.load(clip_id) for clip_id in names]
        raw = []
        for one, theirs in zip(loaded, seen, strict=True):
            spans_s = {m: span for m, span in one.header.spans_s.items() if m in MODALITIES}
            shown = batch if theirs is clips else [theirs.load(clip_id) for clip_id in names]
            raw.append(predict(one.network, shown_windows(one.network, shown, WINDOW_S, spans_s)))
        parts.append(torch.stack(raw).mean(dim=0))
        absent.update(m for clip in batch for m in used if not len(getattr(clip, m).t_ns))
        if advance is not None:
            advance(len(batch))
    values = torch.cat(parts).clamp(0.0, 1.0)
    return Predictions(
        ids=ids,
        values=shown_values(values.numpy(), targets),
        targets=targets,
        absent=dict(absent),
        scores=_scores(clips, split, ids, values),
    )


def _loaded(path: Path, clips: ClipSet) -> tuple[LoadedCheckpoint, ClipSet]:
    """A checkpoint, and the clips as it sees them: by its own encoders, if these were trained with it."""
    loaded = load_checkpoint(path)
    if loaded.header.task != "emi":
        raise TrainingError(
            f"{path} answers {loaded.header.task}, not the six intensities; score it with `emi eval`"
        )
    if loaded.header.targets != targets_of(clips):
        own, opened = (", ".join(t.name for t in each) for each in (loaded.header.targets, targets_of(clips)))
        raise TrainingError(
            f"{path} estimates {own}, and the clips are opened for {opened}; average checkpoints of the same "
            "targets"
        )
    seen = clips_seen(path, loaded.header, clips)
    check_fit(loaded.header, loaded.network, seen)
    check_widths(loaded.network, seen)
    return loaded, seen


def _scores(clips: ClipSet, split: str, ids: Sequence[str], values: torch.Tensor) -> Scores | None:
    rated, truth = rated_part(clips, split)
    if len(rated) < LEAST_CLIPS:
        return None
    place = {clip_id: row for row, clip_id in enumerate(ids)}
    rows = [place[clip_id] for clip_id in rated]
    return Scores.of(values[rows], torch.from_numpy(truth), targets=targets_of(clips))
