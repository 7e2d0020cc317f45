"""Face crops for the `taemi` bundle's vision transformer: upright by the eyes, 224 px, six a second."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CROP_MARGIN",
    "CROP_PX",
    "STAMP_JITTER_NS",
    "VISION_FPS",
    "FaceSquare",
    "FrameSampler",
    "crop_face",
    "cut_square",
    "face_square",
    "resize_face",
]

CROP_PX: Final = 224
CROP_MARGIN: Final = 0.15  # added on each side, of the longer side of the landmarks' box: hair, ears, jaw
VISION_FPS: Final = 6.0  # of the data set's own crops
NS_PER_S: Final = 1_000_000_000
STAMP_JITTER_NS: Final = 1_000_000  # a stamp rounded to a whole millisecond still counts as on time

# Corners of the eye at the picture's left and of that at its right, in MediaPipe's face mesh.
LEFT_EYE: Final = (33, 133)
RIGHT_EYE: Final = (362, 263)


class FrameSampler:
    """Picks the frames of one video that are encoded: the first in each 1/fps s since the first of all.

    So the mean rate is `fps` whatever the camera's, without drift; a slower camera has all frames taken.
    """

    def __init__(self, fps: float = VISION_FPS) -> None:
        if not fps > 0:
            raise ValueError(f"fps is {fps}; it must be greater than 0")
        self._period_ns = NS_PER_S / fps
        self.reset()

    def reset(self) -> None:
        """Start anew with the next frame."""
        self._first_ns: int | None = None
        self._last_slot = -1

    def take(self, t_ns: int) -> bool:
        """Whether to encode the frame captured at `t_ns`; ask once for each, in order."""
        if self._first_ns is None:
            self._first_ns = t_ns
        slot = math.floor((t_ns - self._first_ns + STAMP_JITTER_NS) / self._period_ns)
        if slot <= self._last_slot:
            return False
        self._last_slot = slot
        return True


@dataclass(frozen=True, slots=True)
class FaceSquare:
    """Where a face lies in a picture: a square turned with it, in pixels; pixel i covers [i, i + 1)."""

    x: float  # of its centre
    y: float
    side: float
    angle: float  # of the line between the eyes, in radians: 0 is level, > 0 turned clockwise


def face_square(landmarks: NDArray[np.float32], width: int, height: int) -> FaceSquare:
    """The square that `cut_square` is to cut from a picture of that size, in pixels.

    It is turned as the eyes are, centred on the box of the landmarks as they lie in it, and 1.3 times as long
    as the box's longer side.

    Args:
        landmarks: shape (478, 2), x and y in fractions of the picture, as `FaceResult.landmarks`.
        width: of the picture.
        height: likewise.
    """
    points = landmarks.astype(np.float64) * (width, height)
    across = points[list(RIGHT_EYE)].mean(axis=0) - points[list(LEFT_EYE)].mean(axis=0)
    angle = math.atan2(across[1], across[0])
    turn = _turn(angle)
    upright = points @ turn  # by -angle: the eyes are level in it
    low, high = upright.min(axis=0), upright.max(axis=0)
    side = max(1.0, (1 + 2 * CROP_MARGIN) * float((high - low).max()))
    x, y = turn @ ((low + high) / 2)
    return FaceSquare(float(x), float(y), side, angle)


def cut_square(rgb: NDArray[np.uint8], square: FaceSquare, side_px: int = CROP_PX) -> NDArray[np.uint8]:
    """What a square of the picture shows, upright, in shape (side_px, side_px, 3); the caller owns it.

    What is outside the picture is black. Each pixel is the mean over the area it covers.

    Args:
        rgb: shape (height, width, 3).
        square: of this picture.
        side_px: of the result.
    """
    import torch
    from torch.nn import functional as F

    height, width = rgb.shape[:2]
    turn, side = _turn(square.angle), square.side
    centre = np.array([square.x, square.y])
    # The part of the picture that the turned square can reach, so that a large picture costs no more.
    reach = side / 2 * (abs(turn[0, 0]) + abs(turn[0, 1])) + 1
    left, top = np.clip(np.floor(centre - reach).astype(int), 0, (width, height))
    right, bottom = np.clip(np.ceil(centre + reach).astype(int), 0, (width, height))
    if left >= right or top >= bottom:
        return np.zeros((side_px, side_px, 3), np.uint8)
    part = torch.from_numpy(rgb[top:bottom, left:right].astype(np.float32)).permute(2, 0, 1)[None]

    # Samples per pixel and axis: their mean is close to that over the pixel's area at any size of the face.
    finer = max(2, math.ceil(side / side_px))
    count = side_px * finer
    steps = (torch.arange(count, dtype=torch.float64) + 0.5) / count * side - side / 2
    x = centre[0] - left + turn[0, 0] * steps[None, :] + turn[0, 1] * steps[:, None]
    y = centre[1] - top + turn[1, 0] * steps[None, :] + turn[1, 1] * steps[:, None]
    grid = torch.stack((2 * x / int(right - left) - 1, 2 * y / int(bottom - top) - 1), dim=-1)
    with torch.inference_mode():
        seen = F.grid_sample(part, grid[None].float(), mode="bilinear", align_corners=False)
        crop = F.avg_pool2d(seen, finer)[0].permute(1, 2, 0)
        result: NDArray[np.uint8] = crop.round().clamp(0, 255).to(torch.uint8).contiguous().numpy()
    return result


def crop_face(rgb: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The face of one picture alone, upright, in a square of shape (224, 224, 3); the caller owns it."""
    height, width = rgb.shape[:2]
    return cut_square(rgb, face_square(landmarks, width, height))


def _turn(angle: float) -> NDArray[np.float64]:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def resize_face(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A crop that was made elsewhere, of any size, brought to (224, 224, 3); the caller owns it.

    Bilinear and with antialiasing, aspect not kept: as the vision transformer's own image processor does.
    """
    import torch
    from torch.nn import functional as F

    if rgb.shape == (CROP_PX, CROP_PX, 3):
        return rgb.copy()
    taken = torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        sized = F.interpolate(taken, (CROP_PX, CROP_PX), mode="bilinear", align_corners=False, antialias=True)
        pixels = sized[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8)
        result: NDArray[np.uint8] = pixels.contiguous().numpy()
    return result
