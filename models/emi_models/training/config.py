"""Every setting of `emi train`, with its limits and its only default.

What a recipe fixes because a paper gives it (epochs, rates, batch size, …) is None here, which means the
recipe's own value; `emi_models.training.recipes` holds those.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from emi_models import Modality

__all__ = ["DataSettings", "StageSettings", "TrainConfig", "TrainingSettings"]

Precision = Literal["auto", "fp32", "bf16", "fp16"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StageSettings(_Section):
    """How a stage is trained, where it is not as its recipe says."""

    max_epochs: int | None = Field(None, ge=1, le=100_000)
    patience: int | None = Field(None, ge=1)  # epochs without a better validation score that end a stage
    batch_size: int | None = Field(None, ge=2, le=65_536)
    learning_rate: float | None = Field(None, gt=0, lt=10)
    weight_decay: float | None = Field(None, ge=0, lt=10)


class TrainingSettings(StageSettings):
    """How all stages are trained; `stages` holds what differs for one of them, by its name."""

    seed: int = Field(0, ge=0, lt=2**31)  # of weights, order, dropout; not of the data
    device: str = "auto"  # auto: a GPU if there is one; else cpu, cuda or cuda:N
    precision: Precision = "auto"  # auto: fp32 on the CPU, bf16 on a GPU that has it, else fp16
    # Of PyTorch on the CPU; None = its own choice. Small networks are fastest with 1, the more so on a busy
    # machine, and other numbers round differently.
    threads: int | None = Field(None, ge=1, le=1024)
    stages: dict[str, StageSettings] = {}


class DataSettings(_Section):
    """What of the clips is shown."""

    held_out: float = Field(0.2, gt=0, lt=1)  # share of train that validates, where a set has no valid split
    held_out_seed: int = Field(0, ge=0, lt=2**31)
    # Share of training windows that end at a random moment of their clip rather than at its end, as live
    # windows do; the papers train on whole clips.
    prefixes: float = Field(0.0, ge=0, le=1)
    spans_s: dict[
        Modality, Annotated[float, Field(gt=0, le=12)]
    ] = {}  # seconds shown of a modality, if not 12
    bucketed: bool = False  # batches of clips of like length: less padding, but batches are less mixed
    workers: int = Field(0, ge=0, le=64)  # processes that read clips beside the one that trains


class TrainConfig(_Section):
    """All settings of one training. `network` holds fields of the system's own configuration."""

    training: TrainingSettings = TrainingSettings()
    data: DataSettings = DataSettings()
    network: dict[str, Any] = {}
