"""Face features: the Face Landmarker's 52 blendshapes, and head rotation and position.

Of several faces `FaceFollower` chooses the largest and keeps it. `face_quality` says which faces cannot be
read. The networks are run by `face_litert`, without MediaPipe, or by `face_mediapipe`. Both give the same
features, so both have the same id (docs/decisions/0027 has the differences).

`crop_face` cuts the face upright out of a frame, for encoders that take pictures. `SteadySquare` keeps the
square of a still face in place and follows a moving one at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np

from emi_models.encoders.face_quality import unreadable
from emi_models.errors import ModelUnavailableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "BLENDSHAPES",
    "CROP_MARGIN",
    "CROP_PX",
    "ENCODER_ID",
    "FACE_DIM",
    "FACE_FEATURES",
    "STAMP_JITTER_NS",
    "VISION_FPS",
    "Backend",
    "Box",
    "FaceEncoder",
    "FaceFollower",
    "FaceResult",
    "FaceSquare",
    "FrameSampler",
    "Landmarker",
    "SteadySquare",
    "crop_face",
    "cut_square",
    "face_square",
    "head_pose",
]

SAME_FACE_IOU: Final = 0.2  # a head moves less than its own width between two frames, even at 6 fps
HOLD_NS: Final = 2_000_000_000  # a face that is not seen for longer is given up, and another one is followed
# In widths of its box: as far as a face that was missed for some frames may have moved.
REACH: Final = 1.0


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in fractions of the frame's width and height, origin at its upper left corner.

    A face cut by the frame's edge may reach below 0 or above 1.
    """

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """The part of the frame that it covers."""
        return max(0.0, self.right - self.left) * max(0.0, self.bottom - self.top)

    @property
    def centre(self) -> tuple[float, float]:
        """The point in its middle."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def iou(self, other: Box) -> float:
        """Intersection over union with another box, in [0, 1]."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        shared = max(0.0, width) * max(0.0, height)
        union = self.area + other.area - shared
        return shared / union if union > 0 else 0.0


class FaceFollower:
    """Chooses one face: first the largest, then the same one for as long as it is seen.

    A face that is not seen for two seconds is given up, and the largest of the others is followed.
    """

    def __init__(self) -> None:
        self._last: Box | None = None
        self._seen_ns = 0
        self._wish: tuple[float, float] | Literal["largest"] | None = None
        self.changes = 0  # how often another face was followed than before

    def choose(self, boxes: Sequence[Box], t_ns: int) -> int | None:
        """The index of the face to watch in a picture captured at `t_ns`; None if it is not there.

        A picture without the face forgets nothing: the detector may have missed it for that picture alone.
        """
        if not boxes:
            return None
        wish, self._wish = self._wish, None
        same = None if self._last is None else self._same(boxes, self._last)
        if wish is not None:
            best = self._wished(boxes, wish)
        elif same is not None:
            best = same
        elif self._last is not None and t_ns - self._seen_ns <= HOLD_NS:
            return None  # the others in the picture are not the person who is followed
        else:
            best = self._wished(boxes, "largest")
        if self._last is not None and best != same:
            self.changes += 1
        self._last, self._seen_ns = boxes[best], t_ns
        return best

    def follow(self, wish: tuple[float, float] | Literal["largest"]) -> None:
        """Choose again in the next picture with a face: the largest, or the one nearest to a point.

        The point is in fractions of the picture's width and height.
        """
        self._wish = wish

    def reset(self) -> None:
        """Forget the face followed so far; changes are still counted from the start."""
        self._last, self._wish = None, None

    @staticmethod
    def _same(boxes: Sequence[Box], last: Box) -> int | None:
        """The face that overlaps the last place most, or else is next to it; None if there is none."""
        same = max(range(len(boxes)), key=lambda i: boxes[i].iou(last))
        if boxes[same].iou(last) >= SAME_FACE_IOU:
            return same
        same = min(range(len(boxes)), key=lambda i: math.dist(boxes[i].centre, last.centre))
        near = math.dist(boxes[same].centre, last.centre) <= REACH * (last.right - last.left)
        return same if near else None

    @staticmethod
    def _wished(boxes: Sequence[Box], wish: tuple[float, float] | Literal["largest"]) -> int:
        if wish == "largest":
            return max(range(len(boxes)), key=lambda i: boxes[i].area)
        point = wish
        return min(range(len(boxes)), key=lambda i: math.dist(boxes[i].centre, point))


