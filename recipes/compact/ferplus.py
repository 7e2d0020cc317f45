"""Faces that people rated: FER+ (Barsoum et al. 2016), as the face encoder reads them.

Ten people said what each face of FER-2013 shows. The pictures (48 x 48, grey) were found on the web and
belong to their owners. They are only read: features are kept in the user's cache, and pictures nowhere.

The face encoder expects a head in a larger picture. So each picture is enlarged four times and gets a margin.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models.encoders.face import ENCODER_ID, FACE_DIM, FaceEncoder
from emi_models.files import replacing, user_cache
from recipes.compact.goemotions import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["VOTES", "RatedFaces", "read_rated_faces"]

VOTES: Final = (
    *("neutral", "happiness", "surprise", "sadness", "anger"),
    *("disgust", "fear", "contempt", "unknown", "NF"),
)
ENLARGED_PX: Final = 192
MARGIN_PX: Final = 64
GREY: Final = 128
MARGIN: Final = (
    "BORDER_CONSTANT"  # OpenCV's name: with it faces are found in 98 % of the pictures, else in 94 %
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class RatedFaces:
    """Faces that the encoder found: features (N, 58), and shares of raters (N, 10), ordered as `VOTES`.

    `picture` (N,) is the row of the picture in its file.
    """

    values: NDArray[np.float32]
    shares: NDArray[np.float32]
    picture: NDArray[np.intp]

    def share(self, name: str) -> NDArray[np.float32]:
        """The share of raters who said this, (N,)."""
        column: NDArray[np.float32] = self.shares[:, VOTES.index(name)]
        return column


def read_rated_faces(
    folder: Path, split: str, model: Path, advance: Callable[[int], None], cache: Path | None = None
) -> RatedFaces:
    """The faces of `train` or `valid` that the encoder finds; from the cache if they were read before.

    Args:
        folder: holds `SPLIT.npz` (`pictures` (N, 48, 48) uint8, `names`) and `SPLIT.csv` (a line of votes
        each).
        split: train or valid.
        model: the face encoder's `face_landmarker.task`.
        advance: told how many more pictures are done.
        cache: where features are kept; default: `emi-live/faces` in the user's cache.

    Raises:
        DataError: a file is missing or damaged, or the two do not belong together.
    """
    path = folder / f"{split}.npz"
    try:
        content = path.read_bytes()
        with np.load(path, allow_pickle=False) as file:
            pictures, names = file["pictures"], file["names"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be read: {error}; give the folder of FER+ faces") from error
    shares = _votes(folder / f"{split}.csv", [str(name) for name in names])
    features = _encoded(pictures, content, model, advance, cache or user_cache(os.environ) / "faces")
    picture = np.flatnonzero(np.isfinite(features[:, 0]))
    return RatedFaces(features[picture], shares[picture], picture)


def _votes(path: Path, names: list[str]) -> NDArray[np.float32]:
    """The shares (N, 10) of the pictures of these names, in their order."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = {row["name"]: [float(row[vote]) for vote in VOTES] for row in csv.DictReader(file)}
        votes = np.array([lines[name] for name in names], np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} does not hold the votes of its pictures: {error}") from error
    shares: NDArray[np.float32] = votes / np.maximum(votes.sum(axis=1, keepdims=True), 1)
    return shares


def _encoded(
    pictures: NDArray[np.uint8],
    content: bytes,
    model: Path,
    advance: Callable[[int], None],
    cache: Path,
    margin: str = MARGIN,
) -> NDArray[np.float32]:
    """Features (N, 58), NaN where no face was found."""
    import cv2

    digest = hashlib.sha256(content + repr((ENCODER_ID, ENLARGED_PX, MARGIN_PX, margin)).encode()).hexdigest()
    path = cache / f"{digest[:32]}.npy"
    kept = _read(path, (len(pictures), FACE_DIM))
    if kept is not None:
        advance(len(pictures))
        return kept
    features = np.full((len(pictures), FACE_DIM), np.nan, np.float32)
    encoder = FaceEncoder(model)
    for row, picture in enumerate(pictures):
        large = cv2.resize(picture, (ENLARGED_PX, ENLARGED_PX), interpolation=cv2.INTER_CUBIC)
        large = cv2.copyMakeBorder(large, *(MARGIN_PX,) * 4, getattr(cv2, margin), value=GREY)
        encoder.reset()  # each is another person
        found = encoder.analyse(np.repeat(large[:, :, None], 3, axis=2), 0).features
        if found is not None:
            features[row] = found
        advance(1)
    encoder.close()
    try:
        with replacing(path) as part, part.open("wb") as file:
            np.save(file, features)
    except OSError as error:
        _log.info("features of faces are not kept, so the next run computes them again: %s", error)
    return features


def _read(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    try:
        kept: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return kept if kept.shape == shape and kept.dtype == np.float32 else None
