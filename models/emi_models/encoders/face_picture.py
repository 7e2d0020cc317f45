"""A face crop that comes as a picture file, as data sets give them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emi_models.errors import EmiError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["UnreadablePictureError", "read_face"]


class UnreadablePictureError(EmiError, ValueError):
    """A picture file is empty, damaged, or no picture."""


def read_face(path: Path) -> NDArray[np.uint8]:
    """The picture, shape (height, width, 3), RGB; the caller owns it. Size it with `resize_face`.

    Raises:
        UnreadablePictureError: it cannot be decoded.
    """
    import av

    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                picture: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
                return picture
    except (av.FFmpegError, OSError, IndexError) as error:
        raise UnreadablePictureError(
            f"{path} cannot be read as a picture ({error}): replace it, or leave it out"
        ) from error
    raise UnreadablePictureError(f"{path} holds no picture: replace it, or leave it out")
