"""Every system on every subset of modalities: it trains, is scored, and runs live on one clip.

`tests/engine/test_systems.py` exports them to ONNX.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any, Final

import pytest

from emi_live import Estimate, LiveEngine, load_config
from emi_live.bundle import find_bundle
from emi_models import MODALITIES, Modality
from emi_models.inputs import COMPACT_SHAPES
from emi_models.training.config import TrainConfig
from emi_models.training.evaluate import evaluate_checkpoint
from emi_models.training.fit import fit
from tests.models.training.sets import MemorySet, random_clips

pytestmark = [pytest.mark.assets, pytest.mark.slow, pytest.mark.timeout(900)]

CLIP = "av/face_and_speech.mp4"
FROM_S = 3.0  # face, voice and words are all live by then
SUBSETS: Final = tuple(chain.from_iterable(combinations(MODALITIES, n) for n in (1, 2, 3)))
SHAPES: Final = replace(COMPACT_SHAPES, vision_frames=8, audio_frames=10)
NETWORKS: Final[dict[str, dict[str, Any]]] = {
    "taemi": {"d_model": 8, "heads": 2, "mlp_hidden": 8},
    "two_stage": {"hidden": 8, "motion_hidden": 8, "fusion_hidden": 8},
    "dual_stage": {"shared": 8, "d_model": 8, "layers": 1, "tcn_layers": 1, "segments": 2},
    "semantic_matters": {"audio_hidden": 8, "vision_hidden": 8, "fusion_hidden": 8},
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, tuple[Modality, ...]], Path]:
    """One of each system and subset, trained for an epoch on noise as wide as what `compact` gives."""
    clips = MemorySet(
        splits={
            "train": random_clips(8, shapes=SHAPES, longest_s=2.0, prefix="train"),
            "valid": random_clips(4, seed=1, shapes=SHAPES, longest_s=2.0, prefix="valid"),
        },
        shapes=COMPACT_SHAPES,
        encoders=dict(find_bundle("compact").encoder_ids),  # type: ignore[arg-type]  # by modality
    )
    out, found = tmp_path_factory.mktemp("systems"), {}
    with pytest.MonkeyPatch.context() as changed:
        # 28 pictures of learning would take twice the time of the training.
        changed.setattr("emi_models.training.fit.draw_learning", lambda *_: None)
        for system, network in NETWORKS.items():
            for subset in SUBSETS:
                config = TrainConfig.model_validate(
                    {
                        "training": {"max_epochs": 1, "batch_size": 4},
                        "network": {**network, "modalities": subset},
                    }
                )
                folder = out / "-".join((system, *subset))
                found[system, subset] = fit(system, clips, folder, config).checkpoint
                scores = evaluate_checkpoint(found[system, subset], clips, prefixes=())
                assert scores.n == 4
                assert set(scores.without) == (set(subset) if len(subset) > 1 else set())
    return found


def test_every_system_and_subset_answers_live_from_its_modalities_alone(
    checkpoints: dict[tuple[str, tuple[Modality, ...]], Path], assets: Path
) -> None:
    """One live run, in which the checkpoints follow one another."""
    first, *_ = checkpoints.values()
    config = load_config(
        None,
        [
            f"source.input={assets / CLIP}",
            f"fusion.checkpoint={first}",
            "fusion.engine=torch",
            "speech.backend=pocketsphinx",
            f"models.directory={assets / 'mediapipe'}",
            "models.offline=true",
            "window.hop_s=0.05",
        ],
    )
    waiting, shown = list(checkpoints), set()
    with LiveEngine(config) as live:
        for estimate in live.estimates():
            if estimate.t_s < FROM_S:
                continue
            system, subset = waiting[0]
            live.swap(checkpoints[system, subset])
            if used(estimate) == set(subset) and estimate.intensities not in shown:
                waiting.pop(0)
                shown.add(estimate.intensities)
            if not waiting:
                break
    assert not waiting


def used(estimate: Estimate) -> set[str]:
    """The modalities that the network was shown."""
    return {str(name) for name, report in estimate.modalities.items() if report.used}
