"""The clips to train on and the clips to validate on, for sets with and without a valid split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models import EMOTIONS
from emi_models.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from emi_models import Modality
    from emi_models.data.clip import Clip, ClipSet
    from emi_models.inputs import FusionShapes
    from emi_models.networks.config import Task

    Part = tuple[tuple[str, ...], NDArray[np.float32]]  # ids and their ratings

__all__ = ["LEAST_CLIPS", "RatedClips", "check_task", "rated_clips", "rated_part"]

LEAST_CLIPS: Final = 2  # of a split: one clip has no correlation


class RatedClips:
    """A set without its unrated clips, and with a `valid` split in any case; a `ClipSet`.

    Features and descriptions are the set's own. `validation` says in one line where the valid clips are from.
    """

    def __init__(self, clips: ClipSet, train: Part, valid: Part, validation: str, *, drawn: bool) -> None:
        self.clips = clips
        self.validation = validation
        self.drawn = drawn  # from train
        self._parts = {"train": train, "valid": valid}

    @property
    def shapes(self) -> FusionShapes:
        """The set's own."""
        return self.clips.shapes

    @property
    def encoders(self) -> Mapping[Modality, str]:
        """The set's own."""
        return self.clips.encoders

    @property
    def description(self) -> str:
        """The set's own."""
        return self.clips.description

    @property
    def licence(self) -> str:
        """The set's own."""
        return self.clips.licence

    def ids(self, split: str) -> tuple[str, ...]:
        """The rated clips of `train` or `valid`; there are no others."""
        return self._parts[split][0] if split in self._parts else ()

    def targets(self, split: str) -> NDArray[np.float32]:
        """Their ratings, (N, 6) or as wide as the set's."""
        return self._parts[split][1]

    def load(self, clip_id: str) -> Clip:
        """One clip of the set."""
        return self.clips.load(clip_id)


def check_task(task: Task, targets: NDArray[np.float32]) -> None:
    """Return if clips are rated for this task: six intensities, or one answer.

    Raises:
        TrainingError: they are rated for another.
    """
    wanted = len(EMOTIONS) if task == "emi" else 1
    if targets.shape[1] != wanted:
        raise TrainingError(
            f"the network's task is {task}, which has {wanted} ratings a clip, and these clips have "
            f"{targets.shape[1]}; set network.task to that of the clips"
        )


def rated_part(clips: ClipSet, split: str) -> Part:
    """The clips of a split that are rated, with their ratings; empty if there are none."""
    ids = clips.ids(split)
    if not ids:
        return (), np.zeros((0, 0), np.float32)
    targets = clips.targets(split)
    rows = np.flatnonzero(np.isfinite(targets).all(axis=1))
    return tuple(ids[row] for row in rows), targets[rows]


def rated_clips(clips: ClipSet, held_out: float, seed: int) -> RatedClips:
    """What trains and what validates: the set's own splits, or if it has no valid one, a share of train.

    Clips are drawn one by one, not by person: the same person may be in both parts, which raises the
    score. The draw depends on the ids' order and the seed alone.

    Args:
        clips: the set.
        held_out: the share that is drawn, in (0, 1); two clips at least.
        seed: of the draw.

    Raises:
        TrainingError: too few clips are rated.
    """
    train, valid = rated_part(clips, "train"), rated_part(clips, "valid")
    drawn = not clips.ids("valid")
    if not drawn:
        note = f"the set's own valid split, {len(valid[0])} rated clips"
    else:
        count = max(LEAST_CLIPS, round(held_out * len(train[0])))
        order = np.random.default_rng(seed).permutation(len(train[0]))
        parts = [np.sort(order[count:]), np.sort(order[:count])]
        (train, valid), whole = [(tuple(train[0][i] for i in part), train[1][part]) for part in parts], train
        note = (
            f"{len(valid[0])} of {len(whole[0])} train clips, drawn with seed {seed}; people may be in both"
        )
    for name, part in (("train", train), ("validate", valid)):
        if len(part[0]) < LEAST_CLIPS:
            raise TrainingError(
                f"{len(part[0])} rated clips to {name} on, at least {LEAST_CLIPS} are needed "
                f"(train has {len(clips.ids('train'))} clips, valid {len(clips.ids('valid'))}); give clips "
                "with ratings"
            )
    return RatedClips(clips, train, valid, note, drawn=drawn)
