"""Every system with every subset of modalities: six values of their own, and 64 clips learned by heart."""

from __future__ import annotations

from itertools import chain, combinations
from typing import Any

import pytest
import torch

from emi_models import MODALITIES, Modality
from emi_models.data.batches import ClipWindows, collate
from emi_models.inputs import FusionInputs, FusionShapes
from emi_models.networks import SYSTEMS
from emi_models.training.evaluate import pearson
from emi_models.training.papers import recipe_of
from tests.models.training.sets import MemorySet, random_clips

SHAPES = FusionShapes(vision_frames=3, vision_dim=32, audio_frames=4, audio_dim=32, text_dim=32)
CLIPS = random_clips(64, shapes=SHAPES, told=False)
SUBSETS = tuple(chain.from_iterable(combinations(MODALITIES, n) for n in (1, 2, 3)))
# Wide enough to learn by heart, and nothing dropped. Semantic Matters has the published hidden layer.
NETWORKS: dict[str, dict[str, Any]] = {
    "taemi": {"d_model": 64, "mlp_hidden": 128, "dropout": 0.0, "modality_dropout": 0.0},
    "two_stage": {"hidden": 64, "fusion_hidden": 128, "dropout": 0.0, "modality_dropout": 0.0},
    "dual_stage": {"shared": 64, "d_model": 64, "layers": 1, "tcn_layers": 2, "segments": 2, "dropout": 0.0},
    "semantic_matters": {"audio_hidden": 64, "vision_hidden": 64},
}
STEPS, LOOK_EVERY = 300, 10


def windows(modalities: tuple[Modality, ...]) -> tuple[FusionInputs, torch.Tensor, FusionShapes]:
    """All clips as one batch, of a set that has features of these modalities only."""
    gone = {m: 1.0 for m in MODALITIES if m not in modalities}
    shapes = FusionShapes(
        **{
            **{f"{m}_frames": getattr(SHAPES, f"{m}_frames") for m in ("vision", "audio")},
            **{f"{m}_dim": getattr(SHAPES, f"{m}_dim") if m in modalities else 1 for m in MODALITIES},
        }
    )
    clips = random_clips(64, shapes=shapes, told=False, missing=gone)
    seen = ClipWindows(MemorySet(splits={"train": clips}, shapes=shapes), "train")
    window, targets = collate([seen[i] for i in range(len(seen))])
    return window, targets, shapes


@pytest.mark.slow
@pytest.mark.parametrize("modalities", SUBSETS, ids="+".join)
@pytest.mark.parametrize("system", NETWORKS)
def test_a_subset_is_learned_by_heart_in_six_values_of_their_own(
    system: str, modalities: tuple[Modality, ...]
) -> None:
    window, targets, shapes = windows(modalities)
    config_type, network_type = SYSTEMS[system]
    torch.manual_seed(0)
    config = config_type(shapes=shapes, modalities=modalities, **NETWORKS[system])  # type: ignore[call-arg]
    network = network_type(config)
    objective = recipe_of(system).stages(config)[-1].objective(network)
    optimizer = torch.optim.Adam(
        [{"params": list(group.parameters)} for group in objective.groups()], lr=1e-2
    )
    rho = torch.zeros(6)
    for step in range(STEPS):
        optimizer.zero_grad()
        objective(window, targets).loss.backward()
        optimizer.step()
        if step % LOOK_EVERY == LOOK_EVERY - 1:
            with torch.no_grad():
                predicted = network(window)
            rho = pearson(predicted, targets)
            if rho.min() >= 0.95:
                break
    assert rho.min() >= 0.95
    assert torch.linalg.matrix_rank(predicted - predicted.mean(dim=0), rtol=1e-3) == 6
