"""Each system small enough that its whole training takes about a second."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from emi_models.training.config import TrainConfig

NETWORKS: Mapping[str, dict[str, Any]] = {
    "taemi": {"d_model": 16, "heads": 4, "mlp_hidden": 16},
    "two_stage": {"hidden": 16, "motion_hidden": 8, "fusion_hidden": 16, "motion_dim": 2},
    "dual_stage": {"shared": 16, "d_model": 16, "layers": 1, "tcn_layers": 2, "segments": 2},
    "semantic_matters": {"fusion": "multitask", "audio_hidden": 8, "vision_hidden": 8, "fusion_hidden": 8},
}


def small(system: str, **training: Any) -> TrainConfig:
    """Settings for a small network and batches of 8; the recipe is the paper's, however few the clips."""
    settings = {"batch_size": 8, "max_epochs": 3, "recipe": "paper", **training}
    return TrainConfig.model_validate({"training": settings, "network": NETWORKS[system]})


class CutOff(io.StringIO):
    """A file that a power cut or Ctrl-C meets at its line number `at`: the error is raised there and then."""

    def __init__(self, at: int, error: BaseException) -> None:
        super().__init__()
        self.at = at
        self.error = error

    def write(self, text: str) -> int:
        written = super().write(text)
        if self.getvalue().count("\n") >= self.at:
            raise self.error
        return written

    def console(self) -> Console:
        return Console(file=self, width=200)
