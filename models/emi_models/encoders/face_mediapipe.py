"""MediaPipe's own Face Landmarker: for `face.backend=mediapipe`, and what `face_litert` is tested against.

Importing any part of MediaPipe imports all of it: its audio tasks start PortAudio, which looks for a sound
server and writes in the home folder and in /dev/shm; its drawing helpers import pyplot, which writes a font
cache. `import_mediapipe` delays both until something in them is used.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
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
    from numpy.typing import NDArray

__all__ = ["MediapipeLandmarker", "import_mediapipe"]

logger = logging.getLogger(__name__)

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


class MediapipeLandmarker:
    """Faces of one video; as `LitertLandmarker`, with MediaPipe's own threads."""

    def __init__(self, model_path: Path, max_faces: int, min_confidence: float) -> None:
        """Load MediaPipe.

        Raises:
            ModelUnavailableError: MediaPipe is not installed.
            ModelIntegrityError: it cannot use the file.
        """
        self._model_path = model_path
        self._max_faces = max_faces
        self._min_confidence = min_confidence
        self._landmarker: Any = None
        self._result: Any = None
        self.reset()

    def reset(self) -> None:
        """Start MediaPipe afresh; after an error it does not recover by itself."""
        self.close()
        try:
            import_mediapipe()
            from mediapipe.tasks.python import BaseOptions, vision
        except ModuleNotFoundError as error:
            raise ModelUnavailableError(
                f"face.backend=mediapipe needs the extra mediapipe ({error}): "
                "pip install 'emi-live[mediapipe]', or leave face.backend at litert"
            ) from error
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
            self.detect(np.zeros((64, 64, 3), np.uint8), 0)

    def detect(self, rgb: NDArray[np.uint8], t_ms: int) -> Sequence[NDArray[np.float64]]:
        """As `LitertLandmarker.detect`; MediaPipe refuses a time that is not above 0 and the one before."""
        from mediapipe import Image, ImageFormat

        image = Image(image_format=ImageFormat.SRGB, data=np.ascontiguousarray(rgb))
        self._result = self._landmarker.detect_for_video(image, t_ms)
        return [np.array([(p.x, p.y, p.z) for p in face]) for face in self._result.face_landmarks]

    def express(self, face: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """As `LitertLandmarker.express`."""
        scores = [shape.score for shape in self._result.face_blendshapes[face]]
        return np.array(scores, np.float32), self._result.facial_transformation_matrixes[face]

    def close(self) -> None:
        """Release MediaPipe's threads and memory."""
        if self._landmarker is not None:
            self._landmarker.close()
            self._landmarker = None


def _ignore_profiling_signals() -> None:
    """Have Python know that SIGPROF is ignored.

    MediaPipe's threads are sent SIGPROF by timers of a profiler that is linked into it. It sets the signal to
    be ignored, once and unseen by Python; a program that then restores all handlers that Python knows of, as
    Lightning does after training, makes the next one end the process.
    """
    if signal.getsignal(signal.SIGPROF) is signal.SIG_DFL:
        with suppress(ValueError):  # not in the main thread, where alone Python allows it
            signal.signal(signal.SIGPROF, signal.SIG_IGN)
