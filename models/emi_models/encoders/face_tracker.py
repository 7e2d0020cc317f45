"""Where the faces are: detections, regions of interest, their way from picture to picture, and head pose.

Plain numpy, without clock or thread; `face_litert` runs the networks. It does what MediaPipe's Face
Landmarker does in video mode, with the same constants, so that features are the same (MediaPipe v0.10.33:
`face_landmarker`, `face_detector` and `face_geometry` in `tasks/cc/vision`).

Places are in pixels of the picture. Pixel i is at i, not at i + 0.5: so MediaPipe cuts its regions on a CPU,
and the networks' results are put back in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "LANDMARKS",
    "CanonicalFace",
    "LandmarkSmoother",
    "Region",
    "letterbox",
    "merge",
    "region_around",
    "regions_of_detections",
    "upright_as",
]

LANDMARKS: Final = 478
MESH_POINTS: Final = 468  # the other ten are the irises
MARGIN: Final = 1.5  # a region's side, as a multiple of the face's box
DETECTION_OVERLAP: Final = 0.5  # detections that share more than this (IoU) are one face
LEFT_EYE, RIGHT_EYE = 33, 263  # outer corners, as the frame shows them

# The short-range BlazeFace looks at 128 × 128 pixels: two anchors in each of 16 × 16 cells, six in 8 × 8.
ANCHOR_GRIDS: Final = ((16, 2), (8, 6))
DETECTOR_PX: Final = 128.0  # what its offsets are divided by
SCORE_LIMIT: Final = 100.0  # raw scores beyond it are clipped

VARINT, LENGTH, FIXED_SIZES = 0, 2, {1: 8, 5: 4}  # kinds of fields in protocol buffers' wire format


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of a picture that a network looks at, turned by `angle` about its centre."""

    x: float  # of the centre
    y: float
    width: float
    height: float
    angle: float = 0.0  # radians, > 0 clockwise as the picture shows it

    @property
    def usable(self) -> bool:
        """Whether it has an area."""
        return math.isfinite(self.x + self.y + self.angle + self.width + self.height) and (
            self.width > 0 and self.height > 0
        )

    def matrix(self, side_px: int) -> NDArray[np.float64]:
        """Shape (2, 3): from pixels of a square that shows the region, side_px wide, to the picture's."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        turn = np.array([[cos, -sin], [sin, cos]]) * (self.width, self.height)
        corner = (self.x, self.y) - turn @ (0.5, 0.5)
        return np.column_stack([turn / side_px, corner])

    def upside_down(self) -> Region:
        """The same place, turned by 180 degrees."""
        return replace(self, angle=math.remainder(self.angle + math.pi, math.tau))

    def iou(self, other: Region) -> float:
        """Intersection over union, in [0, 1], of both without their angles."""
        across = min(self.x + self.width / 2, other.x + other.width / 2) - max(
            self.x - self.width / 2, other.x - other.width / 2
        )
        down = min(self.y + self.height / 2, other.y + other.height / 2) - max(
            self.y - self.height / 2, other.y - other.height / 2
        )
        shared = max(0.0, across) * max(0.0, down)
        union = self.width * self.height + other.width * other.height - shared
        return shared / union if union > 0 else 0.0


def letterbox(width: int, height: int) -> Region:
    """The smallest square about the centre that holds a whole picture of that size."""
    side = float(max(width, height))
    return Region(width / 2, height / 2, side, side)


def region_around(points: NDArray[np.float64]) -> Region:
    """Where to look for a face in the next picture, from its landmarks (478, 2) in this one.

    A square, upright by the outer corners of the eyes, 1.5 times as long as the landmarks' box.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    side = MARGIN * float((high - low).max())
    x, y = (low + high) / 2
    return Region(float(x), float(y), side, side, _angle(points[LEFT_EYE], points[RIGHT_EYE]))


def merge(*groups: Iterable[Region], overlap: float) -> list[Region]:
    """All regions in order, but of those that share more than `overlap` (IoU) only the last."""
    kept: list[Region] = []
    for group in groups:
        for region in group:
            kept = [other for other in kept if region.iou(other) <= overlap]
            kept.append(region)
    return kept


def upright_as(region: Region, known: Iterable[Region]) -> Region:
    """A detected region, turned by 180 degrees if a known face at that place stands the other way up."""
    for other in known:
        if region.iou(other) > 0 and abs(math.remainder(region.angle - other.angle, math.tau)) > math.pi / 2:
            return region.upside_down()
    return region


