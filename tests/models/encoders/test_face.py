from __future__ import annotations

import math
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from emi_models.encoders import COMPACT_ENCODERS
from emi_models.encoders.face import BLENDSHAPES, ENCODER_ID, FACE_DIM, Backend, FaceEncoder, head_pose
from emi_models.errors import ModelIntegrityError, ModelUnavailableError
from tests.models.encoders.media import read_frames

PITCH, YAW, ROLL, X, Y, Z = range(BLENDSHAPES, FACE_DIM)
SMILE = 44  # mouthSmileLeft
angle = st.floats(-1.4, 1.4)


@pytest.fixture(scope="module")
def model(assets: Path) -> Path:
    return assets / "mediapipe" / "face_landmarker.task"


@pytest.fixture(scope="module")
def shared(model: Path) -> Iterator[FaceEncoder]:
    encoder = FaceEncoder(model)
    yield encoder
    encoder.close()


@pytest.fixture
def encoder(shared: FaceEncoder) -> FaceEncoder:
    shared.reset()
    return shared


def features(encoder: FaceEncoder, frames: list[tuple[NDArray[np.uint8], int]]) -> NDArray[np.float32]:
    encoder.reset()
    results = [encoder.analyse(rgb, t_ns) for rgb, t_ns in frames]
    return np.array([result.features for result in results if result.features is not None])


def test_its_id_is_the_one_that_checkpoints_name() -> None:
    assert COMPACT_ENCODERS["vision"] == ENCODER_ID


def test_a_face_has_features_and_a_box(encoder: FaceEncoder, assets: Path) -> None:
    for rgb, t_ns in read_frames(assets / "face" / "pyfeat_single_face.mp4", 10):
        result = encoder.analyse(rgb, t_ns)
        assert result.faces == 1
        assert result.features is not None
        assert result.features.shape == (FACE_DIM,)
        assert result.features.dtype == np.float32
        assert ((result.features[:BLENDSHAPES] >= 0) & (result.features[:BLENDSHAPES] <= 1)).all()
        assert np.abs(result.features[BLENDSHAPES:]).max() < 1
        assert result.box is not None
        assert 0.3 < result.box.left < result.box.right < 0.6


def test_a_smile_comes_and_goes(encoder: FaceEncoder, assets: Path) -> None:
    smile = features(encoder, read_frames(assets / "face" / "pyfeat_single_face.mp4"))[:, SMILE]
    assert smile[0] < 0.05
    assert smile.max() > 0.8
    assert smile[-1] < 0.05


def test_no_face_has_none(encoder: FaceEncoder, assets: Path) -> None:
    for rgb, t_ns in read_frames(assets / "face" / "pyfeat_no_face.mp4", 20):
        result = encoder.analyse(rgb, t_ns)
        assert (result.faces, result.features, result.box) == (0, None, None)


def test_the_same_frames_give_the_same_bits(model: Path, encoder: FaceEncoder, assets: Path) -> None:
    frames = read_frames(assets / "face" / "pyfeat_single_face.mp4", 30)
    first = features(encoder, frames)
    other = FaceEncoder(model)
    later = [(rgb, t_ns + 123_456_789_000) for rgb, t_ns in frames]
    assert first.tobytes() == features(other, later).tobytes()
    other.close()


def test_times_that_do_not_grow_do_no_harm(encoder: FaceEncoder, assets: Path) -> None:
    rgb, _ = read_frames(assets / "face" / "pyfeat_single_face.mp4", 1)[0]
    for t_ns in (0, 0, 5_000, -(10**9), 10**9, 10**9):
        assert encoder.analyse(rgb, t_ns).faces == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 640), (3, 2), (1080, 1920)])
def test_a_picture_of_any_size_is_taken(encoder: FaceEncoder, shape: tuple[int, int]) -> None:
    assert encoder.analyse(np.zeros((*shape, 3), np.uint8), 0).faces == 0


def test_the_head_turns_as_it_is_seen(encoder: FaceEncoder, assets: Path) -> None:
    frames = read_frames(assets / "face" / "intel_head-pose-face-detection-female.gif")
    seen = features(encoder, frames)
    assert seen[0, YAW] < -0.4  # first to the picture's left
    assert seen[:, YAW].max() > 0.2
    mirrored = features(encoder, [(np.ascontiguousarray(rgb[:, ::-1]), t_ns) for rgb, t_ns in frames])
    for column in (YAW, X):
        assert np.corrcoef(seen[:, column], -mirrored[:, column])[0, 1] > 0.95
    np.testing.assert_allclose(seen[:, PITCH], mirrored[:, PITCH], atol=0.15)


