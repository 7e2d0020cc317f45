"""The networks that are measured, the windows that they get, and a synthetic stream of windows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from emi_bench.fusion.settings import NETWORKS
from emi_engine.parity import probe_window
from emi_models.checkpoint import (
    CheckpointHeader,
    LoadedCheckpoint,
    load_checkpoint,
    packaged_checkpoint,
    save_checkpoint,
)
from emi_models.inputs import COMPACT_SHAPES, TAEMI_SHAPES, FrameRun, StreamWindow
from emi_models.networks import describe_config
from emi_models.networks.taemi import Taemi, TaemiConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from emi_bench.fusion.settings import FusionSettings
    from emi_models.inputs import FusionInputs

__all__ = ["HOP_S", "BenchNetwork", "SyntheticStream", "open_networks"]

# Time does not depend on weights, so the networks that do not ship have random ones.
RANDOM: Final = {
    "compact-12s": TaemiConfig(shapes=COMPACT_SHAPES, d_model=64, heads=4, mlp_hidden=512),
    "taemi": TaemiConfig(shapes=TAEMI_SHAPES),
}
TAEMI_VISION_HZ: Final = 6  # faces a second in the paper: 72 of 400 places are taken
HOP_S: Final = 0.2
AUDIO_HZ: Final = 50
PERIOD: Final = 4096  # frames until the content repeats; longer than any window


@dataclass(frozen=True, slots=True, eq=False)
class BenchNetwork:
    """A network, as a checkpoint on disk and loaded, with the number of frames in its windows."""

    name: str
    what: str  # one line
    path: Path
    loaded: LoadedCheckpoint
    vision_frames: int
    audio_frames: int
    vision_hz: int = 30  # faces a second in a stream, as from a camera

    def windows(self, batch: int) -> FusionInputs:
        """Random windows with all modalities present; the first frames are present."""
        window = probe_window(self.loaded.network.config.shapes, batch)
        yes = torch.ones(batch, dtype=torch.bool)
        return replace(
            window,
            vision_mask=_first(self.vision_frames, window.vision_mask),
            audio_mask=_first(self.audio_frames, window.audio_mask),
            vision_present=yes,
            audio_present=yes.clone(),
            text_present=yes.clone(),
        )


def open_networks(settings: FusionSettings, folder: Path) -> list[BenchNetwork]:
    """Open the networks that the settings name; random checkpoints are written into `folder`.

    Raises:
        CheckpointError: `settings.checkpoint` cannot be read.
    """
    if settings.checkpoint is not None:
        return [_subject(settings.checkpoint.stem, f"checkpoint {settings.checkpoint}", settings.checkpoint)]
    return [_named(name, folder) for name in settings.networks or NETWORKS]


def _named(name: str, folder: Path) -> BenchNetwork:
    if name == "compact":
        return _subject(name, "the packaged checkpoint", packaged_checkpoint("compact"))
    config = RANDOM[name]
    path = folder / f"{name}.safetensors"
    torch.manual_seed(0)
    header = CheckpointHeader(
        system="taemi",
        config=describe_config(config),
        modalities=config.modalities,
        encoders=dict.fromkeys(config.modalities, "random"),
        data="none: random weights",
        licence="Apache-2.0",
        scores={},
        created_by="emi_bench.fusion",
    )
    save_checkpoint(path, Taemi(config), header)
    if name == "taemi":
        return replace(
            _subject(name, "the paper's sizes, random weights", path),
            vision_frames=TAEMI_VISION_HZ * 12,
            vision_hz=TAEMI_VISION_HZ,
        )
    return _subject(name, "the compact bundle's sizes over 12 s, random weights", path)


def _subject(name: str, what: str, path: Path) -> BenchNetwork:
    loaded = load_checkpoint(path)
    shapes = loaded.network.config.shapes
    return BenchNetwork(name, what, path, loaded, shapes.vision_frames, shapes.audio_frames)


def _first(count: int, mask: torch.Tensor) -> torch.Tensor:
    """A mask of that shape in which the first `count` frames of each row are present."""
    return (torch.arange(mask.shape[1]) < count).expand(mask.shape).clone()


class SyntheticStream:
    """The windows of an endless stream of one person, a hop apart.

    The first window is full already. Each hop adds 10 voice frames and a few faces; the other frames stay.
    """

    def __init__(self, subject: BenchNetwork) -> None:
        shapes = subject.loaded.network.config.shapes
        self._rates = {"vision": subject.vision_hz, "audio": AUDIO_HZ}
        self._lengths = {"vision": subject.vision_frames, "audio": subject.audio_frames}
        random = np.random.default_rng(0)
        self._content = {
            name: _twice(random.standard_normal((PERIOD, dim), np.float32), self._lengths[name])
            for name, dim in (("vision", shapes.vision_dim), ("audio", shapes.audio_dim))
        }
        self._text = random.standard_normal(shapes.text_dim, np.float32)

    def __iter__(self) -> Iterator[StreamWindow]:
        """All windows, from the first hop on."""
        return map(self.window, count())

    def window(self, hop: int) -> StreamWindow:
        """The window at a hop; the words are the same in all."""
        return StreamWindow(
            vision=self._run("vision", hop),
            vision_present=True,
            audio=self._run("audio", hop),
            audio_present=True,
            text=self._text,
            text_present=True,
        )

    def _run(self, name: str, hop: int) -> FrameRun:
        start = int(hop * HOP_S * self._rates[name] + 1e-9)
        place = start % PERIOD
        return FrameRun(start, self._content[name][place : place + self._lengths[name]])


def _twice(frames: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Frames followed by their first `length`, so that any run of that length is one slice."""
    return np.concatenate([frames, frames[:length]])
