"""Whether a face can be read: not too small, dark, rolled, turned away or covered.

The networks give blendshapes of every face that they find, also of one that shows too little, and do not say
so. The limits were chosen on rated faces (FER+) and on real faces that were changed on purpose; the figures
are in docs/decisions/0034.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["unreadable"]

LEAST_PX: Final = (
    24.0  # the longer side of the landmarks' box; at 22 px a smile follows that at 176 with r .79
)
LEAST_LUMA: Final = 16.0  # of 255; in a dark face, at most one pixel in ten is as bright
BRIGHT_SHARE: Final = 0.1
MOST_ROLL: Final = math.radians(60.0)
MOST_YAW: Final = math.radians(50.0)
MOST_PITCH: Final = math.radians(45.0)
# Deviation of the luma in a part of the face, as a share of that in the whole face. A hand or a mask leaves
# less; so does a strong blur.
LEAST_EYES: Final = 0.25
LEAST_MOUTH: Final = 0.27
FLAT: Final = 1.0  # of 255; a face with less deviation shows nothing
SIDE: Final = 64  # pixels of a part that are looked at, along each side, at most

# Of MediaPipe's mesh: corners and lids of both eyes and the brows; corners and edges of the lips.
EYES: Final = (33, 263, 159, 145, 386, 374, 105, 334)
MOUTH: Final = (61, 291, 0, 17)
MESH_POINTS: Final = 468  # without the irises


def unreadable(
    rgb: NDArray[np.uint8], landmarks: NDArray[np.floating], pitch: float, yaw: float, roll: float
) -> str | None:
    """Why a face in a picture cannot be read, in a few words; None if it can.

    Args:
        rgb: the picture, shape (height, width, 3).
        landmarks: shape (478, 2), in fractions of the picture.
        pitch: of the head, in radians, as from `head_pose`.
        yaw: likewise.
        roll: likewise.
    """
    height, width = rgb.shape[:2]
    points = landmarks[:MESH_POINTS] * (width, height)
    if float(np.ptp(points, axis=0).max()) < LEAST_PX:
        return "face too small"
    if abs(roll) > MOST_ROLL:
        return "face rolled"
    if abs(yaw) > MOST_YAW or abs(pitch) > MOST_PITCH:
        return "face turned away"
    face = _luma(rgb, points, 0.0)
    if (
        np.count_nonzero(face >= LEAST_LUMA) <= BRIGHT_SHARE * face.size
    ):  # also if nothing of it is in the picture
        return "face too dark"
    deviation = max(float(face.std()), FLAT)
    eyes, mouth = _luma(rgb, points[list(EYES)], 0.05), _luma(rgb, points[list(MOUTH)], 0.15)
    # A part outside the picture says nothing; the landmarks there are guessed, as they always were.
    if eyes.size and float(eyes.std()) < LEAST_EYES * deviation:
        return "face covered"
    if mouth.size and float(mouth.std()) < LEAST_MOUTH * deviation:
        return "face covered"
    return None


def _luma(rgb: NDArray[np.uint8], points: NDArray[np.floating], grow: float) -> NDArray[np.float32]:
    """The brightness of the box around points (n, 2), grown by a share of it, thinned to 64 x 64 pixels."""
    height, width = rgb.shape[:2]
    low, high = points.min(axis=0), points.max(axis=0)
    edge = grow * (high - low)
    left, top = np.clip(low - edge, 0, (width, height)).astype(int)
    right, bottom = np.clip(high + edge + 1, 0, (width, height)).astype(int)
    part = rgb[top : bottom : max(1, (bottom - top) // SIDE), left : right : max(1, (right - left) // SIDE)]
    # By planes: a mean over the short last axis takes six times as long.
    luma: NDArray[np.float32] = (part[..., 0].astype(np.float32) + part[..., 1] + part[..., 2]) / np.float32(
        3
    )
    return luma
