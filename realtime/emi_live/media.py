"""Conversion of pushed media: frames, sound, stamps and rates of many kinds to what the intake accepts.

Accepted are numpy arrays, lists, PyAV frames (aiortc uses these), PIL images and torch tensors. No library is
imported for it: a program that has such an object has imported its library. Anything else raises
`ConfigurationError` at the call, with one sentence.
"""

from __future__ import annotations

import operator
import sys
from fractions import Fraction
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S
from emi_live.errors import ConfigurationError
from emi_live.rings import MAX_SIDE_PX

__all__ = [
    "PixelFormat",
    "SoundLayout",
    "frame_of",
    "rate_of",
    "sound_of",
    "stamp_of",
]

PixelFormat: TypeAlias = Literal["rgb24", "bgr24", "gray", "rgba", "bgra"]
SoundLayout: TypeAlias = Literal["channels_last", "channels_first", "interleaved"]

MAX_CHANNELS: Final = 64
SAFE_PLANES: Final = 7  # with more channels of planar sound, PyAV counts planes that do not exist
MAX_STAMP_NS: Final = 2**62  # what is added to a stamp must not overflow

# From each format to RGB, by channel; a frame of one channel is repeated.
TO_RGB: Final[dict[str, list[int]]] = {
    "rgb24": [0, 1, 2],
    "bgr24": [2, 1, 0],
    "gray": [0, 0, 0],
    "rgba": [0, 1, 2],
    "bgra": [2, 1, 0],
}
CHANNELS: Final = {"rgb24": 3, "bgr24": 3, "gray": 1, "rgba": 4, "bgra": 4}
TAKEN_FRAMES: Final = (
    "give uint8 in [0, 255] or float in [0, 1], of shape (height, width, 3) or (height, width)"
)
TAKEN_SOUND: Final = "give float in [-1, 1], int16, int32, int8 or uint8, of shape (n,) or (n, channels)"


def stamp_of(t_ns: Any) -> int | None:
    """A capture time as whole nanoseconds; None stays None.

    Raises:
        ConfigurationError: not a whole number, or out of range.
    """
    if t_ns is None:
        return None
    stamp = _whole(t_ns)
    if stamp is None:
        raise ConfigurationError(
            f"t_ns must be whole nanoseconds, got {_shown(t_ns)}; use time.monotonic_ns(), or leave t_ns out"
        )
    if abs(stamp) > MAX_STAMP_NS:
        raise ConfigurationError(f"t_ns={stamp} is out of range; use time.monotonic_ns(), or leave t_ns out")
    return stamp


def rate_of(rate_hz: Any) -> int:
    """A sample rate as a whole number of hertz; whole floats are taken.

    Raises:
        ConfigurationError: not a positive whole number.
    """
    rate = _whole(rate_hz)
    if rate is None and isinstance(rate_hz, (float, np.floating)) and float(rate_hz).is_integer():
        rate = int(rate_hz)
    if rate is None or rate <= 0:
        raise ConfigurationError(
            f"rate_hz must be a positive whole number of samples a second, got {_shown(rate_hz)}"
        )
    return rate


def frame_of(frame: Any, pixel_format: PixelFormat | None = None) -> tuple[NDArray[np.uint8], int | None]:
    """The frame as uint8 RGB of shape (height, width, 3), and the capture time that a PyAV frame carries.

    Args:
        frame: an array, list, PIL image, torch tensor (also channels first), or `av.VideoFrame`.
        pixel_format: None: one channel is grey, three are RGB.

    Raises:
        ConfigurationError: it cannot be converted to a frame.
    """
    if pixel_format is not None and pixel_format not in TO_RGB:
        raise ConfigurationError(
            f"format={pixel_format!r} is not known; there are {', '.join(get_args(PixelFormat))}"
        )
    if _is_of("av", frame) and hasattr(frame, "reformat"):
        return _from_video_frame(frame), _frame_time_ns(frame)
    if _is_of("PIL", frame) and hasattr(frame, "getbands"):
        _check_size(frame.height, frame.width)
        frame, pixel_format = _converted(lambda: np.asarray(frame.convert("RGB")), frame), "rgb24"
    array = _array_of(frame, "a frame", TAKEN_FRAMES)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or 0 in array.shape:
        raise ConfigurationError(f"a frame cannot have shape {_shape_of(frame, array)}; {TAKEN_FRAMES}")
    if array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):  # a tensor's way: channels first
        array = array.transpose(1, 2, 0)
    _check_size(*array.shape[:2])
    chosen = pixel_format or {1: "gray", 3: "rgb24"}.get(array.shape[2])
    if chosen is None or array.shape[2] != CHANNELS[chosen]:
        wanted = "with format='rgba' or 'bgra'" if array.shape[2] == 4 else "with the format that it has"
        raise ConfigurationError(
            f"a frame of shape {_shape_of(frame, array)} is not {chosen or 'rgb24'}; give it {wanted}"
        )
    return _bytes_of(array[:, :, TO_RGB[chosen]]), None


