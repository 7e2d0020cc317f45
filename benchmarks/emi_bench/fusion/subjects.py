"""The networks that are measured, and the windows they are shown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

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
from emi_models.inputs import COMPACT_SHAPES, TAEMI_SHAPES
from emi_models.networks.taemi import Taemi, TaemiConfig
from emi_models.systems import describe_config

if TYPE_CHECKING:
    from pathlib import Path

    from emi_bench.fusion.settings import FusionSettings
    from emi_models.inputs import FusionInputs

__all__ = ["Subject", "subjects"]

# Time does not depend on weights, so those that do not ship are random.
RANDOM: Final = {
    "compact-12s": TaemiConfig(shapes=COMPACT_SHAPES, d_model=64, heads=4, mlp_hidden=512),
    "taemi": TaemiConfig(shapes=TAEMI_SHAPES),
}
TAEMI_VISION_HZ: Final = 6  # faces a second in the paper: 72 of 400 places are taken


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A network, as a checkpoint on disk and loaded, with how many frames its windows have."""

    name: str
    what: str  # one line
    path: Path
    loaded: LoadedCheckpoint
    vision_frames: int
    audio_frames: int
    vision_hz: int = 30  # faces a second in a stream: a camera's

    def windows(self, batch: int) -> FusionInputs:
        """Random windows with everything present, frames from the front."""
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


def subjects(settings: FusionSettings, folder: Path) -> list[Subject]:
    """What the settings name; checkpoints with random weights are written into `folder`.

    Raises:
        CheckpointError: `settings.checkpoint` cannot be read.
    """
    if settings.checkpoint is not None:
        return [_subject(settings.checkpoint.stem, f"checkpoint {settings.checkpoint}", settings.checkpoint)]
    return [_named(name, folder) for name in settings.networks or NETWORKS]


def _named(name: str, folder: Path) -> Subject:
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


def _subject(name: str, what: str, path: Path) -> Subject:
    loaded = load_checkpoint(path)
    shapes = loaded.network.config.shapes
    return Subject(name, what, path, loaded, shapes.vision_frames, shapes.audio_frames)


def _first(count: int, mask: torch.Tensor) -> torch.Tensor:
    """A mask of that shape in which the first `count` frames of each row are present."""
    return (torch.arange(mask.shape[1]) < count).expand(mask.shape).clone()
