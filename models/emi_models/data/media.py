"""A clip's audio and face crops, as the encoders read them: the input for training encoders.

`emi extract --keep-media` writes one file a clip next to its features, in `media/<id>.safetensors`. Audio and
crops are not compressed, so a trained encoder reads the same numbers in training, in `emi eval` and live. A
clip's words are in the file of its features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from emi_models.data.clip import check_id
from emi_models.errors import DataError
from emi_models.files import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["MEDIA", "ClipMedia", "media_path", "read_media", "write_media"]

MEDIA: Final = "media"  # the folder, next to `features`


@dataclass(frozen=True, slots=True, eq=False)
class ClipMedia:
    """The input of the encoders for one clip.

    Attributes:
        sound: 16 kHz mono, (n,) float32 in [-1, 1]; empty if there is none.
        sound_ns: capture time of the first sample.
        faces: upright crops, (N, side, side, 3) uint8 RGB; N may be 0.
        faces_ns: their capture times, (N,) int64.
    """

    sound: NDArray[np.float32]
    sound_ns: int
    faces: NDArray[np.uint8]
    faces_ns: NDArray[np.int64]


def media_path(folder: Path, clip_id: str) -> Path:
    """The path of a clip's media in a data set's folder; the file need not exist."""
    return folder / MEDIA / f"{check_id(clip_id)}.safetensors"


def write_media(path: Path, media: ClipMedia) -> None:
    """Write one clip's media; the file is complete or absent."""
    tensors: dict[str, NDArray[np.generic]] = {
        "sound": np.ascontiguousarray(media.sound, np.float32),
        "sound_ns": np.array([media.sound_ns], np.int64),
        "faces": np.ascontiguousarray(media.faces, np.uint8),
        "faces_ns": np.ascontiguousarray(media.faces_ns, np.int64),
    }
    with replacing(path) as part:
        save_file(tensors, part)


def read_media(path: Path, *, faces: bool = True) -> ClipMedia:
    """The media of one clip; with `faces` False the crops are left out.

    Raises:
        DataError: there is no such file, or it is damaged.
    """
    try:
        with safe_open(path, framework="np") as file:
            sound, sound_ns = file.get_tensor("sound"), int(file.get_tensor("sound_ns")[0])
            faces_ns: NDArray[np.int64] = file.get_tensor("faces_ns")
            crops: NDArray[np.uint8] = (
                file.get_tensor("faces") if faces else np.zeros((len(faces_ns), 0, 0, 3), np.uint8)
            )
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is missing: extract the clips with `emi extract --keep-media`, which keeps the audio "
            "and the faces that encoders are trained on"
        ) from error
    except (OSError, SafetensorError, IndexError) as error:
        raise DataError(f"{path} cannot be read ({error}); extract the clip again") from error
    if (
        sound.dtype != np.float32
        or sound.ndim != 1
        or not np.isfinite(sound).all()
        or crops.dtype != np.uint8
        or crops.ndim != 4
        or faces_ns.shape != crops.shape[:1]
    ):
        raise DataError(
            f"{path} holds audio of {sound.dtype} {sound.shape} and faces of {crops.dtype} {crops.shape}, "
            "which `emi extract --keep-media` does not write; extract the clip again"
        )
    return ClipMedia(sound, sound_ns, crops, faces_ns)
