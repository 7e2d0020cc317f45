"""Face features: MediaPipe Face Landmarker's 52 blendshapes, and head rotation and position.

Of several faces `FaceFollower` follows the largest, without switching between two of similar size.

Importing any part of MediaPipe imports all of it: its audio tasks start PortAudio, which looks for a sound
server and writes in the home folder and in /dev/shm; its drawing helpers import pyplot, which writes a font
cache. `import_mediapipe` delays both until something in them is used.
"""

from __future__ import annotations

import logging
import math
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_models.console import native_stderr_logged
from emi_models.errors import ModelIntegrityError, ModelUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = [
    "BLENDSHAPES",
    "ENCODER_ID",
    "FACE_DIM",
    "Box",
    "FaceEncoder",
    "FaceFollower",
    "FaceResult",
    "head_pose",
    "import_mediapipe",
]

SAME_FACE_IOU: Final = 0.2  # a head moves less than its own width between two frames, even at 6 fps
TAKE_OVER_AREA: Final = 1.5  # another face must be this much larger; 1.22 in width, past the jitter of a box


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

    def iou(self, other: Box) -> float:
        """Intersection over union with another box, in [0, 1]."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        shared = max(0.0, width) * max(0.0, height)
        union = self.area + other.area - shared
        return shared / union if union > 0 else 0.0


class FaceFollower:
    """Chooses one face per frame: the one chosen before, until it disappears or another is clearly larger."""

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


PUT_OFF: Final = frozenset(
    {
        "mediapipe.tasks.python.audio",
        "mediapipe.tasks.python.vision.drawing_styles",
        "mediapipe.tasks.python.vision.drawing_utils",
    }
)


def import_mediapipe() -> ModuleType:
    """The module `mediapipe`; a deferred part is imported at its first use."""
    if "mediapipe" not in sys.modules:
        finder = _StandIns()
        sys.meta_path.insert(0, finder)
        try:
            import_module("mediapipe")
        finally:
            sys.meta_path.remove(finder)
            for name in PUT_OFF:
                if isinstance(module := sys.modules.get(name), _StandIn):
                    module.opens = True
                    del sys.modules[name]  # an import of it from here on is a real one
    return sys.modules["mediapipe"]


class _StandIn(ModuleType):
    """A module that passes on what it is asked for to the real one, which the first question imports."""

    opens = False  # while MediaPipe itself is being imported, the import system alone looks at it

    def __getattr__(self, name: str) -> Any:
        if not self.opens:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(import_module(self.__name__), name)


class _StandIns(MetaPathFinder, Loader):
    """Finds and loads stand-ins in place of the parts that are put off."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A stand-in's spec, for the parts that are put off."""
        return ModuleSpec(name, self) if name in PUT_OFF else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The stand-in."""
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: the real module is imported later."""


ENCODER_ID: Final = "mediapipe/face_landmarker@float16-1+pose"
BLENDSHAPES: Final = 52
FACE_DIM: Final = BLENDSHAPES + 6

