"""A window as part of a stream: frames by number, so that whoever saw the last window knows what is new."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from emi_models.inputs import FusionInputs, InputError

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray
    from torch import Tensor

    from emi_models.inputs import FusionShapes
    from emi_models.vocabulary import Modality

__all__ = ["FrameRun", "StreamWindow"]


@dataclass(frozen=True, slots=True, eq=False)
class FrameRun:
    """Consecutive frames of one stream: number `start`, `start` + 1, …; a stream counts only what it has.

    `values` (n, dim) float32 is only read, and only until the call that takes it returns. In the windows of
    one stream, a number always stands for the same frame, and neither end of the run goes back. Where frames
    were computed anew, numbers are left out: the run starts behind all that were used before.
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
        """The window for a network that knows of no streams: a batch of one, padded, tensors of its own."""
        import torch  # here, since it takes seconds

        vision, vision_mask = _padded(self.vision.values, shapes.vision_frames)
        audio, audio_mask = _padded(self.audio.values, shapes.audio_frames)
        return FusionInputs(
            vision=vision,
            vision_mask=vision_mask,
            vision_present=torch.tensor([self.vision_present]),
            audio=audio,
            audio_mask=audio_mask,
            audio_present=torch.tensor([self.audio_present]),
            text=torch.from_numpy(self.text[None].copy()),
            text_present=torch.tensor([self.text_present]),
        )


def _check_type(name: str, values: NDArray[np.float32]) -> None:
    if values.dtype != np.float32:
        raise InputError(f"{name} is {values.dtype}, not float32; convert it before building the window")


def _padded(frames: NDArray[np.float32], capacity: int) -> tuple[Tensor, Tensor]:
    """Frames (1, capacity, dim) with zeros behind them, and their mask (1, capacity)."""
    import torch

    padded = np.zeros((1, capacity, frames.shape[1]), np.float32)
    padded[0, : len(frames)] = frames
    mask = np.zeros((1, capacity), np.bool_)
    mask[0, : len(frames)] = True
    return torch.from_numpy(padded), torch.from_numpy(mask)
