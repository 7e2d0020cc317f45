"""The networks without MediaPipe see what MediaPipe sees: in real faces, and in what can be done to them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from emi_models.encoders.face import BLENDSHAPES, FaceEncoder, FaceResult
from tests.models.encoders.media import read_frames

pytestmark = pytest.mark.assets

Picture = NDArray[np.uint8]
SMILE: Final = 44
SAME: Final = 3e-3  # of blendshapes where the detector sees the face; most seen in 400 pictures: 0.0024
CLIP: Final = "av/face_and_speech.mp4"
STILLS: Final = (
    "face/pyfeat_single_face.jpg",
    "face/pyfeat_single_face.mp4",
    "face/pyfeat_face_noface.mov",
    "face/pyfeat_no_face.mp4",
    "face/intel_head-pose-face-detection-female.gif",
    "face/intel_head-pose-face-detection-female-and-male.gif",
    "face/intel_sorry.mkv",
    CLIP,
    "av/face_lost_4s_to_8s_speech_throughout.mp4",
    "av/face_slides_out_after_2s.mp4",
    "av/face_throughout_speech_stops_at_5s.mp4",
)


class Pair:
    """One encoder of each backend; both see the same pictures."""

    def __init__(self, assets: Path, max_faces: int) -> None:
        model = assets / "mediapipe" / "face_landmarker.task"
        self.ours = FaceEncoder(model, max_faces)
        self.theirs = FaceEncoder(model, max_faces, backend="mediapipe")

    def still(self, rgb: Picture) -> tuple[FaceResult, FaceResult]:
        """What each sees in a picture that follows no other."""
        self.reset()
        return self.next(rgb, 0)

    def next(self, rgb: Picture, t_ns: int) -> tuple[FaceResult, FaceResult]:
        """What each sees in the next picture."""
        rgb = np.ascontiguousarray(rgb)
        return self.ours.analyse(rgb, t_ns), self.theirs.analyse(rgb, t_ns)

    def reset(self) -> None:
        self.ours.reset()
        self.theirs.reset()

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture(scope="module")
def both(assets: Path) -> Iterator[Pair]:
    pair = Pair(assets, 4)
    yield pair
    pair.close()


@pytest.fixture(scope="module")
def picture(assets: Path) -> Picture:
    return read_frames(assets / CLIP, 1)[0][0]


def assert_same(ours: FaceResult, theirs: FaceResult, blendshapes: float = SAME, pose: float = 1e-3) -> None:
    assert ours.faces == theirs.faces
    if theirs.features is None:
        assert ours.features is None
        return
    assert ours.features is not None
    assert ours.landmarks is not None
    assert theirs.landmarks is not None
    np.testing.assert_allclose(
        ours.features[:BLENDSHAPES], theirs.features[:BLENDSHAPES], rtol=0, atol=blendshapes
    )
    np.testing.assert_allclose(ours.features[BLENDSHAPES:], theirs.features[BLENDSHAPES:], rtol=0, atol=pose)
    np.testing.assert_allclose(ours.landmarks, theirs.landmarks, rtol=0, atol=pose)


@pytest.mark.parametrize("name", STILLS)
def test_a_still_picture_gives_what_mediapipe_gives(both: Pair, assets: Path, name: str) -> None:
    frames = read_frames(assets / name, 31)
    for rgb, _ in (frames[0], frames[-1]):
        assert_same(*both.still(rgb))


def turned(rgb: Picture, degrees: float) -> Picture:
    height, width = rgb.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    return np.asarray(cv2.warpAffine(rgb, matrix, (width, height)), np.uint8)


def grey(rgb: Picture) -> Picture:
    return np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.uint8)


def scaled(rgb: Picture, by: float) -> Picture:
    return np.asarray(cv2.resize(rgb, None, fx=by, fy=by, interpolation=cv2.INTER_AREA), np.uint8)


CHANGES: Final[dict[str, tuple[Callable[[Picture], Picture], int]]] = {  # and the faces that are seen
    "turned by 45 degrees": (lambda rgb: turned(rgb, 45), 1),
    "turned by -45 degrees": (lambda rgb: turned(rgb, -45), 1),
    "turned by 90 degrees": (lambda rgb: np.rot90(rgb), 1),
    "portrait": (lambda rgb: rgb[:, 200:400], 1),
    "grey": (grey, 1),
    "a tenth": (lambda rgb: scaled(rgb, 0.1), 1),
    "4K": (lambda rgb: scaled(rgb, 6), 1),
    "chin cut off by the border": (lambda rgb: rgb[:220], 1),
    "half cut off by the border": (lambda rgb: rgb[:, :297], 0),
    "four faces": (lambda rgb: np.tile(rgb, (2, 2, 1)), 4),
    "black": (np.zeros_like, 0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_gives_what_mediapipe_gives(both: Pair, picture: Picture, change: str) -> None:
    apply, faces = CHANGES[change]
    ours, theirs = both.still(apply(picture))
    assert ours.faces == faces
    assert_same(ours, theirs)


def test_a_face_upside_down_is_read_as_one_here_and_misread_by_mediapipe(
    both: Pair, picture: Picture
) -> None:
    ours, theirs = both.still(picture[::-1, ::-1])
    assert ours.problem == "face rolled"
    assert theirs.features is not None
    assert theirs.problem is None


def test_small_grey_faces_give_what_mediapipe_gives(both: Pair, assets: Path) -> None:
    with np.load(assets / "face" / "ferplus" / "valid.npz") as stored:
        pictures = stored["pictures"][::150]
    seen = 0
    for values in pictures:
        ours, theirs = both.still(np.repeat(values[..., None], 3, axis=2))
        assert_same(ours, theirs)
        seen += ours.faces
    assert seen > len(pictures) / 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "frames", "max_faces", "blendshapes", "mean"),
    [
        # The detector sees the face in each picture, so the region does too.
        ("face/pyfeat_single_face.mp4", slice(None), 2, SAME, 5e-4),
        # Its other seconds are those of the last clip here, where the face is lost in these.
        (CLIP, slice(120, 240), 2, SAME, 5e-4),
        # Regions come from the landmarks before, so rounding is fed back, as between two runs of MediaPipe.
        ("face/pyfeat_single_face.mp4", slice(None), 1, 0.02, 4e-3),
        ("face/intel_head-pose-face-detection-female-and-male.gif", slice(None), 2, 0.05, 0.015),
        ("av/face_slides_out_after_2s.mp4", slice(None), 2, 0.12, 5e-3),
        ("av/face_lost_4s_to_8s_speech_throughout.mp4", slice(None), 2, SAME, 5e-4),
    ],
)
def test_a_clip_gives_what_mediapipe_gives(
    assets: Path, name: str, frames: slice, max_faces: int, blendshapes: float, mean: float
) -> None:
    pair = Pair(assets, max_faces)
    differences, smiles = [], []
    for rgb, t_ns in read_frames(assets / name)[frames]:
        ours, theirs = pair.next(rgb, t_ns)
        assert_same(ours, theirs, blendshapes, pose=0.02)
        if ours.features is not None and theirs.features is not None:
            differences.append(np.abs(ours.features - theirs.features)[:BLENDSHAPES].max())
            smiles.append((ours.features[SMILE], theirs.features[SMILE]))
    pair.close()
    assert np.mean(differences) < mean
    first, second = np.array(smiles).T
    if np.ptp(second) > 0.1:  # else there is no course to compare
        assert np.corrcoef(first, second)[0, 1] > 0.985


@pytest.mark.slow
def test_where_rounding_is_fed_back_mediapipe_differs_from_itself_as_much(assets: Path) -> None:
    """One value in a thousand, changed by one of 255 levels, moves MediaPipe's features as far."""
    clip = assets / "face" / "intel_head-pose-face-detection-female-and-male.gif"
    pair = Pair(assets, 2)
    again = FaceEncoder(assets / "mediapipe" / "face_landmarker.task", 2, backend="mediapipe")
    random = np.random.default_rng(7)
    apart: list[tuple[float, float]] = []
    for rgb, t_ns in read_frames(clip):
        noisy = np.where(random.random(rgb.shape) < 1e-3, rgb ^ 1, rgb)
        ours, theirs = pair.next(rgb, t_ns)
        other = again.analyse(noisy, t_ns)
        assert ours.features is not None
        assert theirs.features is not None
        assert other.features is not None
        apart.append(
            (
                float(np.abs(ours.features - theirs.features)[:BLENDSHAPES].max()),
                float(np.abs(other.features - theirs.features)[:BLENDSHAPES].max()),
            )
        )
    pair.close()
    again.close()
    from_theirs, from_itself = np.mean(apart, axis=0)
    assert from_theirs < 2 * from_itself


