"""A folder of clips in emi-live's own layout, as `emi extract` would write it."""

from __future__ import annotations

from pathlib import Path

from emi_models.data.clip import Rating
from emi_models.data.dataset import ClipWriter, DatasetInfo
from tests.models.training.sets import MemorySet


def write_folder(folder: Path, clips: MemorySet) -> Path:
    info = DatasetInfo(
        bundle="compact",
        encoders=clips.encoders,
        shapes=clips.shapes,
        description=clips.description,
        licence=clips.licence,
    )
    writer = ClipWriter(folder, info)
    ratings = {}
    for split, members in clips.splits.items():
        for clip in members:
            writer.write(clip)
            ratings[clip.id] = Rating(clip.targets, split)
    writer.write_manifest(ratings)
    return folder