ENCODER_ID: Final = "mediapipe/face_landmarker@float16-1+pose"
BLENDSHAPES: Final = 52
FACE_DIM: Final = BLENDSHAPES + 6
# The names of a frame's values: MediaPipe's blendshapes in its order, then what `head_pose` gives.
FACE_FEATURES: Final = (
    *("_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight"),
    *("eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft"),
    *("eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight"),
    *("eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose"),
    *("mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel"),
    *("mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight"),
    *("mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower"),
    *("mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight"),
    *("mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight"),
    *("pitch", "yaw", "roll", "x", "y", "z"),
)

# MediaPipe gives centimetres in front of an assumed camera: at the origin, looking along -z, 63 degrees high.
NEUTRAL_POSITION_CM: Final = np.array([0.0, 0.0, -60.0])  # straight ahead, at a laptop's distance
POSITION_SCALE_CM: Final = 60.0
NS_PER_MS: Final = 1_000_000

Backend = Literal["litert", "mediapipe"]
OTHER_FACE: Final = "another face"  # the problem of a picture that shows only people who are not followed


@dataclass(frozen=True, slots=True)
class FaceResult:
    """What one frame shows. Without a face, `faces` is 0 and the rest is None.

    If the face that is followed is not among those seen, `features`, `box` and `landmarks` are None.

    `features`, shape (58,), float32: 52 blendshapes in [0, 1] in MediaPipe's order (the first is
    `_neutral`), then pitch, yaw, roll in radians, then the head's position x, y, z, scaled to about [-1,
    1]; see `head_pose`.

    `landmarks`, shape (478, 2), float32: x and y of MediaPipe's face mesh in fractions of the frame, for
    `crop_face`.
    """

    faces: int  # faces seen, at most `max_faces`
    features: NDArray[np.float32] | None  # of the face that is followed; owned by the caller
    box: Box | None  # of the same face
    landmarks: NDArray[np.float32] | None = None  # of the same face; owned by the caller
    # Why the features say little, in a few words; None if the face can be read, or if there is no face.
    problem: str | None = None
    changes: int = 0  # how often another face was followed than before, since the encoder was made
    boxes: tuple[Box, ...] = ()  # of all faces that were seen
    followed: int | None = None  # which of them is `box`