def regions_of_detections(
    offsets: NDArray[np.float32], raw_scores: NDArray[np.float32], seen: Region, min_score: float
) -> list[Region]:
    """The faces that the detector found, the surest first; a face is where several detections overlap.

    Args:
        offsets: shape (896, 16): centre, size and six points of a face, the eyes first, in pixels of the
            detector's input from each anchor.
        raw_scores: shape (896,), before the sigmoid.
        seen: what the detector looked at.
        min_score: the lowest score of a face, in [0, 1].
    """
    scores = 1 / (1 + np.exp(-np.clip(raw_scores.astype(np.float64), -SCORE_LIMIT, SCORE_LIMIT)))
    found = np.flatnonzero(scores >= min_score)
    if not found.size:
        return []
    found = found[np.argsort(-scores[found], kind="stable")]
    weights = scores[found].astype(np.float64)
    values = offsets[found].astype(np.float64) / DETECTOR_PX
    centres, sizes = values[:, :2] + ANCHORS[found], values[:, 2:4]
    eyes = values[:, 4:8] + np.tile(ANCHORS[found], 2)
    rows = np.hstack([centres - sizes / 2, centres + sizes / 2, eyes])  # left, top, right, bottom, two eyes
    valid = (sizes >= 0).all(axis=1)
    rows, weights = rows[valid], weights[valid]
    regions = []
    while len(rows):
        same = _iou_with_first(rows) > DETECTION_OVERLAP
        same[0] = True
        face = weights[same] @ rows[same] / weights[same].sum()
        rows, weights = rows[~same], weights[~same]
        place = seen.matrix(1)
        (left, top), (right, bottom), *pair = face.reshape(4, 2) @ place[:, :2].T + place[:, 2]
        regions.append(
            Region(
                (left + right) / 2,
                (top + bottom) / 2,
                MARGIN * (right - left),
                MARGIN * (bottom - top),
                _angle(pair[0], pair[1]),
            )
        )
    return [region for region in regions if region.usable]


