"""Features of one clip as other people store them: several file formats in, clean float32 rows out.

`FrameRate` gives times to frames that have none: evenly spaced, from a first one on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from safetensors import SafetensorError, safe_open

from emi_models.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_models.data.unpickle import Plain

__all__ = [
    "SUFFIXES",
    "WAV2VEC2",
    "FrameRate",
    "Frames",
    "as_frames",
    "first_rows",
    "read_frames",
]

SUFFIXES: Final = (".pkl", ".pickle", ".pt", ".pth", ".npy", ".safetensors")
WIDEST: Final = 65536  # values a frame, as in FusionShapes


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """The usable frames of one modality: values (n, D) float32, all finite, and their places `index` (n,).

    `total` counts all frames that the file has; `total - n` had a value that was NaN or infinite and are left
    out, and the others keep their places, so that time goes on where a frame is missing.
    """

    values: NDArray[np.float32]
    index: NDArray[np.int64]
    total: int

    @property
    def dropped(self) -> int:
        """How many frames were left out."""
        return self.total - len(self.index)


def read_frames(path: Path, max_bytes: int | None = None) -> Frames:
    """The frames of a pickle, a torch, numpy or safetensors file of at most `max_bytes`, by default 1 GiB.

    Raises:
        DataError: it cannot be read, is refused, or holds no frames (see `as_frames`).
    """
    from emi_models.data.unpickle import MAX_BYTES, read_pickle  # loads PyTorch

    value: Plain
    max_bytes = MAX_BYTES if max_bytes is None else max_bytes
    try:
        if path.suffix in (".npy", ".safetensors") and path.stat().st_size > max_bytes:
            raise DataError(f"{path} is larger than {max_bytes} bytes; split it into clips")
        if path.suffix == ".npy":
            value = np.load(path, allow_pickle=False)
        elif path.suffix == ".safetensors":
            value = _only_tensor(path)
        else:
            value = read_pickle(path, max_bytes)
    except (OSError, EOFError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read: {error}; fetch or make it again") from error
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is damaged: {error}; fetch or make it again") from error
    return as_frames(value, str(path))


def as_frames(value: Plain, name: str) -> Frames:
    """Frames from what a file held.

    An array (T, D) is T frames, (D,) is one, no value at all is none; a list of rows of one length is an
    array. Of a pair `[features (T, D), scores]`, as some extractors write them, the features count.

    Args:
        value: what the file held.
        name: what errors call it.

    Raises:
        DataError: it is anything else.
    """
    if isinstance(value, list | tuple) and len(value) == 2 and np.ndim(_numbers(value[0], name)) == 2:
        value = value[0]
    array = _numbers(value, name)
    if array.size == 0:
        width = array.shape[1] if array.ndim == 2 and 1 <= array.shape[1] <= WIDEST else 1
        return Frames(
            np.zeros((0, width), np.float32), np.zeros(0, np.int64), len(array) if array.ndim else 0
        )
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.shape[1] > WIDEST:
        raise DataError(f"{name} has shape {array.shape}, not (frames, values); store one row a frame")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is dropped below
        values = array.astype(np.float32)
    finite = np.isfinite(values).all(axis=1)
    return Frames(values[finite], np.flatnonzero(finite), len(values))


def _numbers(value: Plain, name: str) -> NDArray[np.generic]:
    try:
        array: NDArray[np.generic] = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise DataError(f"{name} holds rows of different lengths; store one row a frame") from error
    if array.dtype.kind not in "biuf":
        held = type(value).__name__ if array.ndim == 0 else f"{type(value).__name__} of {array.dtype}"
        raise DataError(f"{name} holds a {held}, not numbers; store an array (frames, values)")
    return array


def _only_tensor(path: Path) -> NDArray[np.generic]:
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        if len(names) != 1:
            raise DataError(f"{path} holds {len(names)} tensors, not one; store the features alone")
        array: NDArray[np.generic] = file.get_tensor(names[0]).float().numpy()
    return array


NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class FrameRate:
    """Frame k is known at `first_ns + k * hop_ns`, and lasts `first_ns`, or a hop if that is 0."""

    hop_ns: float
    first_ns: int = 0

    @classmethod
    def of(cls, hz: float) -> FrameRate:
        """Pictures: frame k at k / hz."""
        return cls(NS_PER_S / hz)

    def stamps(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """When the frames of these numbers are known, ns."""
        return self.first_ns + np.round(index * self.hop_ns).astype(np.int64)

    def length_ns(self, frames: int) -> int:
        """How long so many frames last, from the start to the end of the last; 0 for none."""
        return 0 if frames == 0 else round((frames - 1) * self.hop_ns + (self.first_ns or self.hop_ns))

    def count(self, until_ns: int) -> int:
        """How many frames are known at `until_ns`, that moment included."""
        return max(0, 1 + int((until_ns - self.first_ns + 0.5) // self.hop_ns))


# The convolutions of wav2vec 2.0 on 16 kHz sound: 400 samples a frame, one every 320.
WAV2VEC2: Final = FrameRate(hop_ns=20_000_000, first_ns=25_000_000)


def first_rows(file: Any, name: str, rows: int) -> NDArray[np.float32]:
    """The first rows of a tensor in a safetensors file opened for numpy; the others are not read.

    `file` is what `safetensors.safe_open` gives, which has no type of its own to name.
    """
    if file.get_slice(name).get_shape()[0] <= rows:
        whole: NDArray[np.float32] = file.get_tensor(name)
        return whole
    some: NDArray[np.float32] = file.get_slice(name)[: max(rows, 1)]  # it cannot slice to nothing
    return some[:rows]
