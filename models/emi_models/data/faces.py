"""The face pictures that data sets give: one folder a clip, one numbered picture a frame."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from emi_models.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["BAH_FACES_HZ", "VIDMIMIC_FACES_HZ", "face_pictures"]

VIDMIMIC_FACES_HZ: Final = (
    6.0  # about; the videos' own frame rates (25 to 1000 by their metadata) say nothing
)
BAH_FACES_HZ: Final = 24.0
_NAME: Final = re.compile(r"(?:frame-)?(\d+)\.(?:jpe?g|png)", re.IGNORECASE)


def face_pictures(folder: Path, hz: float = VIDMIMIC_FACES_HZ) -> Iterator[tuple[int, Path]]:
    """The pictures of one clip with their times, ns from its start, in order of their numbers.

    Picture n is at n / hz, so that a number left out is a time without a face. Names are `12.jpg` or
    `frame-12.jpg`; `Thumbs.db` and whatever else lies in the folder is passed over. Nothing is opened.

    Raises:
        DataError: there is no such folder, or two pictures have one number.
    """
    try:
        found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    except OSError as error:
        raise DataError(
            f"{folder} cannot be listed: {error.strerror}; give a clip's folder of faces"
        ) from error
    found.sort()
    for (number, path), (following, other) in pairwise(found):
        if number == following:
            raise DataError(f"{folder} has {path.name} and {other.name} for one moment; keep one of them")
    return ((round(number * 1e9 / hz), path) for number, path in found)
