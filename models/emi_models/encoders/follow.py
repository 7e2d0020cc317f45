"""Which of several faces is the one watched: the largest, without flipping between two of like size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Box", "FaceFollower"]

SAME_FACE_IOU: Final = 0.2  # a head moves less than its own width between two frames, even at 6 fps
TAKE_OVER_AREA: Final = 1.5  # another face must be this much larger; 1.22 in width, past the jitter of a box


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in fractions of the picture's width and height, origin at its upper left corner.

    A face cut by the picture's edge may reach below 0 or above 1.
    """

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """The part of the picture that it covers."""
        return max(0.0, self.right - self.left) * max(0.0, self.bottom - self.top)

    def iou(self, other: Box) -> float:
        """Intersection over union with another box, in [0, 1]."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        shared = max(0.0, width) * max(0.0, height)
        union = self.area + other.area - shared
        return shared / union if union > 0 else 0.0


class FaceFollower:
    """Chooses one face per frame: the one chosen before, until it is gone or another is clearly larger."""

    def __init__(self) -> None:
        self._last: Box | None = None

    def choose(self, boxes: Sequence[Box]) -> int | None:
        """The index of the face to watch; None without a face.

        A frame without any face forgets nothing: the face may have been missed by the detector for that
        frame alone.
        """
        if not boxes:
            return None
        best = max(range(len(boxes)), key=lambda i: boxes[i].area)
        if self._last is not None:
            last = self._last
            same = max(range(len(boxes)), key=lambda i: boxes[i].iou(last))
            if (
                boxes[same].iou(last) >= SAME_FACE_IOU
                and boxes[best].area < TAKE_OVER_AREA * boxes[same].area
            ):
                best = same
        self._last = boxes[best]
        return best

    def reset(self) -> None:
        """Forget the face followed so far."""
        self._last = None