WITHOUT_MEDIAPIPE: Final = """
import sys
import numpy as np
sys.modules["mediapipe"] = None
from emi_models.encoders.face import FaceEncoder
from emi_models.errors import ModelUnavailableError
seen = FaceEncoder(sys.argv[1]).analyse(np.zeros((36, 64, 3), np.uint8), 0)
print(seen.faces, *({"matplotlib", "sounddevice", "torch", "onnxruntime"} & set(sys.modules)))
try:
    FaceEncoder(sys.argv[1], backend="mediapipe")
except ModelUnavailableError as error:
    print("emi-live[mediapipe]" in str(error), len(str(error).splitlines()))
"""


def test_mediapipe_need_not_be_installed_and_the_extra_is_named(assets: Path) -> None:
    model = assets / "mediapipe" / "face_landmarker.task"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MEDIAPIPE, str(model)], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["0", "True 1"], done.stderr


def test_a_picture_costs_one_thread(assets: Path) -> None:
    code = (
        "import os, sys\n"
        "import cv2, numpy as np\n"
        "from emi_models.encoders.face import FaceEncoder\n"
        "def threads(): return len(os.listdir('/proc/self/task'))\n"
        "cv2.remap(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9, 2), np.int16), None, cv2.INTER_NEAREST)\n"
        "before = threads()\n"
        "FaceEncoder(sys.argv[1]).analyse(np.zeros((720, 1280, 3), np.uint8), 0)\n"
        "print(threads() - before)\n"
    )
    model = assets / "mediapipe" / "face_landmarker.task"
    done = subprocess.run(
        [sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "0", done.stderr
