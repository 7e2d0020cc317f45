"""What every fusion network takes: the last window of features, its masks and its presence flags.

`shown_frames` says which frames a window holds; training and live use both call it. A `StreamWindow` is one
window as a part of a stream, in numpy, with numbered frames, so that an engine can tell which are new.
`StreamWindow.arrays` pads it for engines that compute each window whole, and `StreamWindow.inputs` gives the
same arrays to PyTorch as `FusionInputs`.

Importing this module does not load torch, which takes seconds; `StreamWindow.inputs` does.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models import MODALITIES
from emi_models.errors import EmiError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    from numpy.typing import NDArray
    from torch import Tensor

    from emi_models import Modality

__all__ = [
    "COMPACT_SHAPES",
    "TAEMI_SHAPES",
    "FrameRun",
    "FusionInputs",
    "FusionShapes",
    "InputError",
    "StreamWindow",
    "equidistant",
    "shown_frames",
]


class InputError(EmiError, ValueError):
    """Arrays have not the shapes or types that the network or the encoder takes, or are not finite."""


@dataclass(frozen=True, slots=True)
class FusionShapes:
    """The sizes of one window: frames are the most that fit in 12 s, dims the width of one frame."""

    vision_frames: int
    vision_dim: int
    audio_frames: int
    audio_dim: int
    text_dim: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65536:
                raise ValueError(f"{field.name} is {value!r}; it must be a whole number from 1 to 65536")


# 52 blendshapes, 3 rotations, 3 translations at ~33 Hz; 64 log-mels, 9 of pitch, level, rhythm at 50 Hz.
COMPACT_SHAPES: Final = FusionShapes(
    vision_frames=400, vision_dim=58, audio_frames=599, audio_dim=73, text_dim=384
)
# ViT-B faces; wav2vec 2.0 states, arousal, dominance, valence; GTE. 599 = 12 s at 16 kHz after its strides.
TAEMI_SHAPES: Final = FusionShapes(
    vision_frames=400, vision_dim=768, audio_frames=599, audio_dim=1027, text_dim=768
)


@dataclass(frozen=True, slots=True, eq=False)
class FusionInputs:
    """One window, or B independent ones: features (float32), masks and presence (bool, True = present).

    Shapes: vision (B, Tv, Dv), vision_mask (B, Tv), vision_present (B,); audio in the same way; text (B, Dt),
    text_present (B,). What stands where a mask or a presence flag is False is never read by the network, but
    must be finite. `present` without a frame is treated as not present. The maker of a window keeps
    ownership of its tensors: engines only read them, and only until `infer` returns.
    """

    vision: Tensor
    vision_mask: Tensor
    vision_present: Tensor
    audio: Tensor
    audio_mask: Tensor
    audio_present: Tensor
    text: Tensor
    text_present: Tensor

    @classmethod
    def empty(cls, shapes: FusionShapes, batch: int = 1) -> FusionInputs:
        """Windows in which nothing is present: zeros and False, of the given sizes."""
        import torch

        return cls(
            vision=torch.zeros(batch, shapes.vision_frames, shapes.vision_dim),
            vision_mask=torch.zeros(batch, shapes.vision_frames, dtype=torch.bool),
            vision_present=torch.zeros(batch, dtype=torch.bool),
            audio=torch.zeros(batch, shapes.audio_frames, shapes.audio_dim),
            audio_mask=torch.zeros(batch, shapes.audio_frames, dtype=torch.bool),
            audio_present=torch.zeros(batch, dtype=torch.bool),
            text=torch.zeros(batch, shapes.text_dim),
            text_present=torch.zeros(batch, dtype=torch.bool),
        )

    @classmethod
    def stack(cls, windows: Sequence[FusionInputs]) -> FusionInputs:
        """All rows of several windows as one batch, in order; the frame counts must agree."""
        import torch

        if not windows:
            raise InputError("no window to stack; give at least one")
        columns = zip(*(window.tensors() for window in windows), strict=True)
        return cls(*(torch.cat(column) for column in columns))

    @property
    def batch(self) -> int:
        """How many independent windows these are."""
        return self.text.shape[0]

    def tensors(self) -> tuple[Tensor, ...]:
        """The eight tensors in the order of `names()`."""
        return tuple(getattr(self, name) for name in self.names())

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of the eight tensors, in the order in which exported networks take them."""
        return tuple(field.name for field in fields(cls))

    def without(self, *modalities: Modality) -> FusionInputs:
        """The same window as if the given modalities were missing, for ablation and counterfactuals.

        Shares the feature tensors; only the presence flags are new.
        """
        import torch

        gone = {f"{modality}_present": torch.zeros_like(self.text_present) for modality in modalities}
        if unknown := set(modalities) - set(MODALITIES):
            raise InputError(f"no such modality: {sorted(unknown)}; there are {', '.join(MODALITIES)}")
        return replace(self, **gone)

    def check(self, shapes: FusionShapes) -> None:
        """Return if these tensors fit a network of the given sizes and are finite.

        Raises:
            InputError: a shape, a type or a value is wrong; the message names the tensor and both sides.
        """
        import torch

        for name, tensor, expected in zip(self.names(), self.tensors(), self._layout(shapes), strict=True):
            if tuple(tensor.shape) != expected or self.batch < 1:
                raise InputError(
                    f"{name} has shape {tuple(tensor.shape)}, not {expected}; "
                    "build windows with the shapes of the checkpoint that runs (engine.shapes)"
                )
            wanted = torch.bool if name.endswith(("_mask", "_present")) else torch.float32
            if tensor.dtype != wanted:
                raise InputError(
                    f"{name} is {tensor.dtype}, not {wanted}; convert it before building the window"
                )
            if wanted == torch.float32 and (bad := _not_finite(tensor)):
                raise InputError(_not_finite_message(name, bad, tensor.numel()))

    def _layout(self, shapes: FusionShapes) -> Iterator[tuple[int, ...]]:
        b = self.batch
        yield from ((b, shapes.vision_frames, shapes.vision_dim), (b, shapes.vision_frames), (b,))
        yield from ((b, shapes.audio_frames, shapes.audio_dim), (b, shapes.audio_frames), (b,))
        yield from ((b, shapes.text_dim), (b,))


