"""The three networks of `face_landmarker.task`, run by LiteRT: detector, landmarks, blendshapes.

One thread, the caller's, and no connection: the networks take 8 ms a picture, which a second thread does not
halve. `face_tracker` says where to look. Same networks, constants and order as in MediaPipe, so the features
are MediaPipe's; docs/decisions/0027 has the measured differences.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_models.console import native_stderr_logged
from emi_models.encoders.face_tracker import (
    LANDMARKS,
    CanonicalFace,
    LandmarkSmoother,
    Region,
    letterbox,
    merge,
    region_around,
    regions_of_detections,
    upright_as,
)
from emi_models.errors import ModelIntegrityError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LitertLandmarker"]

DETECTOR, MESH, EXPRESSION = (
    "face_detector.tflite",
    "face_landmarks_detector.tflite",
    "face_blendshapes.tflite",
)
CANONICAL_FACE: Final = "geometry_pipeline_metadata_landmarks.binarypb"
DETECTOR_PX: Final = 128
MESH_PX: Final = 256
MS_PER_S: Final = 1000
TURN_EVERY: Final = 15  # pictures: how often it is checked that a face is not upside down
TURN_MARGIN: Final = 2.0  # by how much the network must be surer (log-odds) of the face turned by 180 degrees
SUBPIXEL_BITS: Final = 5  # OpenCV tells 32 steps of a pixel apart

# The landmarks that the blendshapes are made of (MediaPipe, face_blendshapes_graph.cc).
# fmt: off
EXPRESSIVE: Final = np.array([
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70,
    78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149,
    150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195,
    197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300,
    308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375,
    377, 378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454,
    466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
])
# fmt: on

logger = logging.getLogger(__name__)


class LitertLandmarker:
    """Faces of one video, as MediaPipe's Face Landmarker finds them; one thread at a time.

    A face is looked for around its landmarks in the picture before. While fewer than `max_faces` are known,
    the detector looks at each picture too, and a face that both have found is where the detector saw it.
    Landmarks of one face alone (`max_faces` 1) are smoothed over time, as MediaPipe does.

    One thing is not as in MediaPipe: the detector takes a face that is upside down for an upright one, and so
    does the mesh. So the mesh of a new face, and every 15th of a known one, is also computed in the region
    turned by 180 degrees, and the surer one is kept.
    """

    def __init__(self, model_path: Path, max_faces: int, min_confidence: float) -> None:
        """Load the networks.

        Raises:
            ModelIntegrityError: the file is damaged, or holds other networks.
        """
        self._max_faces = max_faces
        self._min_confidence = min_confidence
        with native_stderr_logged(logger):  # LiteRT says by which delegate it computes
            try:
                with zipfile.ZipFile(model_path) as bundle:
                    self._detector = _Network(bundle.read(DETECTOR), (1, DETECTOR_PX, DETECTOR_PX, 3))
                    self._mesh = _Network(bundle.read(MESH), (1, MESH_PX, MESH_PX, 3))
                    self._expression = _Network(bundle.read(EXPRESSION), (1, len(EXPRESSIVE), 2))
                    self._canonical = CanonicalFace(bundle.read(CANONICAL_FACE))
                self._offsets = self._detector.output((1, 896, 16))
                self._scores = self._detector.output((1, 896, 1))
                self._points = self._mesh.output((1, 1, 1, LANDMARKS * 3))
                self._presence = self._mesh.output((1, 1, 1, 1))
                self._blendshapes = self._expression.output((52,))
            except (OSError, zipfile.BadZipFile, KeyError, RuntimeError, ValueError) as error:
                raise ModelIntegrityError(
                    f"LiteRT cannot use {model_path} ({error}): fetch it again with `emi models pull`"
                ) from error
        self._whole_picture = _Scissors(DETECTOR_PX, "BORDER_CONSTANT")
        self._face = _Scissors(MESH_PX, "BORDER_REPLICATE")
        self._smoother = LandmarkSmoother() if max_faces == 1 else None
        self.reset()

    def reset(self) -> None:
        """Forget the faces of earlier pictures."""
        self._tracked: list[Region] = []
        self._pictures = 0
        self._meshes: list[NDArray[np.float64]] = []
        self._size = (1, 1)
        if self._smoother is not None:
            self._smoother.reset()

    def detect(self, rgb: NDArray[np.uint8], t_ms: int) -> Sequence[NDArray[np.float64]]:
        """The landmarks of each face, shape (478, 3), in fractions of the picture.

        z, in fractions of the width, is 0 at the head's centre and grows away from the camera.

        Args:
            rgb: shape (height, width, 3).
            t_ms: when it was captured; must grow.
        """
        height, width = rgb.shape[:2]
        self._size = (width, height)
        regions = self._tracked
        if len(regions) < self._max_faces:
            detected = [upright_as(region, self._tracked) for region in self._detect(rgb)]
            regions = merge(regions, detected[: self._max_faces], overlap=self._min_confidence)
        due = self._pictures % TURN_EVERY == 0
        self._pictures += 1
        found = [
            self._landmarks(rgb, region)
            if not due and any(region.iou(known) > 0 for known in self._tracked)
            else self._surer(rgb, region)
            for region in regions[: self._max_faces]
        ]
        meshes = [points for points in found if points is not None]
        regions = [region_around(points[:, :2]) for points in meshes]
        self._tracked = merge([region for region in regions if region.usable], overlap=self._min_confidence)
        if self._smoother is not None:
            if meshes:
                meshes = [self._smoother.push(meshes[0], t_ms / MS_PER_S)]
            else:
                self._smoother.reset()
        self._meshes = [points / (width, height, width) for points in meshes]
        return self._meshes

    def express(self, face: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Blendshapes (52,) and pose (4, 4) of a face of the last picture, by its position in the list."""
        points, (width, height) = self._meshes[face], self._size
        self._expression.input[0] = points[EXPRESSIVE, :2] * (width, height)
        self._expression.run()
        return self._blendshapes().copy(), self._canonical.pose(points, width, height)

    def close(self) -> None:
        """Nothing is held that Python does not release."""

    def _detect(self, rgb: NDArray[np.uint8]) -> list[Region]:
        seen = letterbox(*self._size)
        picture = self._whole_picture.cut(rgb, seen)
        np.multiply(picture, np.float32(2 / 255), out=self._detector.input[0])
        self._detector.input[0] -= 1  # in [-1, 1]
        self._detector.run()
        return regions_of_detections(self._offsets()[0], self._scores()[0, :, 0], seen, self._min_confidence)

    def _surer(self, rgb: NDArray[np.uint8], region: Region) -> NDArray[np.float64] | None:
        """As `_landmarks`, of the face as it stands in the region or upside down, whichever is surer."""
        points = self._landmarks(rgb, region)
        if points is None:
            return None
        score = float(self._presence()[0, 0, 0, 0])
        other = self._landmarks(rgb, region.upside_down())
        surer = float(self._presence()[0, 0, 0, 0]) > score + TURN_MARGIN
        return other if other is not None and surer else points

    def _landmarks(self, rgb: NDArray[np.uint8], region: Region) -> NDArray[np.float64] | None:
        """The landmarks (478, 3) of the face in a region, in pixels of the picture; None without a face."""
        picture = self._face.cut(rgb, region)
        np.multiply(picture, np.float32(1 / 255), out=self._mesh.input[0])
        self._mesh.run()
        if 1 / (1 + np.exp(-float(self._presence()[0, 0, 0, 0]))) <= self._min_confidence:
            return None
        raw = self._points().reshape(LANDMARKS, 3).astype(np.float64)
        place = region.matrix(MESH_PX)
        points: NDArray[np.float64] = np.empty_like(raw)
        points[:, :2] = raw[:, :2] @ place[:, :2].T + place[:, 2]
        width, height = self._size
        points[:, 2] = raw[:, 2] * (np.hypot(place[0, 0], place[1, 0] * width / height))
        return points


