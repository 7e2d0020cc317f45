"""Vision features of the `taemi` bundle: upright face crops, and a vision transformer's mean over its tokens.

Crops are upright by the eyes, 224 px, six a second. `SteadySquare` keeps the square of a still face in place
and follows a moving one at once. `read_face` reads crops that data sets give as picture files. Importing this
module loads neither PyTorch nor transformers; `VitEncoder` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_models.encoders.face import SAME_FACE_IOU, Box
from emi_models.encoders.pretrained import WEIGHTS, ModelSpec, check_config, load_model, read_json, require
from emi_models.errors import EmiError, ModelIntegrityError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "CROP_MARGIN",
    "CROP_PX",
    "STAMP_JITTER_NS",
    "VISION_FPS",
    "VIT_BASE",
    "FaceSquare",
    "FrameSampler",
    "SteadySquare",
    "UnreadablePictureError",
    "VitEncoder",
    "crop_face",
    "cut_square",
    "face_square",
    "read_face",
    "resize_face",
]

CROP_PX: Final = 224
CROP_MARGIN: Final = 0.15  # added on each side, of the longer side of the landmarks' box: hair, ears, jaw
VISION_FPS: Final = 6.0  # of the data set's own crops
NS_PER_S: Final = 1_000_000_000
STAMP_JITTER_NS: Final = 1_000_000  # a stamp rounded to a whole millisecond still counts as on time

# Corners of the eye at the frame's left and of that at its right, in MediaPipe's face mesh.
LEFT_EYE: Final = (33, 133)
RIGHT_EYE: Final = (362, 263)
VIT_BASE: Final = ModelSpec("google/vit-base-patch16-224-in21k", "vit", 768, 12, store_name="vit-base-in21k")
PREPROCESSOR: Final = "preprocessor_config.json"


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


class UnreadablePictureError(EmiError, ValueError):
    """A picture file is empty, damaged, or not a picture."""


def read_face(path: Path) -> NDArray[np.uint8]:
    """The picture, shape (height, width, 3), RGB; the caller owns it. Size it with `resize_face`.

    Raises:
        UnreadablePictureError: it cannot be decoded.
    """
    import av

    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                picture: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
                return picture
    except (av.FFmpegError, OSError, IndexError) as error:
        raise UnreadablePictureError(
            f"{path} cannot be read as a picture ({error}): replace it, or leave it out"
        ) from error
    raise UnreadablePictureError(f"{path} contains no picture: replace it, or leave it out")


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
        if last is None or t_ns <= last[1] or _box(square).iou(_box(last[0])) < SAME_FACE_IOU:
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


def _box(square: FaceSquare) -> Box:
    half = square.side / 2
    return Box(square.x - half, square.y - half, square.x + half, square.y + half)


class VitEncoder:
    """Turns face crops into one vector each: the mean of the last hidden state over all tokens.

    All of them, that of the whole crop ([CLS]) included: 197 for crops of 224 px, so that its share is
    1/197. The state is taken after the last layer norm, and not scaled. Each crop is encoded by itself.
    Runs on the CPU in float32, holds no state; one thread at a time.

    Source: Dosovitskiy et al. 2021 (arXiv:2010.11929); the mean as in TAEMI.
    """

    def __init__(self, folder: str | Path, spec: ModelSpec = VIT_BASE) -> None:
        """Load the model from a folder in transformers' format; nothing is fetched and nothing is unpickled.

        Raises:
            ModelUnavailableError: a file of the model is not in the folder.
            ModelIntegrityError: it holds another model, or a damaged one.
        """
        folder = Path(folder)
        require(folder, spec, "config.json", WEIGHTS, PREPROCESSOR)
        config = check_config(folder, spec)
        side, self._mean, self._deviation = _normalisation(folder, spec)
        if side != config.get("image_size"):
            raise ModelIntegrityError(
                f"{folder / PREPROCESSOR} gives crops of {side} px and config.json takes "
                f"{config.get('image_size')}: {spec.remedy}"
            )
        import torch
        from transformers import ViTModel

        self._torch = torch
        self._model = load_model(folder, spec, ViTModel, add_pooling_layer=False)
        self.encoder_id = spec.encoder_id
        self.dim = spec.hidden_size
        self.side_px: int = side

    @property
    def model(self) -> Any:
        """The model as transformers has it, in evaluation mode."""
        return self._model

    @property
    def normalisation(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and deviation of the three channels in [0, 1] that a crop is brought to."""
        return self._mean, self._deviation

    def encode(self, crops: NDArray[np.uint8], *, batch_size: int = 16) -> NDArray[np.float32]:
        """Features, shape (N, 768); the caller owns them.

        The same call gives the same bits; a crop's features depend on its batch mates by no more than
        rounding.

        Args:
            crops: shape (N, 224, 224, 3), RGB, as `crop_face` and `resize_face` make them; N may be 0.
            batch_size: crops that go through the network at once.

        Raises:
            InputError: the shape or the type is another.
        """
        from emi_models.inputs import InputError

        crops = np.asarray(crops)
        side = self.side_px
        if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (side, side, 3):
            raise InputError(
                f"face crops are {crops.dtype} of shape {crops.shape}, not uint8 of (N, {side}, {side}, 3): "
                "make them with crop_face or resize_face"
            )
        torch = self._torch
        features = np.empty((len(crops), self.dim), np.float32)
        with torch.inference_mode():
            for start in range(0, len(crops), batch_size):
                rows = slice(start, start + batch_size)
                pixels = (crops[rows].astype(np.float32) / 255 - self._mean) / self._deviation
                taken = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()  # aligned alike each time
                hidden = self._model(pixel_values=taken).last_hidden_state  # (b, 1 + patches, 768)
                features[rows] = hidden.mean(dim=1).numpy()
        return features


def _normalisation(folder: Path, spec: ModelSpec) -> tuple[int, NDArray[np.float32], NDArray[np.float32]]:
    """The side of the crops in pixels, and the mean and deviation of their three channels in [0, 1]."""
    found: dict[str, Any] = read_json(folder / PREPROCESSOR, spec)
    size = found.get("size")
    try:
        side = int(size["height"] if isinstance(size, dict) else size)  # type: ignore[arg-type]
        mean = np.array(found["image_mean"], np.float32).reshape(3)
        deviation = np.array(found["image_std"], np.float32).reshape(3)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelIntegrityError(
            f"{folder / PREPROCESSOR} does not say size, image_mean and image_std of three channels: "
            f"{spec.remedy}"
        ) from error
    return side, mean, deviation