class LandmarkSmoother:
    """A One-Euro filter (Casiez et al. 2012) for the landmarks of one face; speeds are in faces a second."""

    REST_HZ: Final = 0.05  # cut-off of a face at rest
    HZ_PER_SPEED: Final = 80.0
    SPEED_HZ: Final = 1.0  # cut-off of the speed itself
    SMALLEST_PX: Final = 1e-6

    def __init__(self) -> None:
        self._last: tuple[float, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None = None

    def reset(self) -> None:
        """Start afresh with the next landmarks."""
        self._last = None

    def push(self, points: NDArray[np.float64], t_s: float) -> NDArray[np.float64]:
        """Landmarks (478, 3) in pixels, smoothed; times must grow."""
        size = float(np.ptp(points[:, :2], axis=0).mean())
        if size < self.SMALLEST_PX:
            return points
        if self._last is None:
            self._last = (t_s, points, points, np.zeros_like(points))
            return points
        before_s, raw, smooth, speed = self._last
        if t_s <= before_s:
            return points
        step_s = t_s - before_s
        speed = speed + _share(self.SPEED_HZ, step_s) * ((points - raw) / (size * step_s) - speed)
        smooth = smooth + _share(self.REST_HZ + self.HZ_PER_SPEED * np.abs(speed), step_s) * (points - smooth)
        self._last = (t_s, points, smooth, speed)
        return smooth


class CanonicalFace:
    """The face at rest, in centimetres, that head pose is measured against."""

    FIELD_OF_VIEW: Final = math.radians(63.0)  # of the assumed camera, from the picture's top to its bottom

    def __init__(self, metadata: bytes) -> None:
        """Read `geometry_pipeline_metadata_landmarks.binarypb`.

        Raises:
            ValueError: it is not such a file.
        """
        fields = list(_fields(metadata))
        mesh = b"".join(data for number, _, data in fields if number == 1)
        refs = [
            {number: (value, data) for number, value, data in _fields(ref)}
            for top, _, ref in fields
            if top == 2
        ]
        try:
            # Of each point x, y and z in centimetres, and two places on a texture.
            values = np.frombuffer(b"".join(data for number, _, data in _fields(mesh) if number == 3), "<f4")
            self._ids = np.array([ref[1][0] for ref in refs], np.intp)
            weights = np.frombuffer(b"".join(ref[2][1] for ref in refs), "<f4").astype(np.float64)
            points = values.reshape(MESH_POINTS, 5)[self._ids, :3].astype(np.float64)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"it holds no canonical face ({error})") from error
        if not (weights.sum() > 0 and (weights >= 0).all()):
            raise ValueError("its canonical face has no weights")
        self._weights = weights / weights.sum()
        self._centre = self._weights @ points
        self._centred = points - self._centre
        self._spread = float(self._weights @ (self._centred**2).sum(axis=1))

    def pose(self, landmarks: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
        """Shape (4, 4): turn, scale and shift from the canonical face to a camera at the origin, in cm.

        x is to the picture's right, y up, and the camera looks along -z.

        Args:
            landmarks: shape (478, 3), in fractions of the picture; z in fractions of its width.
            width: of the picture.
            height: of the picture.
        """
        near_height = 2 * math.tan(self.FIELD_OF_VIEW / 2)  # of what it sees at a distance of 1 cm
        near_width = width * near_height / height
        x, y, z = landmarks[self._ids].T
        x, y, z = (x - 0.5) * near_width, (0.5 - y) * near_height, z * near_width
        depth = landmarks[:MESH_POINTS, 2].mean() * near_width

        def at_scale(scale: float) -> NDArray[np.float64]:
            away = (z - depth + 1.0) / scale
            return np.column_stack([x * away, y * away, -away])

        scale, _, _ = self._fit(np.column_stack([x, y, -z]))  # as if all were equally far away
        scale *= self._fit(at_scale(scale))[0]
        scale, turn, shift = self._fit(at_scale(scale))
        matrix = np.eye(4)
        matrix[:3, :3] = scale * turn
        matrix[:3, 3] = shift
        return matrix

    def _fit(self, points: NDArray[np.float64]) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Scale, turn and shift that bring the canonical face nearest to the points (Procrustes)."""
        left, _, right = np.linalg.svd((self._weights[:, None] * points).T @ self._centred)
        if np.linalg.det(left) * np.linalg.det(right) < 0:  # no mirror image
            left[:, 2] *= -1
        turn = left @ right
        scale = float((self._weights[:, None] * points * (self._centred @ turn.T)).sum()) / self._spread
        return scale, turn, self._weights @ points - scale * turn @ self._centre


def _anchors() -> NDArray[np.float64]:
    """Centres of the detector's anchors, shape (896, 2), in fractions of its input."""
    grids = []
    for cells, anchors in ANCHOR_GRIDS:
        middle = (np.arange(cells) + 0.5) / cells
        x, y = np.meshgrid(middle, middle)
        grids.append(np.repeat(np.column_stack([x.ravel(), y.ravel()]), anchors, axis=0))
    return np.concatenate(grids)


ANCHORS: Final = _anchors()


def _iou_with_first(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of each box (left, top, right, bottom, …) with the first."""
    overlap = np.minimum(rows[:, 2:4], rows[0, 2:4]) - np.maximum(rows[:, :2], rows[0, :2])
    shared = np.maximum(overlap, 0).prod(axis=1)
    areas = (rows[:, 2:4] - rows[:, :2]).prod(axis=1)
    union = areas + areas[0] - shared
    shares: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(union), where=union > 0)
    return shares


def _angle(
    left: Sequence[float] | NDArray[np.float64], right: Sequence[float] | NDArray[np.float64]
) -> float:
    return math.atan2(right[1] - left[1], right[0] - left[0])


def _share(cutoff_hz: float | NDArray[np.float64], step_s: float) -> NDArray[np.float64]:
    """What part of a new value a low-pass filter takes."""
    turns = 2 * math.pi * step_s * np.asarray(cutoff_hz)
    return turns / (1 + turns)


def _fields(message: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Number, integer and bytes of each field of a message in protocol buffers' wire format.

    A field has an integer or bytes; the other is 0 or empty.

    Raises:
        ValueError: it is cut off, or in another format.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(message, at)
            yield number, value, b""
            continue
        if kind == LENGTH:
            size, at = _varint(message, at)
        elif kind in FIXED_SIZES:
            size = FIXED_SIZES[kind]
        else:
            raise ValueError(f"there is no field of kind {kind}")
        if at + size > len(message):
            raise ValueError("a field is cut off")
        yield number, 0, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The integer that starts at a position, and the position after it."""
    value = shift = 0
    while at < len(message):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("an integer is cut off")