def sound_of(
    pcm: Any, rate_hz: Any = None, layout: SoundLayout = "channels_last", channels: int | None = None
) -> tuple[NDArray[Any], int, int | None]:
    """The samples, shape (n,) or (n, channels), their rate, and the capture time that a PyAV frame carries.

    int16 and int32 keep their type; the intake scales them.

    Args:
        pcm: an array, list, torch tensor, or `av.AudioFrame`, which has its own layout.
        rate_hz: None: 16 kHz, or the frame's own.
        layout: `interleaved` sound is one row of samples, the channels in turn.
        channels: how many, of interleaved sound.

    Raises:
        ConfigurationError: it cannot be converted to sound.
    """
    if layout not in get_args(SoundLayout):
        raise ConfigurationError(
            f"layout={layout!r} is not known; there are {', '.join(get_args(SoundLayout))}"
        )
    if _is_of("av", pcm) and hasattr(pcm, "sample_rate"):
        return _from_audio_frame(pcm, rate_hz)
    rate = 16_000 if rate_hz is None else rate_of(rate_hz)
    array = _array_of(pcm, "a block of sound", TAKEN_SOUND)
    if layout == "interleaved":
        count = _whole(channels)
        if count is None or count < 1 or array.size % count:
            raise ConfigurationError(
                f"interleaved sound of {array.size} values needs channels=N that divides it, "
                f"got channels={channels!r}"
            )
        array = array.reshape(-1, count)
    if array.ndim not in (1, 2):
        raise ConfigurationError(f"a block of sound cannot have shape {array.shape}; {TAKEN_SOUND}")
    if layout == "channels_first" and array.ndim == 2:
        array = array.T
    if array.ndim == 2 and array.size and not 1 <= array.shape[1] <= min(MAX_CHANNELS, len(array)):
        raise ConfigurationError(
            f"sound of {len(array)} samples in {array.shape[1]} channels cannot be meant; for (channels, n) "
            "say layout='channels_first', for packed samples layout='interleaved' and channels=N, and give "
            "PyAV's frames as they are"
        )
    return _samples_of(array), rate, None


def _from_video_frame(frame: Any) -> NDArray[np.uint8]:
    _check_size(frame.height, frame.width)
    array: NDArray[np.uint8] = _converted(lambda: frame.to_ndarray(format="rgb24"), frame)
    return np.ascontiguousarray(array)


def _from_audio_frame(frame: Any, rate_hz: Any) -> tuple[NDArray[Any], int, int | None]:
    rate = rate_of(frame.sample_rate)
    if rate_hz is not None and rate_of(rate_hz) != rate:
        raise ConfigurationError(f"the frame has {rate} Hz, not rate_hz={rate_hz}; leave rate_hz out")
    count = len(frame.layout.channels)
    if not 1 <= count <= MAX_CHANNELS:
        raise ConfigurationError(f"a frame of {count} channels cannot be used; give 1 to {MAX_CHANNELS}")

    def packed() -> NDArray[Any]:
        if not frame.format.is_planar:
            return np.asarray(frame.to_ndarray()).reshape(-1, count)
        if count <= SAFE_PLANES:
            return np.asarray(frame.to_ndarray()).T
        resampler = sys.modules["av"].AudioResampler(format=frame.format.packed.name, layout=frame.layout)
        return np.concatenate([np.asarray(one.to_ndarray()) for one in resampler.resample(frame)], axis=1)

    array = _converted(packed, frame)
    return _samples_of(array.reshape(-1, count)), rate, _frame_time_ns(frame)


