"""Clips for training: which ones, as windows, in batches of similar length.

No global random generator is used: a sample depends only on seed, epoch and index. So a resumed training, or
one with more reading processes, sees the same samples.

`rated_clips` gives the clips to train on and to validate on, for sets with and without a valid split.
`BucketedBatches` gives the order of an epoch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from emi_models import MODALITIES
from emi_models.data.clip import WINDOW_S, Clip
from emi_models.errors import DataError, TrainingError
from emi_models.inputs import FusionInputs
from emi_models.targets import targets_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from emi_models import Modality
    from emi_models.data.clip import ClipSet
    from emi_models.inputs import FusionShapes
    from emi_models.networks.config import NetworkConfig, Task
    from emi_models.targets import Target

    Part = tuple[tuple[str, ...], NDArray[np.float32]]  # ids and their ratings
    Use = Literal["train", "4:1", "train+valid"]

__all__ = [
    "CACHE_BYTES",
    "LEAST_CLIPS",
    "BucketedBatches",
    "ClipWindows",
    "RatedClips",
    "TaskClips",
    "TimedClips",
    "baseline_of",
    "check_task",
    "collate",
    "motion_dim_of",
    "rated_clips",
    "rated_part",
    "task_of",
]

CACHE_BYTES: Final = 2 << 30
SHORTEST_S: Final = 1.0  # of a prefix: the first windows of live use are about as short

Row = tuple[FusionInputs, "Tensor"]  # one window or a batch of them, and the ratings (B, K) or (K,)


@runtime_checkable
class TimedClips(Protocol):
    """A `ClipSet` that knows how long its clips are without reading them."""

    def durations_s(self, split: str) -> Sequence[float]:
        """Seconds that each clip of `ids(split)` lasts."""


class ClipWindows(Dataset[Row]):
    """One window of each rated clip: its first 12 s, or all of a shorter one.

    Item `i` is a window of one row, without padding, and the clip's ratings (K,), NaN where a target is not
    rated. Clips that were read are kept in memory until `cache_bytes` are full (in each reading process); the
    others are read again.

    Args:
        clips: the set.
        split: which split of it; clips without ratings are left out.
        prefixes: the share of samples, in [0, 1], that end early, as in live use, at a time drawn uniformly
            from 1 s to the window's end. Clips of less than 1 s are not cut. Each epoch draws again.
        seed: of these draws.
        until_s: where a window ends at the latest, 12 s or less.
        spans_s: seconds of a modality, back from its newest frame, if not 12.
        cache_bytes: memory for clips.

    Raises:
        DataError: a setting is out of range, or no clip of the split is rated.
    """

    def __init__(
        self,
        clips: ClipSet,
        split: str,
        prefixes: float = 0.0,
        *,
        seed: int = 0,
        until_s: float = WINDOW_S,
        spans_s: Mapping[Modality, float] | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        if not 0.0 <= prefixes <= 1.0:
            raise DataError(f"prefixes is {prefixes}; it is a share of the samples, from 0 to 1")
        if not 0.0 < until_s <= WINDOW_S:
            raise DataError(f"until_s is {until_s}; a window ends after 0 s and by {WINDOW_S:g} s")
        self.clips = clips
        self.split = split
        self.prefixes = prefixes
        self.seed = seed
        self.until_ns = round(until_s * 1e9)
        self.spans_s = spans_s
        targets = clips.targets(split)
        self.rated = targets_of(clips)
        self._rated = (
            np.flatnonzero(np.isfinite(targets).any(axis=1)) if len(targets) else np.zeros(0, np.int64)
        )
        if not len(self._rated):
            raise DataError(
                f"the split {split!r} has {len(targets)} clips and none is rated; add ratings to the data"
            )
        everything = clips.ids(split)
        self.ids = tuple(everything[row] for row in self._rated)
        self.targets = torch.from_numpy(np.ascontiguousarray(targets[self._rated], np.float32))
        # Shared: reading processes live longer than an epoch and must see the change.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._cached: dict[int, Clip] = {}
        self._room = cache_bytes

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Row:
        clip = self._clip(index)
        end_ns = self._end_ns(index, min(clip.duration_ns, self.until_ns))
        shapes = replace(
            self.clips.shapes,
            vision_frames=self._frames(clip, "vision", end_ns),
            audio_frames=self._frames(clip, "audio", end_ns),
        )
        return clip.window(shapes, end_ns, self.spans_s), self.targets[index]

    def set_epoch(self, epoch: int) -> None:
        """Draw prefixes again; call it before an epoch's first sample is read."""
        self._epoch[0] = epoch

    def lengths_s(self) -> NDArray[np.float64]:
        """Seconds that each uncut window lasts, (len(self),); reads all clips if the set does not know."""
        if isinstance(self.clips, TimedClips):
            durations = np.asarray(self.clips.durations_s(self.split), np.float64)[self._rated]
        else:
            durations = np.array([self._clip(index).duration_ns / 1e9 for index in range(len(self))])
        return np.minimum(durations, self.until_ns / 1e9)

    def _end_ns(self, index: int, whole_ns: int) -> int:
        """Where the window of this sample ends in this epoch."""
        shortest_ns = round(SHORTEST_S * 1e9)
        if self.prefixes == 0.0 or whole_ns <= shortest_ns:
            return whole_ns
        draw = np.random.default_rng((self.seed, int(self._epoch[0]), index))
        cut = draw.random() < self.prefixes
        return int(draw.integers(shortest_ns, whole_ns, endpoint=True)) if cut else whole_ns

    def _frames(self, clip: Clip, modality: Modality, end_ns: int) -> int:
        """How many frames of a modality the window has; 1, masked, if there are none."""
        span_s = (self.spans_s or {}).get(modality, WINDOW_S)
        there = len(getattr(clip, modality).until(end_ns, round(span_s * 1e9)))
        most: int = getattr(self.clips.shapes, f"{modality}_frames")
        return max(1, min(there, most))

    def _clip(self, index: int) -> Clip:
        if index in self._cached:
            return self._cached[index]
        clip = self.clips.load(self.ids[index])
        size = sum(getattr(clip, m).values.nbytes + getattr(clip, m).t_ns.nbytes for m in MODALITIES)
        if size <= self._room:
            self._cached[index] = clip
            self._room -= size
        return clip


