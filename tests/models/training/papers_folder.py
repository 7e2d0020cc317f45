"""A folder in Hume-Vidmimic2's layout with the features of all papers, and settings small enough for it."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from emi_models.data.synth import SynthConfig, SynthCorpus, write_corpus
from tests.models.training.small import NETWORKS

# Folders that the synthetic corpus has not: each is one of its own under another name.
LIKE = {
    "vit": ("vit-base", "vit-small", "vit-huge", "dinov2", "dinov2-frames", "clip"),
    "wav2vec2": ("audeering", "wavlm", "w2v2-bert", "wav2vec2-large"),
    "gte": ("bert-base", "bert-large", "roberta-base", "gte-large"),
}
UNITS = [f"AU{unit:02}_r" for unit in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)]


def write_openface(path: Path, frames: int, seed: int) -> None:
    """A CSV of OpenFace 2, with its spaces; every fifth frame without a face."""
    header = [
        "frame",
        " face_id",
        " timestamp",
        " confidence",
        " success",
        " pose_Tx",
        " pose_Ty",
        " pose_Tz",
    ]
    header += [" pose_Rx", " pose_Ry", " pose_Rz", *(f" {unit}" for unit in UNITS), " AU01_c"]
    draw = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for frame in range(1, frames + 1):
            pose = [*draw.normal(0, 100, 2), 600, *draw.normal(0, 0.1, 3)]
            writer.writerow([frame, 0, frame / 30, 0.9, int(frame % 5 > 0), *pose, *draw.random(17) * 5, 1])


def write_papers_folder(folder: Path) -> Path:
    """A synthetic corpus in the official layout, with the papers' other features and three test clips."""
    write_corpus(SynthCorpus(SynthConfig(clips=24)), folder, lambda done: None)
    for own, names in LIKE.items():
        for name in names:
            (folder / name).symlink_to(folder / own)
    for number in range(24):
        write_openface(folder / "openface" / f"{number:05}.csv", 30 + number, number)
    for number in range(3):
        for name in ("vit", "wav2vec2", "gte"):
            place = folder / "test_data" / name
            place.mkdir(parents=True, exist_ok=True)
            source = sorted((folder / name).iterdir())[number]
            shutil.copy(source, place / f"{24 + number:05}.pkl")
    return folder


def paper_settings(system: str) -> dict[str, Any]:
    network = {
        name: value for name, value in NETWORKS[system].items() if name not in ("motion_dim", "fusion")
    }
    return {"training": {"max_epochs": 1, "batch_size": 8, "threads": 1}, "network": network}