# MediaPipe gives centimetres in front of an assumed camera: at the origin, looking along -z, 63 degrees high.
NEUTRAL_POSITION_CM: Final = np.array([0.0, 0.0, -60.0])  # straight ahead, at a laptop's distance
POSITION_SCALE_CM: Final = 60.0
NS_PER_MS: Final = 1_000_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FaceResult:
    """What one frame shows. Without a face, `faces` is 0 and the rest is None.

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


class FaceEncoder:
    """Reads the face that is followed from the frames of one video, in order.

    Faces are tracked from frame to frame, so one encoder serves one stream. The same frames at the same
    times give the same features. With `max_faces` 1 MediaPipe smooths landmarks over time and keeps to the
    first face that it found; with 2 or more it does not smooth, and the largest face is followed here. One
    thread at a time.
    """

    def __init__(self, model_path: str | Path, max_faces: int = 2, min_confidence: float = 0.5) -> None:
        """Load `face_landmarker.task`.

        Args:
            model_path: the model file.
            max_faces: faces looked for.
            min_confidence: of detection, presence and tracking, in [0, 1].

        Raises:
            ModelUnavailableError: there is no such file.
            ModelIntegrityError: MediaPipe cannot use it.
        """
        self._model_path = Path(model_path)
        self._max_faces = max_faces
        self._min_confidence = min_confidence
        self._follower = FaceFollower()
        if not self._model_path.is_file():
            raise ModelUnavailableError(
                f"there is no face model at {self._model_path}: run `emi models pull`, "
                "or run without it: --set face.enabled=false"
            )
        self._landmarker: Any = None
        self._first_ns: int | None = None  # capture time of the first frame since the start
        self._last_ms = 0  # the newest time that MediaPipe was given
        self._open()

    def analyse(self, rgb: NDArray[np.uint8], t_ns: int) -> FaceResult:
        """What the frame shows, shape (height, width, 3), RGB, captured at `t_ns`.

        Times should grow; MediaPipe is given whole milliseconds that do in any case.
        """
        if self._first_ns is None:
            self._first_ns = t_ns
        # Relative to the first frame, so that features do not depend on when the clock was started.
        self._last_ms = max(self._last_ms + 1, (t_ns - self._first_ns) // NS_PER_MS)
        result = self._detect(rgb, self._last_ms)
        meshes = [_points(landmarks) for landmarks in result.face_landmarks]
        boxes = [_box(points) for points in meshes]
        chosen = self._follower.choose(boxes)
        if chosen is None:
            return FaceResult(0, None, None)
        features = np.empty(FACE_DIM, np.float32)
        features[:BLENDSHAPES] = [shape.score for shape in result.face_blendshapes[chosen]]
        features[BLENDSHAPES:] = head_pose(result.facial_transformation_matrixes[chosen])
        return FaceResult(len(boxes), features, boxes[chosen], meshes[chosen].astype(np.float32))

    def reset(self) -> None:
        """Forget the face and start MediaPipe afresh; after an error it does not recover by itself."""
        self.close()
        self._follower.reset()
        self._open()

    def close(self) -> None:
        """Release MediaPipe's threads and memory."""
        if self._landmarker is not None:
            self._landmarker.close()
            self._landmarker = None

    def _open(self) -> None:
        import_mediapipe()
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(self._model_path)),
            running_mode=vision.RunningMode.VIDEO,
            num_faces=self._max_faces,
            min_face_detection_confidence=self._min_confidence,
            min_face_presence_confidence=self._min_confidence,
            min_tracking_confidence=self._min_confidence,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        self._first_ns = None
        self._last_ms = 0
        _ignore_profiling_signals()
        with native_stderr_logged(logger):
            try:
                self._landmarker = vision.FaceLandmarker.create_from_options(options)
            except (RuntimeError, ValueError) as error:
                raise ModelIntegrityError(
                    f"MediaPipe cannot use {self._model_path} ({error}): "
                    "fetch it again with `emi models pull`"
                ) from error
            # MediaPipe's threads log while they start; one black frame waits for them all.
            self._detect(np.zeros((64, 64, 3), np.uint8), self._last_ms)

    def _detect(self, rgb: NDArray[np.uint8], t_ms: int) -> Any:
        from mediapipe import Image, ImageFormat

        image = Image(image_format=ImageFormat.SRGB, data=np.ascontiguousarray(rgb))
        return self._landmarker.detect_for_video(image, t_ms)


def _ignore_profiling_signals() -> None:
    """Have Python know that SIGPROF is ignored.

    MediaPipe's threads are sent SIGPROF by timers of a profiler that is linked into it. It sets the signal to
    be ignored, once and unseen by Python; a program that then restores all handlers that Python knows of, as
    Lightning does after training, makes the next one end the process.
    """
    if signal.getsignal(signal.SIGPROF) is signal.SIG_DFL:
        with suppress(ValueError):  # not in the main thread, where alone Python allows it
            signal.signal(signal.SIGPROF, signal.SIG_IGN)


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


def _points(landmarks: Iterable[Any]) -> NDArray[np.float64]:
    return np.array([(point.x, point.y) for point in landmarks])


def _box(points: NDArray[np.float64]) -> Box:
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return Box(float(left), float(top), float(right), float(bottom))