def _frame_time_ns(frame: Any) -> int | None:
    """`pts * time_base` of a PyAV frame, exactly; None without them."""
    if frame.pts is None or not frame.time_base:
        return None
    return stamp_of(round(Fraction(frame.pts) * Fraction(frame.time_base) * NS_PER_S))


def _array_of(held: Any, what: str, remedy: str) -> NDArray[Any]:
    """The object as an array of numbers; an array is not copied."""
    if isinstance(held, np.ndarray) and held.dtype != object:
        return held
    if _is_of("torch", held) and hasattr(held, "detach"):
        held = _converted(lambda: _from_tensor(held), held)
    elif held is None or isinstance(held, (str, bytes, bytearray, memoryview, dict)) or np.isscalar(held):
        raise ConfigurationError(f"{what} cannot be made of {_shown(held)}; {remedy}")
    array: NDArray[Any] = _converted(lambda: np.asarray(held), held)
    if array.dtype.kind not in "buifc":
        raise ConfigurationError(f"{what} cannot be made of {type(held).__name__}; {remedy}")
    return array


def _from_tensor(tensor: Any) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    if "bfloat16" in str(tensor.dtype):  # which numpy does not know
        tensor = tensor.float()
    array: NDArray[Any] = tensor.numpy()
    return array


def _bytes_of(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """Values in [0, 255] as bytes, contiguous."""
    kind = frame.dtype.kind
    if frame.dtype == np.uint8:
        return np.ascontiguousarray(frame)
    if kind == "f":
        low, high = float(frame.min()), float(frame.max())
        if not (low >= 0.0 and high <= 1.0):  # never true of NaN
            raise ConfigurationError(
                f"a frame of floats must be in [0, 1], got {low:g} to {high:g}; "
                "scale it, or give its bytes as uint8"
            )
        return np.ascontiguousarray(np.rint(frame.astype(np.float32) * 255.0), dtype=np.uint8)
    if kind in "ui" and frame.dtype.itemsize > 2 and frame.min() >= 0 and frame.max() <= 255:
        return np.ascontiguousarray(frame, dtype=np.uint8)  # a list's numbers
    raise ConfigurationError(f"a frame of {frame.dtype} cannot be taken; {TAKEN_FRAMES}")


def _samples_of(pcm: NDArray[Any]) -> NDArray[Any]:
    """Samples of a type whose scale the intake knows."""
    if pcm.dtype == np.uint8:
        return (pcm.astype(np.float32) - 128.0) / 128.0
    if pcm.dtype == np.int8:
        return pcm.astype(np.float32) / 128.0
    if pcm.dtype.kind == "f" or pcm.dtype in (np.int16, np.int32):
        return pcm
    raise ConfigurationError(f"sound of {pcm.dtype} has no scale that is known; {TAKEN_SOUND}")


def _check_size(height: int, width: int) -> None:
    if not (1 <= height <= MAX_SIDE_PX and 1 <= width <= MAX_SIDE_PX):
        raise ConfigurationError(
            f"a frame of {width} x {height} pixels cannot be used; give 1 to {MAX_SIDE_PX} each way"
        )


def _converted(convert: Any, held: Any) -> Any:
    """The result of `convert`; any error of a library becomes a `ConfigurationError` of one sentence."""
    try:
        return convert()
    except Exception as error:  # each library has its own kinds
        reason = " ".join(str(error).split())[:200]
        raise ConfigurationError(f"{type(held).__name__} cannot be read as an array: {reason}") from error


def _is_of(library: str, held: Any) -> bool:
    return type(held).__module__.partition(".")[0] == library


def _whole(value: Any) -> int | None:
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return operator.index(value)
    except (TypeError, ValueError):  # ValueError: a tensor of several values
        return None


def _shape_of(frame: Any, array: NDArray[Any]) -> tuple[int, ...]:
    """The shape of the object that was given."""
    return tuple(getattr(frame, "shape", array.shape))


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:39] + '…'}"