class _Scissors:
    """Cuts regions out of pictures as squares of one size.

    Places are rounded to 1/32 pixel, as MediaPipe's OpenCV 4 does it. OpenCV 5's `warpAffine` does not, and
    blendshapes of a still picture then differ from MediaPipe's by up to 0.008, not 0.001.
    """

    def __init__(self, side_px: int, border: str) -> None:
        """Make the arrays, which every picture uses again.

        Args:
            side_px: of the squares.
            border: OpenCV's name for what is outside a picture.
        """
        import cv2

        self._cv2 = cv2
        self._border = getattr(cv2, border)
        self._side_px = side_px
        self._region: Region | None = None  # of the places that are in the arrays
        grid = (2, side_px, side_px)  # x and y of each pixel of the square
        self._exact, self._steps, self._scratch = (
            np.empty(grid),
            np.empty(grid, np.int32),
            np.empty(grid, np.int32),
        )
        # For OpenCV: whole pixels, and the rest of both in one number.
        self._whole = np.empty((side_px, side_px, 2), np.int16)
        self._rest = np.empty((side_px, side_px), np.uint16)

    def cut(self, rgb: NDArray[np.uint8], region: Region) -> NDArray[np.uint8]:
        """What the region shows, shape (side_px, side_px, 3)."""
        if region != self._region:
            self._place(region)
            self._region = region
        cut: NDArray[np.uint8] = self._cv2.remap(
            rgb, self._whole, self._rest, self._cv2.INTER_LINEAR, borderMode=self._border
        )
        return cut

    def _place(self, region: Region) -> None:
        matrix = region.matrix(self._side_px) * (1 << SUBPIXEL_BITS)
        along = np.arange(self._side_px)
        down, across = matrix[:, 1:2] * along + matrix[:, 2:], matrix[:, :1] * along
        np.add(down[:, :, None], across[:, None, :], out=self._exact)
        np.rint(self._exact, out=self._exact)
        np.copyto(self._steps, self._exact, casting="unsafe")
        np.right_shift(self._steps, SUBPIXEL_BITS, out=self._scratch)
        self._whole[..., 0], self._whole[..., 1] = self._scratch
        np.bitwise_and(self._steps, (1 << SUBPIXEL_BITS) - 1, out=self._steps)
        np.left_shift(self._steps[1], SUBPIXEL_BITS, out=self._scratch[0])
        np.bitwise_or(self._scratch[0], self._steps[0], out=self._scratch[0])
        self._rest[...] = self._scratch[0]


class _Network:
    """One TensorFlow Lite network with one input."""

    def __init__(self, content: bytes, shape: tuple[int, ...]) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter: Any = Interpreter(model_content=content, num_threads=1)
        self._interpreter.allocate_tensors()
        (taken,) = self._interpreter.get_input_details()
        if tuple(taken["shape"]) != shape or taken["dtype"] is not np.float32:
            raise ValueError(f"a network takes {tuple(taken['shape'])}, not {shape}")
        self._input = self._interpreter.tensor(taken["index"])

    @property
    def input(self) -> NDArray[np.float32]:
        """What `run` reads, to be filled; never kept, since LiteRT refuses to run while somebody holds it."""
        view: NDArray[np.float32] = self._input()
        return view

    def run(self) -> None:
        """Compute the outputs."""
        self._interpreter.invoke()

    def output(self, shape: tuple[int, ...]) -> Any:
        """A function that gives the view of the output of that shape; views are not kept either."""
        for given in self._interpreter.get_output_details():
            if tuple(given["shape"]) == shape:
                return self._interpreter.tensor(given["index"])
        raise ValueError(f"a network gives nothing of shape {shape}")
