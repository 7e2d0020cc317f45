"""Makes small data sets in the layouts that the readers know."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np

from emi_models.data.clip import OFFICIAL_HEADER, Clip, FeatureTrack
from emi_models.data.dataset import DatasetInfo
from emi_models.inputs import FusionShapes
from tests.models.data.pickles import write_pickle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["INFO", "SHAPES", "make_clip", "make_vidmimic", "vectors", "write_split"]

SHAPES = FusionShapes(vision_frames=400, vision_dim=3, audio_frames=599, audio_dim=4, text_dim=5)
INFO = DatasetInfo(
    bundle="compact",
    encoders={"vision": "face@1", "audio": "voice@1", "text": "words@1"},
    shapes=SHAPES,
    description="clips of the tests",
    licence="CC0",
)


def vectors(rows: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)


def make_clip(clip_id: str, seconds: float = 3.0, seed: int = 0, words: bool = True) -> Clip:
    """Faces at 30 Hz, voice at 50 Hz, words once a second and at the end."""
    vision_ns = np.arange(int(seconds * 30), dtype=np.int64) * 33_333_333
    audio_ns = np.arange(int(seconds * 50), dtype=np.int64) * 20_000_000
    text_ns = (np.arange(1, int(seconds) + 1) * 1e9).astype(np.int64) if words else np.zeros(0, np.int64)
    return Clip(
        id=clip_id,
        vision=FeatureTrack(vision_ns, vectors(len(vision_ns), 3, seed)),
        audio=FeatureTrack(audio_ns, vectors(len(audio_ns), 4, seed)),
        text=FeatureTrack(text_ns, vectors(len(text_ns), 5, seed)),
        duration_ns=round(seconds * 1e9),
    )


def write_split(folder: Path, split: str, rows: Mapping[str, Sequence[object]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{split}_split.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(OFFICIAL_HEADER)
        writer.writerows([clip_id, *cells] for clip_id, cells in rows.items())
    return path


def make_vidmimic(folder: Path) -> Path:
    """Two training clips and a validation clip, with the features that the data set gives, and GTE's."""
    write_split(folder, "train", {"00000": [0.1, 0.2, 0.3, 0, 0.5, 1], "00001": [0, 0, 0, 0, 0, 0.25]})
    write_split(folder, "valid", {"00002": [0.5, 0, 0, 0, 0, 0]})
    for number, (faces, voice) in enumerate(((12, 100), (30, 250), (6, 50))):
        write_pickle(folder / "vit" / f"{number:05d}.pkl", vectors(faces, 3, number))
        write_pickle(folder / "wav2vec2" / f"{number:05d}.pkl", vectors(voice, 4, number))
        write_pickle(folder / "gte" / f"{number:05d}.pkl", vectors(1, 5, number)[0])
    return folder
