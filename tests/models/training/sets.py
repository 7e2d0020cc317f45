"""Sets of clips in memory, small enough to train on in a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from emi_models import EMOTIONS, MODALITIES, Modality
from emi_models.data.clip import Clip, FeatureTrack, stack_targets
from emi_models.inputs import FusionShapes
from emi_models.networks.config import Task
from emi_models.targets import EMI_TARGETS, Target, targets_of

SHAPES = FusionShapes(vision_frames=6, vision_dim=5, audio_frames=9, audio_dim=7, text_dim=8)
ENCODERS: Mapping[Modality, str] = {m: f"test/{m}@1" for m in MODALITIES}


@dataclass(frozen=True, kw_only=True)
class MemorySet:
    """A `ClipSet` of what it is given."""

    splits: Mapping[str, Sequence[Clip]]
    shapes: FusionShapes = SHAPES
    encoders: Mapping[Modality, str] = None  # type: ignore[assignment]
    description: str = "clips of a test"
    licence: str = "none"

    def __post_init__(self) -> None:
        if self.encoders is None:
            object.__setattr__(self, "encoders", ENCODERS)

    def ids(self, split: str) -> tuple[str, ...]:
        return tuple(clip.id for clip in self.splits.get(split, ()))

    def targets(self, split: str) -> NDArray[np.float32]:
        return stack_targets([clip.targets for clip in self.splits[split]], len(targets_of(self)))

    def load(self, clip_id: str) -> Clip:
        return next(clip for clips in self.splits.values() for clip in clips if clip.id == clip_id)


@dataclass(frozen=True, kw_only=True)
class Named(MemorySet):
    """The same for another task, or other targets."""

    task: Task = "emi"
    rated: tuple[Target, ...] = EMI_TARGETS
    spans_s: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


def random_clips(
    count: int,
    *,
    seed: int = 0,
    shapes: FusionShapes = SHAPES,
    missing: Mapping[Modality, float] | None = None,
    longest_s: float = 12.0,
    prefix: str = "clip",
    told: bool = True,
) -> list[Clip]:
    """Clips whose features are noise, six of a frame's values around the ratings.

    Args:
        count: how many.
        seed: of everything.
        shapes: their widths.
        missing: the share of clips that lack a modality.
        longest_s: lengths are between 1 s and this.
        prefix: of the ids.
        told: False: features have nothing to do with ratings, which can only be learned by heart.
    """
    generator = np.random.default_rng(seed)
    clips = []
    for number in range(count):
        targets = generator.random(len(EMOTIONS), dtype=np.float32)
        duration_ns = int(generator.uniform(1.0, longest_s) * 1e9)
        tracks = {}
        for modality, dim, frames in (
            ("vision", shapes.vision_dim, shapes.vision_frames),
            ("audio", shapes.audio_dim, shapes.audio_frames),
            ("text", shapes.text_dim, 1),
        ):
            n = 1 if modality == "text" else int(generator.integers(1, frames + 1))
            values = generator.normal(size=(n, dim)).astype(np.float32)
            if told:
                width = min(dim, len(EMOTIONS))
                values[:, :width] = targets[:width] + 0.1 * values[:, :width]
            stamps = np.sort(generator.integers(0, duration_ns, n)).astype(np.int64)
            track = FeatureTrack(stamps, values)
            gone = generator.random() < (missing or {}).get(modality, 0.0)  # type: ignore[call-overload]
            tracks[modality] = FeatureTrack.empty(dim) if gone else track
        clips.append(Clip(id=f"{prefix}{number:03}", **tracks, duration_ns=duration_ns, targets=targets))
    return clips


def unrated(clip: Clip) -> Clip:
    return replace(clip, targets=None)


def memory_set(train: int = 24, valid: int = 12, *, seed: int = 0, missing: float = 0.15) -> MemorySet:
    """Train and valid clips, of which some lack a modality."""
    gone: dict[Modality, float] = dict.fromkeys(MODALITIES, missing)
    return MemorySet(
        splits={
            "train": random_clips(train, seed=seed, missing=gone, prefix="train"),
            "valid": random_clips(valid, seed=seed + 1, missing=gone, prefix="valid"),
        }
    )
