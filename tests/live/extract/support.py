"""What the tests of extraction share: encoders without a download, and an engine that keeps its windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from emi_live.config import LiveConfig, load_config
from emi_live.messages import Packet
from emi_live.stages import Stage
from emi_models import Modality
from emi_models.checkpoint import CheckpointHeader
from emi_models.inputs import COMPACT_SHAPES, FusionInputs
from tests.support.fakes import FakeEngine

COMPACT_DIMS: dict[Modality, int] = {"vision": 58, "audio": 73, "text": 384}


def offline_config(*settings: str) -> LiveConfig:
    """The defaults with the recogniser that needs no download."""
    return load_config(None, ["speech.backend=pocketsphinx", "models.offline=true", *settings])


class KeepingEngine(FakeEngine):
    """An engine that keeps a copy of every window it is shown."""

    def __init__(self, spans_s: Mapping[Modality, float] | None = None) -> None:
        super().__init__(COMPACT_SHAPES)
        self.windows: list[FusionInputs] = []
        self._spans_s: dict[str, float] = {str(name): span for name, span in (spans_s or {}).items()}

    @property
    def header(self) -> CheckpointHeader:
        return replace(super().header, spans_s=self._spans_s)

    def infer(self, window: FusionInputs) -> NDArray[np.float32]:
        self.windows.append(FusionInputs(*(tensor.clone() for tensor in window.tensors())))
        return super().infer(window)


class Overheard:
    """A stage whose packets are also kept."""

    def __init__(self, stage: Stage, kept: list[Packet]) -> None:
        self._stage = stage
        self._kept = kept

    @property
    def name(self) -> str:
        return self._stage.name

    @property
    def topic(self) -> str:
        return self._stage.topic

    @property
    def ended(self) -> bool:
        return self._stage.ended

    def wait(self, timeout_s: float) -> bool:
        return self._stage.wait(timeout_s)

    def step(self, now_ns: int) -> Sequence[Packet]:
        packets = self._stage.step(now_ns)
        self._kept += packets
        return packets

    def reset(self) -> None:
        self._stage.reset()

    def close(self) -> None:
        self._stage.close()