def test_the_larger_of_two_faces_is_followed(encoder: FaceEncoder, assets: Path) -> None:
    frames = read_frames(assets / "face" / "intel_head-pose-face-detection-female-and-male.gif", 30)
    results = [encoder.analyse(rgb, t_ns) for rgb, t_ns in frames]
    assert [result.faces for result in results] == [2] * len(results)
    assert all(result.box is not None and result.box.left > 0.5 for result in results)
    rolls = [result.features[ROLL] for result in results if result.features is not None]
    assert max(rolls) > 0.6  # both lean their heads to the picture's left


@given(pitch=angle, yaw=angle, roll=angle, scale=st.floats(0.5, 2.0))
def test_head_pose_undoes_a_rotation(pitch: float, yaw: float, roll: float, scale: float) -> None:
    def about(axis: int, by: float) -> NDArray[np.float64]:
        i, j = ((1, 2), (2, 0), (0, 1))[axis]
        rotation = np.eye(3)
        rotation[i, i] = rotation[j, j] = math.cos(by)
        rotation[i, j], rotation[j, i] = -math.sin(by), math.sin(by)
        return rotation

    matrix = np.eye(4)
    matrix[:3, :3] = scale * (about(1, yaw) @ about(0, pitch) @ about(2, roll))
    matrix[:3, 3] = (6.0, -12.0, -120.0)
    np.testing.assert_allclose(head_pose(matrix), [pitch, yaw, roll, 0.1, -0.2, -1.0], atol=1e-9)


QUIET = """
import sys, logging
import numpy as np
from emi_models.console import own_standard_error
from emi_models.encoders.face import FaceEncoder

class Count(logging.Handler):
    seen = 0
    def emit(self, record):
        self.seen += 1

own_standard_error()
count = Count()
logging.getLogger("emi_models").addHandler(count)
logging.getLogger("emi_models").setLevel(logging.DEBUG)
encoder = FaceEncoder(sys.argv[1], backend=sys.argv[2])
encoder.analyse(np.zeros((360, 640, 3), np.uint8), 0)
encoder.close()
encoder.close()
print("to the log" if count.seen else "nothing was caught")
"""


@pytest.mark.parametrize("backend", ["litert", "mediapipe"])
def test_what_it_says_while_it_loads_goes_to_the_log(model: Path, backend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", QUIET, str(model), backend], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("to the log\n", "")


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="models pull"):
        FaceEncoder(tmp_path / "face_landmarker.task")


@pytest.mark.parametrize("backend", ["litert", "mediapipe"])
def test_what_is_no_model_is_refused(tmp_path: Path, backend: Backend) -> None:
    damaged = tmp_path / "face_landmarker.task"
    damaged.write_bytes(b"not a model" * 100)
    with pytest.raises(ModelIntegrityError, match="models pull"):
        FaceEncoder(damaged, backend=backend)


@pytest.mark.parametrize("damage", ["cut off", "a bit", "no network", "another network", "a folder"])
def test_a_damaged_model_is_refused_in_one_line(model: Path, tmp_path: Path, damage: str) -> None:
    damaged = tmp_path / "face_landmarker.task"
    content = bytearray(model.read_bytes())
    if damage == "cut off":
        damaged.write_bytes(content[: len(content) // 2])
    elif damage == "a bit":
        content[len(content) // 2] ^= 1
        damaged.write_bytes(content)
    elif damage == "a folder":
        with zipfile.ZipFile(damaged, "w") as bundle:
            bundle.mkdir("face_detector.tflite")
    else:
        with zipfile.ZipFile(model) as bundle, zipfile.ZipFile(damaged, "w") as other:
            for name in bundle.namelist():
                if damage == "another network" or name != "face_blendshapes.tflite":
                    swapped = name.replace("face_blendshapes", "face_detector")
                    other.writestr(name, bundle.read(swapped))
    with pytest.raises(ModelIntegrityError, match="LiteRT cannot use") as refused:
        FaceEncoder(damaged)
    assert "\n" not in str(refused.value)


AFTER_LIGHTNING = """
import signal, sys, time

import numpy as np
from emi_models.encoders.face import FaceEncoder

FaceEncoder(sys.argv[1], backend="mediapipe").close()
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    if (handler := signal.getsignal(number)) is not None:
        signal.signal(number, handler)
encoder = FaceEncoder(sys.argv[1], backend="mediapipe")
until = time.process_time() + 0.5
frame = 0
while time.process_time() < until:
    encoder.analyse(np.zeros((64, 64, 3), np.uint8), frame * 40_000_000)
    frame += 1
encoder.close()
"""


@pytest.mark.assets
def test_a_library_that_puts_all_signal_handlers_back_does_not_end_the_process(assets: Path) -> None:
    model = assets / "mediapipe" / "face_landmarker.task"
    done = subprocess.run(
        [sys.executable, "-c", AFTER_LIGHTNING, str(model)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