def _not_finite_message(name: str, bad: int, count: int) -> str:
    return (
        f"{name} holds {bad} of {count} values that are NaN or infinite; "
        "drop those frames or mark the modality as not present"
    )


def _not_finite(tensor: Tensor) -> int:
    """How many values are NaN or infinite."""
    # On the CPU by numpy, in this thread: PyTorch would share 0.02 ms of work with its pool and wait for it.
    finite = np.isfinite(tensor.numpy()) if tensor.device.type == "cpu" else tensor.isfinite()
    return tensor.numel() - int(finite.sum())


def shown_frames(times_ns: NDArray[np.int64], start_ns: int, end_ns: int, span_ns: int | None) -> slice:
    """Which frames of a sequence the window from `start_ns` to `end_ns` shows.

    Those captured after `start_ns` and not after `end_ns`; with a span, only those in the last `span_ns`
    before the newest of them. The span ends at the newest frame and not at the window's end, so that a face
    that was lost a moment ago is still shown.

    Args:
        times_ns: capture times (n,), increasing.
        start_ns: where the window starts; a frame at that time is outside.
        end_ns: where the window ends; a frame at that time is inside.
        span_ns: what a checkpoint takes of a longer window; None = all of it.
    """
    start, stop = (int(row) for row in np.searchsorted(times_ns, [start_ns, end_ns], side="right"))
    if span_ns is not None and start < stop:
        oldest_ns = times_ns[stop - 1] - span_ns
        start = max(start, int(np.searchsorted(times_ns, oldest_ns, side="right")))
    return slice(start, stop)


