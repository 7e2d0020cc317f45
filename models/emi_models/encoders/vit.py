"""Vision features of the `taemi` bundle: a vision transformer's mean over the tokens of a face crop.

`face.crop_face` makes the crops. `read_face` reads crops that data sets give as picture files. Importing this
module loads neither PyTorch nor transformers; `VitEncoder` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_models.device import choose_device, on_device
from emi_models.encoders.face import CROP_PX
from emi_models.encoders.pretrained import (
    WEIGHTS,
    ModelSpec,
    check_config,
    identify,
    load_model,
    read_json,
    require,
)
from emi_models.errors import EmiError, ModelIntegrityError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "VIT_BASE",
    "UnreadablePictureError",
    "VitEncoder",
    "identify_face",
    "read_face",
    "resize_face",
]

VIT_BASE: Final = ModelSpec("google/vit-base-patch16-224-in21k", "vit", 768, 12, store_name="vit-base-in21k")
PREPROCESSOR: Final = "preprocessor_config.json"
BATCH: Final = 16
GPU_BATCH: Final = 64


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


def identify_face(folder: Path, published: ModelSpec = VIT_BASE) -> ModelSpec:
    """The vision transformer in the folder.

    Raises:
        ModelUnavailableError: a file is not in the folder.
        ModelIntegrityError: it holds a model of another kind, or a damaged one.
    """
    return identify(folder, published, {published.model_type})


class VitEncoder:
    """Turns face crops into one vector each: the mean of the last hidden state over all tokens.

    All of them, that of the whole crop ([CLS]) included: 197 for crops of 224 px, so that its share is
    1/197. The state is taken after the last layer norm, and not scaled. Each crop is encoded by itself.
    In float32; holds no state; one thread at a time.

    Source: Dosovitskiy et al. 2021 (arXiv:2010.11929); the mean as in TAEMI.
    """

    def __init__(self, folder: str | Path, spec: ModelSpec = VIT_BASE, *, device: str = "cpu") -> None:
        """Load the model from a folder in transformers' format; nothing is fetched and nothing is unpickled.

        Args:
            folder: holds config.json, model.safetensors and preprocessor_config.json.
            spec: which model it must be.
            device: that it runs on, as of `choose_device`.

        Raises:
            TrainingError: there is no such device.
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

        self._torch, self.device = torch, choose_device(device)
        model = load_model(folder, spec, ViTModel, add_pooling_layer=False)
        self._model = on_device(model, self.device)
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

    def encode(self, crops: NDArray[np.uint8], *, batch_size: int | None = None) -> NDArray[np.float32]:
        """Features, shape (N, 768); the caller owns them.

        The same call gives the same bits; a crop's features depend on its batch mates by no more than
        rounding.

        Args:
            crops: shape (N, 224, 224, 3), RGB, as `crop_face` and `resize_face` make them; N may be 0.
            batch_size: crops that go through the network at once; None: 16, on a GPU 64.

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
        size = batch_size or (BATCH if self.device.type == "cpu" else GPU_BATCH)
        features = np.empty((len(crops), self.dim), np.float32)
        with torch.inference_mode():
            for start in range(0, len(crops), size):
                rows = slice(start, start + size)
                pixels = (crops[rows].astype(np.float32) / 255 - self._mean) / self._deviation
                taken = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()  # aligned alike each time
                hidden = self._model(pixel_values=taken.to(self.device)).last_hidden_state
                features[rows] = hidden.mean(dim=1).cpu().numpy()  # of (b, 1 + patches, 768)
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