class Landmarker(Protocol):
    """What finds faces in the pictures of one video and reads their expression."""

    def detect(self, rgb: NDArray[np.uint8], t_ms: int) -> Sequence[NDArray[np.float64]]:
        """The landmarks (478, 3) of each face in a picture (height, width, 3), captured at `t_ms`.

        In fractions of the picture; times must grow.
        """
        ...

    def express(self, face: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Blendshapes (52,) and pose (4, 4) of a face of the last picture, by its position in the list."""
        ...

    def reset(self) -> None:
        """Forget earlier pictures."""
        ...

    def close(self) -> None:
        """Release what is held."""
        ...


class FaceEncoder:
    """Reads the face that is followed from the frames of one video, in order.

    Faces are tracked from frame to frame, so one encoder serves one stream. The same frames at the same
    times give the same features. With `max_faces` 1 landmarks are smoothed over time, and the first face that
    was found is kept; with 2 or more nothing is smoothed, and the largest face is chosen and kept. One thread
    at a time; LiteRT computes in the caller's thread and starts none.
    """

    def __init__(
        self,
        model_path: str | Path,
        max_faces: int = 2,
        min_confidence: float = 0.5,
        backend: Backend = "litert",
    ) -> None:
        """Load `face_landmarker.task`.

        Args:
            model_path: the model file.
            max_faces: faces looked for.
            min_confidence: of detection, presence and tracking, in [0, 1].
            backend: what runs it.

        Raises:
            ModelUnavailableError: there is no such file, or the backend is not installed.
            ModelIntegrityError: the backend cannot use it.
        """
        path = Path(model_path)
        self._follower = FaceFollower()
        if not path.is_file():
            raise ModelUnavailableError(
                f"there is no face model at {path}: run `emi models pull`, "
                "or run without it: --set face.enabled=false"
            )
        self._landmarker = _load(backend)(path, max_faces, min_confidence)
        self._first_ns: int | None = None  # capture time of the first frame since the start
        self._last_ms = 0  # the newest time that the tracker was given

    def analyse(self, rgb: NDArray[np.uint8], t_ns: int) -> FaceResult:
        """What the frame shows, shape (height, width, 3), RGB, at most 16,384 px a side, captured at `t_ns`.

        Times should grow; the tracker is given whole milliseconds that do in any case.
        """
        if self._first_ns is None:
            self._first_ns = t_ns
        # Relative to the first frame, so that features do not depend on when the clock was started.
        self._last_ms = max(self._last_ms + 1, (t_ns - self._first_ns) // NS_PER_MS)
        meshes = [points[:, :2] for points in self._landmarker.detect(rgb, self._last_ms)]
        boxes = [_box(points) for points in meshes]
        chosen = self._follower.choose(boxes, t_ns)
        if chosen is None:
            away = OTHER_FACE if boxes else None
            return FaceResult(
                len(boxes), None, None, problem=away, changes=self._follower.changes, boxes=tuple(boxes)
            )
        blendshapes, matrix = self._landmarker.express(chosen)
        features = np.empty(FACE_DIM, np.float32)
        features[:BLENDSHAPES] = blendshapes
        features[BLENDSHAPES:] = head_pose(matrix)
        pitch, yaw, roll = (float(angle) for angle in features[BLENDSHAPES : BLENDSHAPES + 3])
        return FaceResult(
            len(boxes),
            features,
            boxes[chosen],
            meshes[chosen].astype(np.float32),
            unreadable(rgb, meshes[chosen], pitch, yaw, roll),
            self._follower.changes,
            tuple(boxes),
            chosen,
        )

    def follow(self, wish: tuple[float, float] | Literal["largest"]) -> None:
        """Choose the face again in the next picture: see `FaceFollower.follow`; any thread may call."""
        self._follower.follow(wish)

    def reset(self) -> None:
        """Forget the face and earlier frames."""
        self._landmarker.reset()
        self._follower.reset()
        self._first_ns, self._last_ms = None, 0

    def close(self) -> None:
        """Release what the backend holds."""
        self._landmarker.close()


def _load(backend: Backend) -> Callable[[Path, int, float], Landmarker]:
    if backend == "mediapipe":
        from emi_models.encoders.face_mediapipe import MediapipeLandmarker

        return MediapipeLandmarker
    from emi_models.encoders.face_litert import LitertLandmarker

    return LitertLandmarker


def head_pose(matrix: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Pitch, yaw, roll and scaled position x, y, z of a head, shape (6,).

    Angles are in radians, 0 for a face turned to the camera: pitch > 0 looks down, yaw > 0 turns to the
    frame's right, roll > 0 leans anticlockwise as the frame shows it (rotation = yaw · pitch · roll).
    Position is (cm - (0, 0, -60)) / 60: x to the frame's right, y up, z 0 at 60 cm, -1 at 120 cm.

    Args:
        matrix: (4, 4), from the canonical face to MediaPipe's camera space; a uniform scale does no harm.
    """
    pitch = math.atan2(-matrix[1, 2], math.hypot(matrix[0, 2], matrix[2, 2]))
    yaw = math.atan2(matrix[0, 2], matrix[2, 2])
    roll = math.atan2(matrix[1, 0], matrix[1, 1])
    position = (matrix[:3, 3].astype(np.float64) - NEUTRAL_POSITION_CM) / POSITION_SCALE_CM
    return np.array([pitch, yaw, roll, *position])


def _box(points: NDArray[np.float64]) -> Box:
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return Box(float(left), float(top), float(right), float(bottom))


# Crops for the `taemi` bundle: upright by the eyes, 224 px, six a second.
CROP_PX: Final = 224
CROP_MARGIN: Final = 0.15  # added on each side, of the longer side of the landmarks' box: hair, ears, jaw
VISION_FPS: Final = 6.0  # of the data set's own crops
NS_PER_S: Final = 1_000_000_000
STAMP_JITTER_NS: Final = 1_000_000  # a stamp rounded to a whole millisecond still counts as on time

# Corners of the eye at the frame's left and of that at its right, in MediaPipe's face mesh.
LEFT_EYE: Final = (33, 133)
RIGHT_EYE: Final = (362, 263)


class FrameSampler:
    """Picks the frames of one video that are encoded: the first in each 1/fps s since the first of all.

    So the mean rate is `fps` at any camera rate, without drift; of a slower camera every frame is taken.
    """

    def __init__(self, fps: float = VISION_FPS) -> None:
        if not fps > 0:
            raise ValueError(f"fps is {fps}; it must be greater than 0")
        self._period_ns = NS_PER_S / fps
        self.reset()

    def reset(self) -> None:
        """Start again with the next frame."""
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
    """Where a face lies in a frame: a square turned with it, in pixels; pixel i covers [i, i + 1)."""

    x: float  # of its centre
    y: float
    side: float
    angle: float  # of the line between the eyes, in radians: 0 is level, > 0 turned clockwise


def face_square(landmarks: NDArray[np.float32], width: int, height: int) -> FaceSquare:
    """The square that `cut_square` is to cut from a frame of that size, in pixels.

    It is turned as the eyes are, centred on the box of the landmarks as they lie in it, and 1.3 times as long
    as the box's longer side.

    Args:
        landmarks: shape (478, 2), x and y in fractions of the frame, as `FaceResult.landmarks`.
        width: of the frame.
        height: of the frame.
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
    """What a square of the frame shows, upright, in shape (side_px, side_px, 3); the caller owns it.

    What is outside the frame is black. Each pixel is the mean over the area it covers.

    Args:
        rgb: shape (height, width, 3).
        square: of this frame.
        side_px: of the result.
    """
    import torch
    from torch.nn import functional as F

    height, width = rgb.shape[:2]
    turn, side = _turn(square.angle), square.side
    centre = np.array([square.x, square.y])
    # The part of the frame that the turned square can reach, so that a large frame costs no more.
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
    """The face of one frame alone, upright, in a square of shape (224, 224, 3); the caller owns it."""
    height, width = rgb.shape[:2]
    return cut_square(rgb, face_square(landmarks, width, height))


def _turn(angle: float) -> NDArray[np.float64]:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


# Cut-off frequencies in Hz. The speed's weight: a place that moves is behind by 1 / (2 pi 8) = 0.02 sides at
# most, 4 px of a crop of 224.
STILL_HZ: Final = 0.7
HZ_PER_SIDE: Final = 8.0  # more for each side (or radian, or e-fold of the side) a second
SPEED_HZ: Final = 1.0  # of the speed itself


class OneEuro:
    """A low-pass filter whose cut-off frequency grows with the speed of what it follows.

    Several values share one cut-off, that of their speed together.

    Source: Casiez, Roussel, Vogel 2012, 1 € Filter, CHI, doi:10.1145/2207676.2208639.
    """

    def __init__(self, *values: float) -> None:
        """Start at these values, at rest."""
        self.values = values
        self._speeds = (0.0,) * len(values)

    def push(self, values: tuple[float, ...], seconds: float, unit: float = 1.0) -> tuple[float, ...]:
        """The filtered values.

        Args:
            values: the next ones.
            seconds: since those before; greater than 0.
            unit: what counts as 1 in a speed.
        """
        share = _share(SPEED_HZ, seconds)
        moved = zip(values, self.values, self._speeds, strict=True)
        self._speeds = tuple(
            speed + share * ((new - old) / (unit * seconds) - speed) for new, old, speed in moved
        )
        share = _share(STILL_HZ + HZ_PER_SIDE * math.hypot(*self._speeds), seconds)
        self.values = tuple(old + share * (new - old) for new, old in zip(values, self.values, strict=True))
        return self.values


class SteadySquare:
    """Smooths the squares of one face, each captured later than the one before.

    A square that has too little in common with the one before is another face's: it is taken as it is.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """The next square is taken as it is, as when a face is found again."""
        self._last: tuple[FaceSquare, int] | None = None  # as it came, and when

    def push(self, square: FaceSquare, t_ns: int) -> FaceSquare:
        """The smoothed square of the frame captured at `t_ns`."""
        last, self._last = self._last, (square, t_ns)
        if last is None or t_ns <= last[1] or _square_box(square).iou(_square_box(last[0])) < SAME_FACE_IOU:
            self._place = OneEuro(square.x, square.y)
            self._size = OneEuro(math.log(square.side))
            self._angle = OneEuro(square.angle)
            return square
        seconds = (t_ns - last[1]) / NS_PER_S
        x, y = self._place.push((square.x, square.y), seconds, square.side)
        (size,) = self._size.push((math.log(square.side),), seconds)
        turned = math.remainder(square.angle - self._angle.values[0], math.tau)  # the shorter way round
        (angle,) = self._angle.push((self._angle.values[0] + turned,), seconds)
        return FaceSquare(x, y, math.exp(size), angle)


def _share(cutoff_hz: float, seconds: float) -> float:
    """The new value's share in a filter of first order."""
    return 1 / (1 + 1 / (math.tau * cutoff_hz * seconds))


def _square_box(square: FaceSquare) -> Box:
    half = square.side / 2
    return Box(square.x - half, square.y - half, square.x + half, square.y + half)