def collate(rows: Sequence[Row]) -> Row:
    """A batch of windows (B, ...) and ratings (B, K), as long as the longest row.

    Rows may have any length and masks of any pattern. If no row has a frame of a modality, the batch has one
    masked frame.
    """
    windows = [window for window, _ in rows]
    vision, vision_mask = _padded([(window.vision, window.vision_mask) for window in windows])
    audio, audio_mask = _padded([(window.audio, window.audio_mask) for window in windows])
    batch = FusionInputs(
        vision=vision,
        vision_mask=vision_mask,
        vision_present=torch.cat([window.vision_present for window in windows]),
        audio=audio,
        audio_mask=audio_mask,
        audio_present=torch.cat([window.audio_present for window in windows]),
        text=torch.cat([window.text for window in windows]),
        text_present=torch.cat([window.text_present for window in windows]),
    )
    return batch, torch.stack([targets for _, targets in rows])


def _padded(rows: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Frames (1, T, D) and masks (1, T) of different lengths as (B, T', D) and (B, T')."""
    ends = [int(mask.nonzero()[:, 1].max()) + 1 if bool(mask.any()) else 0 for _, mask in rows]
    longest = max(1, *ends)
    values = rows[0][0].new_zeros(len(rows), longest, rows[0][0].shape[2])
    masks = torch.zeros(len(rows), longest, dtype=torch.bool)
    for place, ((frames, mask), end) in enumerate(zip(rows, ends, strict=True)):
        values[place, :end] = frames[0, :end]
        masks[place, :end] = mask[0, :end]
    return values, masks


POOL: Final = 50  # batches that are sorted together: lengths become similar, and samples stay mixed


class BucketedBatches(Sampler[list[int]]):
    """Batches of samples of similar length, in an order that depends only on `seed` and the epoch.

    Each sample comes once an epoch. Samples are shuffled, sorted by length within pools of 50 batches, and
    cut into batches; then the batches are shuffled. `set_epoch(epoch, done)` continues an epoch after
    `done` batches.

    Args:
        lengths: of each sample, in any unit.
        batch_size: samples a batch; the last one may have fewer.
        seed: of the order.
        drop_last: leave out the last, shorter batch, unless it is the only one.
    """

    def __init__(
        self,
        lengths: Sequence[float] | NDArray[np.float64],
        batch_size: int,
        *,
        seed: int,
        drop_last: bool = False,
    ) -> None:
        self.lengths = np.asarray(lengths, np.float64)
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last and len(self.lengths) > batch_size
        self._epoch = 0
        self._done = 0

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        whole, rest = divmod(len(self.lengths), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        yield from self._order()[self._done :]

    def set_epoch(self, epoch: int, done: int = 0) -> None:
        """Set the epoch of the next iteration, and how many of its batches to skip."""
        self._epoch, self._done = epoch, done

    def _order(self) -> list[list[int]]:
        draw = np.random.default_rng((self.seed, self._epoch))
        shuffled = draw.permutation(len(self.lengths))
        if self.drop_last:
            shuffled = shuffled[: len(self) * self.batch_size]
        pool = POOL * self.batch_size
        pools = [shuffled[start : start + pool] for start in range(0, len(shuffled), pool)]
        order = np.concatenate([one[np.argsort(self.lengths[one], kind="stable")] for one in pools])
        batches = [order[at : at + self.batch_size].tolist() for at in range(0, len(order), self.batch_size)]
        return [batches[place] for place in draw.permutation(len(batches))]


LEAST_CLIPS: Final = 2  # of a split: one clip has no correlation


class RatedClips:
    """A `ClipSet` of the rated clips of another set, with a `valid` split unless all clips are for training.

    Features and descriptions are those of the other set. `validation` describes the valid clips in one line.
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

    @property
    def rated(self) -> tuple[Target, ...]:
        """The set's own."""
        return targets_of(self.clips)

    @property
    def task(self) -> Task:
        """The set's own."""
        return task_of(self.clips)

    @property
    def spans_s(self) -> Mapping[str, float]:
        """The set's own."""
        return self.clips.spans_s if isinstance(self.clips, TaskClips) else {}

    @property
    def notes(self) -> Mapping[str, str]:
        """The set's own."""
        return self.clips.notes if isinstance(self.clips, TaskClips) else {}

    def ids(self, split: str) -> tuple[str, ...]:
        """The rated clips of `train` or `valid`; there are no others."""
        return self._parts[split][0] if split in self._parts else ()

    def targets(self, split: str) -> NDArray[np.float32]:
        """Their ratings, (N, K)."""
        return self._parts[split][1]

    def load(self, clip_id: str) -> Clip:
        """One clip of the set."""
        return self.clips.load(clip_id)


def baseline_of(clips: object) -> str:
    """What clips are made relative to (`ManifestClips`): off, running or calibrate."""
    while (inner := getattr(clips, "clips", None)) is not None:
        clips = inner
    return str(getattr(clips, "baseline", "off"))


def motion_dim_of(clips: ClipSet) -> int:
    """Values of motion in a vision frame, next to a face's or alone (`VidmimicClips.motion_dim`); 0: none."""
    whole = clips.clips if isinstance(clips, RatedClips) else clips
    return int(getattr(whole, "motion_dim", 0))


@runtime_checkable
class TaskClips(Protocol):
    """A `ClipSet` that names its task; a set without this protocol has intensities."""

    @property
    def task(self) -> Task:
        """`emi` or `bah`."""

    @property
    def spans_s(self) -> Mapping[str, float]:
        """Seconds of each modality in its windows, as a checkpoint's header has them."""

    @property
    def notes(self) -> Mapping[str, str]:
        """What else a checkpoint's header must say about its windows."""


def task_of(clips: object) -> Task:
    """The task of a set."""
    return clips.task if isinstance(clips, TaskClips) else "emi"


def check_task(config: NetworkConfig, clips: object) -> None:
    """Check that clips and network have the same task and number of targets.

    Raises:
        TrainingError: they have not.
    """
    if config.task != (task := task_of(clips)):
        raise TrainingError(
            f"the network's task is {config.task}, and these clips are rated for {task}; "
            + ("train semantic_matters on them" if task == "bah" else "leave network.task out")
        )
    if config.outputs != len(rated := targets_of(clips)):
        raise TrainingError(
            f"the network estimates {config.outputs} targets, and these clips are rated for {len(rated)}: "
            f"{', '.join(target.name for target in rated)}; name the targets of the checkpoint"
        )


def rated_part(clips: ClipSet, split: str) -> Part:
    """The clips of a split that have a rating of any target, and their ratings."""
    ids = clips.ids(split)
    if not ids:
        return (), np.zeros((0, 0), np.float32)
    targets = clips.targets(split)
    rows = np.flatnonzero(np.isfinite(targets).any(axis=1))
    return tuple(ids[row] for row in rows), targets[rows]


def rated_clips(clips: ClipSet, held_out: float, seed: int, use: Use = "train") -> RatedClips:
    """The clips for training and for validation: the set's own splits, or a share of train if none is valid.

    Clips are drawn one by one, not by person: the same person may be in both parts, which raises the
    score. The draw depends only on the order of the ids and the seed.

    Args:
        clips: the set.
        held_out: share drawn from train if there is no valid split, in (0, 1); at least two clips.
        seed: of the draw.
        use: with `4:1`, drawn valid clips are trained on too, so that a fifth of all rated clips validates
            (the Two-Stage paper's §5.1: 10,128 and 2,532). With `train+valid`, both are trained on and no
            clip validates.

    Raises:
        TrainingError: too few clips are rated, or with `4:1` the valid split is smaller than a fifth.
    """
    train, valid = rated_part(clips, "train"), rated_part(clips, "valid")
    drawn = False
    if use == "train+valid":
        note = f"none: {len(train[0])} train and {len(valid[0])} valid clips are trained on"
        if valid[0]:
            train = train[0] + valid[0], np.concatenate([train[1].reshape(-1, valid[1].shape[1]), valid[1]])
        valid = (), train[1][:0]
    elif not clips.ids("valid"):
        drawn, whole = True, len(train[0])
        train, valid = _drawn(train, max(LEAST_CLIPS, round(held_out * whole)), seed)
        note = f"{len(valid[0])} of {whole} train clips, drawn with seed {seed}; people may be in both"
    elif use == "4:1":
        whole, left = len(valid[0]), round((len(train[0]) + len(valid[0])) / 5)
        if left > whole:
            raise TrainingError(
                f"valid has {whole} rated clips, less than a fifth of all; leave out data.use=4:1"
            )
        more, valid = _drawn(valid, left, seed)
        train = train[0] + more[0], np.concatenate([train[1], more[1]])
        note = (
            f"{left} of the set's {whole} valid clips, drawn with seed {seed}, the others are trained on; "
            "people may be in both"
        )
    else:
        note = f"the set's own valid split, {len(valid[0])} rated clips"
    parts = {"train": train} if use == "train+valid" else {"train": train, "validate": valid}
    for name, part in parts.items():
        if len(part[0]) < LEAST_CLIPS:
            raise TrainingError(
                f"{len(part[0])} rated clips to {name} on, at least {LEAST_CLIPS} are needed "
                f"(train has {len(clips.ids('train'))} clips, valid {len(clips.ids('valid'))}); give clips "
                "with ratings"
            )
    return RatedClips(clips, train, valid, note, drawn=drawn)


def _drawn(part: Part, count: int, seed: int) -> tuple[Part, Part]:
    """The rest of a part and `count` clips drawn from it, both in the part's order."""
    order = np.random.default_rng(seed).permutation(len(part[0]))
    rest, drawn = np.sort(order[count:]), np.sort(order[:count])
    return (tuple(part[0][i] for i in rest), part[1][rest]), (
        tuple(part[0][i] for i in drawn),
        part[1][drawn],
    )
