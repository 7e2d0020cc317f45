"""Telling a live camera from one that repeats its last picture, which drivers do after an unplug."""

from __future__ import annotations

from typing import Final, Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

__all__ = ["FreezeDetector"]

STRIDE: Final = (
    4  # every fourth pixel of every fourth row: sensor noise alone changes many of these in each picture
)


class FreezeDetector:
    """Compares each picture with the one before; exact repetition for `after_ns` means frozen.

    It stays frozen, across a reopening too, until a picture differs.
    """

    def __init__(self, after_ns: int) -> None:
        self._after_ns = after_ns
        self._digest: int | None = None
        self._since_ns: int | None = None  # None: a new watch begins with the next picture
        self._frozen = False

    def observe(self, rgb: NDArray[np.uint8], t_ns: int) -> Literal["live", "repeating", "frozen"]:
        """What this picture says of the camera.

        `live`: use it. `frozen`: it has now been the same for `after_ns`, the device should be reopened, and
        a new watch begins. `repeating`: still the picture that the camera froze on, not to be used.
        """
        digest = crc32(rgb[::STRIDE, ::STRIDE].tobytes())
        if digest != self._digest:
            self._digest, self._since_ns, self._frozen = digest, t_ns, False
            return "live"
        if self._since_ns is None:
            self._since_ns = t_ns
        if t_ns - self._since_ns >= self._after_ns:
            self._since_ns, self._frozen = None, True
            return "frozen"
        return "repeating" if self._frozen else "live"
