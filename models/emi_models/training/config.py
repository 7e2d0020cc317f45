"""Every setting of `emi train`, with its limits and its only default.

What a recipe fixes because a paper gives it (epochs, rates, batch size, …) is None here, which means the
recipe's own value; `emi_models.training.papers` has them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from emi_models import Modality

__all__ = ["DataSettings", "EncoderSettings", "StageSettings", "TrainConfig", "TrainingSettings"]

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Use = Literal["train", "4:1", "train+valid"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StageSettings(_Section):
    """How a stage is trained, where it is not as its recipe says."""

    max_epochs: int | None = Field(
        None, ge=1, le=100_000, description="Most epochs of a stage; unset = the recipe's number."
    )
    patience: int | None = Field(
        None,
        ge=1,
        description=(
            "Epochs without a better validation score after which a stage ends; unset = the recipe's number."
        ),
    )
    batch_size: int | None = Field(
        None, ge=2, le=65_536, description="Clips in one batch; unset = the recipe's number."
    )
    learning_rate: float | None = Field(
        None, gt=0, lt=10, description="Learning rate of the optimiser; unset = the recipe's value."
    )
    weight_decay: float | None = Field(
        None, ge=0, lt=10, description="Weight decay of the optimiser; unset = the recipe's value."
    )
    encoder_rate: float | None = Field(
        None,
        ge=0,
        le=10,
        description=(
            "Learning rate of encoders that an earlier stage has trained, times the stage's; 0 = they stay"
            " as they are; unset = the recipe's value."
        ),
    )
    average: float | None = Field(
        None,
        ge=0,
        lt=1,
        description=(
            "Decay per step of averaged weights, which are then scored and kept; 0 = no average; unset = the"
            " recipe's value."
        ),
    )


class TrainingSettings(StageSettings):
    """How all stages are trained; `stages` holds what differs for one of them, by its name."""

    seed: int = Field(
        0, ge=0, lt=2**31, description="Seed of weights, order and dropout; the data split has its own seed."
    )
    device: str = Field(
        "auto", description="Device to train on: cpu, cuda or cuda:N; auto = a GPU if there is one."
    )
    precision: Precision = Field(
        "auto",
        description="Number format; auto = fp32 on the CPU, bf16 on a GPU that supports it, else fp16.",
    )
    recipe: Literal["scaled", "paper"] = Field(
        "scaled",
        description=(
            "What settings are that are not given: scaled = with fewer than 4,000 clips, taemi has smaller"
            " layers and more regularisation; paper = the paper's, however few clips there are."
        ),
    )
    loss: Literal["recipe", "correlation"] = Field(
        "recipe",
        description=(
            "What regression minimises: the recipe's own; or squared error and 1 - Pearson's correlation,"
            " which is of none of the papers."
        ),
    )
    devices: int = Field(
        1,
        ge=1,
        le=64,
        description=(
            "Processes that train together, each on a GPU of its own or all on the CPU; a batch is shared"
            " among them, so its size must be a multiple of this."
        ),
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description=(
            "CPU threads of PyTorch; unset = PyTorch's choice; small networks are fastest with 1, and"
            " another number rounds differently."
        ),
    )
    stages: dict[str, StageSettings] = Field(
        {},
        description=(
            "Settings of single stages by their name, such as `training.stages.align.learning_rate`; "
            "they win over the ones above."
        ),
    )


class DataSettings(_Section):
    """What of the clips is shown."""

    use: Use = Field(
        "train",
        description=(
            "Clips to train on: the train split; `4:1` = also drawn valid clips, so that a fifth of all is"
            " left to validate; `train+valid` = all, none validates, and each stage keeps its last epoch."
        ),
    )
    held_out: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of the train split that validates, where a data set has no valid split.",
    )
    held_out_seed: int = Field(
        0, ge=0, lt=2**31, description="Seed of the held-out selection, and of that of `data.use=4:1`."
    )
    prefixes: float = Field(
        0.0,
        ge=0,
        le=1,
        description=(
            "Share of training windows that end at a random moment of their clip, as live windows do;"
            " the papers train on whole clips."
        ),
    )
    spans_s: dict[Modality, Annotated[float, Field(gt=0, le=12)]] = Field(
        {},
        description=(
            "Seconds shown of a modality, such as `data.spans_s.text`; a modality that is not named has 12 s."
        ),
    )
    raters: Path | None = Field(
        None,
        description=(
            "CSV with the columns id and raters: a clip of N raters is shown √N times as often in training,"
            " which is of none of the papers; unset = all alike."
        ),
    )
    bucketed: bool = Field(
        False, description="Build batches from clips of similar length: less padding, but less mixed batches."
    )
    workers: int = Field(
        0, ge=0, le=64, description="Extra processes that read clips; 0 = the training process reads them."
    )


class EncoderSettings(_Section):
    """Which encoders are trained together with the network, and what of them."""

    train: tuple[Modality, ...] = Field(
        (), description="Modalities whose encoders are trained, as `--train-encoders` names them."
    )
    models: dict[Modality, Path] = Field(
        {},
        description=(
            "Folders of models in transformers' format, such as `encoders.models.audio`; a modality that is"
            " not named has the published model of the store."
        ),
    )
    rate: float = Field(
        1.0, gt=0, le=10, description="Learning rate of the encoders, as a share of the network's own."
    )
    frozen_layers: dict[Modality, Annotated[int, Field(ge=0)]] = Field(
        {},
        description=(
            "First layers of an encoder that stay as they are, with all that comes before them, such as"
            " `encoders.frozen_layers.audio=6`; 0 = only what comes before the layers; a modality that is"
            " not named is trained whole."
        ),
    )
    checkpointing: bool = Field(
        False,
        description="Compute states again in the backward pass: less memory, a third more time.",
    )
    lora_rank: int = Field(
        0,
        ge=0,
        le=1024,
        description="Rank of LoRA's matrices, which are trained in place of the weights; 0 = no LoRA.",
    )
    lora_alpha: float = Field(16.0, gt=0, description="LoRA's scale, divided by its rank.")


class TrainConfig(_Section):
    """All settings of one training. `network` holds fields of the system's own configuration."""

    training: TrainingSettings = TrainingSettings()
    data: DataSettings = DataSettings()
    encoders: EncoderSettings = EncoderSettings()
    network: dict[str, Any] = Field(
        {}, description="Fields of the system's own network configuration, such as `network.dropout`."
    )
