"""Every system and variant at sizes that a test can afford, and random windows for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from emi_models import EMOTIONS, MODALITIES, Modality
from emi_models.checkpoint import CheckpointHeader, save_checkpoint
from emi_models.inputs import FusionInputs, FusionShapes
from emi_models.networks import SYSTEMS, describe_config
from emi_models.networks.base import FusionNetwork
from emi_models.networks.config import NetworkConfig

SMALL = FusionShapes(vision_frames=10, vision_dim=6, audio_frames=13, audio_dim=7, text_dim=8)
EXACT = 1e-5  # what is asked of independence from padding and batch mates

_TAEMI = {"d_model": 16, "mlp_hidden": 16}
_TWO_STAGE = {"hidden": 16, "motion_hidden": 8, "fusion_hidden": 16}
_DUAL_STAGE = {"shared": 12, "d_model": 16, "segments": 4, "tcn_layers": 2}
VARIANTS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "taemi": ("taemi", _TAEMI),
    "taemi, audio anchor": ("taemi", {**_TAEMI, "anchor": "audio"}),
    "taemi, vision anchor": ("taemi", {**_TAEMI, "anchor": "vision"}),
    "taemi, self-attention": ("taemi", {**_TAEMI, "attention": "self"}),
    "taemi, concatenation": ("taemi", {**_TAEMI, "attention": "none"}),
    "taemi, zeros": ("taemi", {**_TAEMI, "missing": "zero"}),
    "taemi, no dropout": ("taemi", {**_TAEMI, "modality_dropout": 0.0}),
    "taemi, gated and divergence": ("taemi", {**_TAEMI, "gated": True, "divergence": True}),
    "two_stage": ("two_stage", _TWO_STAGE),
    "two_stage, motion": ("two_stage", {**_TWO_STAGE, "motion_dim": 2}),
    "two_stage, motion only": ("two_stage", {**_TWO_STAGE, "motion_dim": SMALL.vision_dim}),
    "two_stage, motion beside": ("two_stage", {**_TWO_STAGE, "motion_dim": 2, "motion_mask": True}),
    "two_stage, means": (
        "two_stage",
        {**_TWO_STAGE, "text_pooling": "linear", "audio_pooling": "mean_std", "vision_pooling": "mean"},
    ),
    "two_stage, recurrent": (
        "two_stage",
        {**_TWO_STAGE, "audio_pooling": "lstm", "vision_pooling": "gru"},
    ),
    "dual_stage": ("dual_stage", _DUAL_STAGE),
    "semantic_matters": ("semantic_matters", {"audio_hidden": 9}),
    "semantic_matters, multitask": ("semantic_matters", {"fusion": "multitask"}),
}
ORDERED = tuple(
    name
    for name in VARIANTS
    if name.startswith(("dual_stage", "semantic_matters")) or name == "two_stage, recurrent"
)


def config(name: str, modalities: tuple[Modality, ...] = MODALITIES, **settings: object) -> NetworkConfig:
    system, chosen = VARIANTS[name]
    return SYSTEMS[system][0](shapes=SMALL, modalities=modalities, **{**chosen, **settings})  # type: ignore[call-arg]  # each system has its own


def network(
    name: str, modalities: tuple[Modality, ...] = MODALITIES, seed: int = 0, **settings: object
) -> FusionNetwork:
    """A variant with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    return SYSTEMS[VARIANTS[name][0]][1](config(name, modalities, **settings)).eval()


def windows(batch: int, shapes: FusionShapes = SMALL, seed: int = 1) -> FusionInputs:
    """Random windows with everything present and holes in the masks, at least one frame in each."""
    g = torch.Generator().manual_seed(seed)
    yes = torch.ones(batch, dtype=torch.bool)
    masks = [torch.rand(batch, n, generator=g) < 0.7 for n in (shapes.vision_frames, shapes.audio_frames)]
    for mask in masks:
        mask[:, -1] |= ~mask.any(dim=1)
    return FusionInputs(
        vision=torch.randn(batch, shapes.vision_frames, shapes.vision_dim, generator=g),
        vision_mask=masks[0],
        vision_present=yes,
        audio=torch.randn(batch, shapes.audio_frames, shapes.audio_dim, generator=g),
        audio_mask=masks[1],
        audio_present=yes,
        text=torch.randn(batch, shapes.text_dim, generator=g),
        text_present=yes,
    )


def row(window: FusionInputs, index: int) -> FusionInputs:
    return FusionInputs(*(t[index : index + 1] for t in window.tensors()))


def packed(window: FusionInputs) -> FusionInputs:
    """The same window as live use builds it: frames at the front, in their order."""
    moved: dict[str, torch.Tensor] = {}
    for name in ("vision", "audio"):
        frames, mask = getattr(window, name), getattr(window, f"{name}_mask")
        values, front = torch.zeros_like(frames), torch.zeros_like(mask)
        for i, keep in enumerate(mask):
            values[i, : int(keep.sum())] = frames[i, keep]
            front[i, : int(keep.sum())] = True
        moved |= {name: values, f"{name}_mask": front}
    return replace(window, **moved)


def save(path: Path, net: FusionNetwork, system: str) -> Path:
    """A checkpoint of this network at `path`."""
    targets = net.config.outputs
    names = EMOTIONS if targets == len(EMOTIONS) else tuple(f"label_{number}" for number in range(targets))
    header = CheckpointHeader(
        system=system,
        config=describe_config(net.config),
        modalities=net.config.modalities,
        encoders=dict.fromkeys(net.config.modalities, "test@1"),
        data="none",
        licence="Apache-2.0",
        scores={},
        created_by="test",
        emotions=names if net.config.task == "emi" else (),
    )
    save_checkpoint(path, net, header)
    return path