def equidistant(frames: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """At most `most` of the frames (n, D), evenly spread from the first to the last."""
    if len(frames) <= most:
        return frames
    return frames[np.linspace(0, len(frames) - 1, most).round().astype(np.int64)]


@dataclass(frozen=True, slots=True, eq=False)
class FrameRun:
    """Consecutive frames of one stream: number `start`, `start` + 1, …; a stream counts only what it has.

    `values` (n, dim) float32 is only read, and only until the call that takes it returns. In the windows of
    one stream, a number always stands for the same frame, and neither end of the run goes back. Where frames
    were computed again, numbers are left out: the run starts behind all that were used before.
    """

    start: int
    values: NDArray[np.float32]

    @property
    def stop(self) -> int:
        """One past the number of the newest frame."""
        return self.start + len(self.values)

    def newest(self, count: int) -> FrameRun:
        """The same run without what is before its newest `count` frames."""
        left_out = max(0, len(self.values) - count)
        return FrameRun(self.start + left_out, self.values[left_out:])


@dataclass(frozen=True, slots=True, eq=False)
class StreamWindow:
    """One window of one stream: what `FusionInputs` holds of it, without padding and without a copy."""

    vision: FrameRun
    vision_present: bool
    audio: FrameRun
    audio_present: bool
    text: NDArray[np.float32]  # (Dt,)
    text_present: bool

    @classmethod
    def empty(cls, shapes: FusionShapes) -> Self:
        """A window in which nothing is present, the first of its stream."""
        return cls(
            vision=FrameRun(0, np.zeros((0, shapes.vision_dim), np.float32)),
            vision_present=False,
            audio=FrameRun(0, np.zeros((0, shapes.audio_dim), np.float32)),
            audio_present=False,
            text=np.zeros(shapes.text_dim, np.float32),
            text_present=False,
        )

    def without(self, modality: Modality) -> StreamWindow:
        """The same window as if a modality were missing."""
        return replace(
            self,
            vision_present=self.vision_present and modality != "vision",
            audio_present=self.audio_present and modality != "audio",
            text_present=self.text_present and modality != "text",
        )

    def check(self, shapes: FusionShapes) -> None:
        """Return if this fits a network of the given sizes; what frames hold is not looked at.

        Raises:
            InputError: a shape or a type is wrong, or a run is longer than a window; the message says which.
        """
        for name, run, frames, dim in (
            ("vision", self.vision, shapes.vision_frames, shapes.vision_dim),
            ("audio", self.audio, shapes.audio_frames, shapes.audio_dim),
        ):
            values = run.values
            if values.ndim != 2 or values.shape[1] != dim or len(values) > frames:
                raise InputError(
                    f"{name} has frames of shape {values.shape}, not (at most {frames}, {dim}); "
                    "build windows with the shapes of the checkpoint that runs (engine.shapes)"
                )
            _check_type(name, values)
        if self.text.shape != (shapes.text_dim,):
            raise InputError(f"text has shape {self.text.shape}, not {(shapes.text_dim,)}")
        _check_type("text", self.text)

    def inputs(self, shapes: FusionShapes) -> FusionInputs:
        """The window for a network in PyTorch: `arrays` as CPU tensors, a batch of one."""
        import torch  # here, since it takes seconds

        return FusionInputs(**{name: torch.from_numpy(array) for name, array in self.arrays(shapes).items()})

    def arrays(
        self, shapes: FusionShapes, *, counterfactuals: bool = False
    ) -> dict[str, NDArray[np.generic]]:
        """The window padded to its full size, by the names of `FusionInputs`; fresh arrays.

        A batch of one, or with `counterfactuals` of four: the window as it is, then as if vision, audio and
        text were missing.
        """
        rows = (self, *(self.without(modality) for modality in MODALITIES)) if counterfactuals else (self,)
        vision, vision_mask = _padded(self.vision.values, shapes.vision_frames, len(rows))
        audio, audio_mask = _padded(self.audio.values, shapes.audio_frames, len(rows))
        return {
            "vision": vision,
            "vision_mask": vision_mask,
            "vision_present": np.array([row.vision_present for row in rows]),
            "audio": audio,
            "audio_mask": audio_mask,
            "audio_present": np.array([row.audio_present for row in rows]),
            "text": np.repeat(self.text[None], len(rows), axis=0),
            "text_present": np.array([row.text_present for row in rows]),
        }

    def check_finite(self) -> None:
        """Return if no frame and no value of the text is NaN or infinite.

        Raises:
            InputError: some are; the message says how many.
        """
        for name, values in (
            ("vision", self.vision.values),
            ("audio", self.audio.values),
            ("text", self.text),
        ):
            if bad := values.size - int(np.isfinite(values).sum()):
                raise InputError(_not_finite_message(name, bad, values.size))


def _check_type(name: str, values: NDArray[np.float32]) -> None:
    if values.dtype != np.float32:
        raise InputError(f"{name} is {values.dtype}, not float32; convert it before building the window")


def _padded(
    frames: NDArray[np.float32], capacity: int, rows: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Frames (rows, capacity, dim) followed by zeros, and their mask (rows, capacity); all rows are equal."""
    padded = np.zeros((rows, capacity, frames.shape[1]), np.float32)
    padded[:, : len(frames)] = frames
    mask = np.zeros((rows, capacity), np.bool_)
    mask[:, : len(frames)] = True
    return padded, mask
