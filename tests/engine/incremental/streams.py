"""Streams of windows to run networks on: random frames, arriving and leaving by a script."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from emi_models.inputs import FrameRun, FusionShapes, StreamWindow
from emi_models.networks.taemi import Taemi, TaemiConfig

SHAPES = FusionShapes(vision_frames=12, vision_dim=5, audio_frames=30, audio_dim=7, text_dim=6)


def network(seed: int = 0, shapes: FusionShapes = SHAPES, **settings: object) -> Taemi:
    """Random weights; queries larger than at the start of training, so that attention is far from uniform."""
    torch.manual_seed(seed)
    sizes = {"d_model": 16, "heads": 2, "mlp_hidden": 24} | settings
    made = Taemi(TaemiConfig(shapes=shapes, **sizes)).eval()  # type: ignore[arg-type]  # any of its settings
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if ".query." in name:
                parameter.mul_(8.0)
    return made


@dataclass(slots=True)
class Stream:
    """One modality's frames so far, and where the window starts."""

    dim: int
    capacity: int
    rng: np.random.Generator
    frames: NDArray[np.float32] = field(init=False)
    start: int = 0
    stop: int = 0

    def __post_init__(self) -> None:
        self.frames = self.rng.standard_normal((4096, self.dim)).astype(np.float32)

    def hop(self, arrive: int, leave: int) -> None:
        """So many frames come, and so many of the window's oldest go."""
        self.stop += arrive
        self.start = min(self.stop, max(self.start + leave, self.stop - self.capacity))

    def skip(self, count: int) -> None:
        """So many frames come and go without any window having seen them."""
        self.start = self.stop = self.stop + count

    def run(self) -> FrameRun:
        index = np.arange(self.start, self.stop) % len(self.frames)
        return FrameRun(self.start, self.frames[index])


class Person:
    """A stream of each modality."""

    def __init__(self, seed: int = 0, shapes: FusionShapes = SHAPES) -> None:
        self.rng = np.random.default_rng(seed)
        self.vision = Stream(shapes.vision_dim, shapes.vision_frames, self.rng)
        self.audio = Stream(shapes.audio_dim, shapes.audio_frames, self.rng)
        self.text = self.rng.standard_normal(shapes.text_dim).astype(np.float32)

    def speak(self) -> None:
        """Other words."""
        self.text = self.rng.standard_normal(self.text.shape).astype(np.float32)

    def window(self, vision: bool = True, audio: bool = True, text: bool = True) -> StreamWindow:
        """The window now, with these presence flags."""
        return StreamWindow(self.vision.run(), vision, self.audio.run(), audio, self.text, text)


def whole(made: Taemi, window: StreamWindow) -> NDArray[np.float32]:
    """What the plain network says of a window and of it without each modality, (4, 6)."""
    inputs = window.inputs(made.config.shapes)
    with torch.inference_mode():
        rows = [made(inputs), *(made(inputs.without(name)) for name in ("vision", "audio", "text"))]
    return torch.cat(rows).numpy()
