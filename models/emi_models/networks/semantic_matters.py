"""Semantic Matters: LSTMs over voice and face and the words' own vector, fused by two layers with tanh.

Source: "Semantic Matters: Multimodal Features for Affective Analysis" §3, §3.1, §3.2 and §4.1.2. Beyond the
contracts of `FusionNetwork`:

- any subset of modalities: one outside `config.modalities` has no parameters;
- voice frames are hidden states with arousal, dominance and valence behind them, as the encoder gives them;
- the paper has no missing modality. Here one that is absent is a zero vector at the fusion; in the multi-task
  variant its prediction has no part in the sum, and the weights of the others add up to 1. With nothing
  present both answer to zeros.
- `task="bah"`, ambivalence and hesitancy (§3.2), is the same network with one logit in place of intensities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import nn

from emi_models import EMOTIONS, MODALITIES, Modality
from emi_models.inputs import FusionInputs, FusionShapes
from emi_models.networks.base import FusionNetwork, frames_of, last_frame, packed, present_rows, words_of
from emi_models.networks.config import TASKS, Task, check_choice, check_modalities, check_shares, check_sizes
from emi_models.targets import MAX_TARGETS

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SemanticMatters", "SemanticMattersConfig"]

LSTM_LAYERS = 2
Fusion = Literal["joint", "multitask"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticMattersConfig:
    """Everything that decides the network's parameters and their use; the defaults are the paper's.

    A width of 0 is the published one: an audio state is as wide as an audio frame (1027), a vision state 768
    (or as wide as a frame that is narrower). The fusion's middle layer is 1027 wide for every subset of
    modalities, as published; 0 makes it as wide as an audio state, as earlier checkpoints have it.
    """

    shapes: FusionShapes
    modalities: tuple[Modality, ...] = MODALITIES
    task: Task = "emi"
    targets: int = len(EMOTIONS)  # how many labels it estimates, in the task `emi`
    fusion: Fusion = "joint"  # or `multitask`: a head for each modality, weighed by learned uncertainties
    audio_hidden: int = 0
    vision_hidden: int = 0
    fusion_hidden: int = 1027
    dropout: float = 0.0  # between the layers of an LSTM

    def __post_init__(self) -> None:
        check_sizes(self, "audio_hidden", "vision_hidden", "fusion_hidden", least=0)
        check_sizes(self, "targets", most=MAX_TARGETS)
        check_shares(self, "dropout")
        check_modalities(self)
        check_choice(self, "task", TASKS)
        check_choice(self, "fusion", get_args(Fusion))
        if self.middle < self.outputs:
            raise ValueError(
                f"fusion_hidden 0 is {self.middle} here, too few for {self.outputs} values; train again with "
                "the default"
            )

    @property
    def middle(self) -> int:
        """The width of the fusion's middle layer."""
        return self.fusion_hidden or self.audio_hidden or self.shapes.audio_dim

    @property
    def outputs(self) -> int:
        """How many values a prediction has: an intensity for each target, or one logit."""
        return self.targets if self.task == "emi" else 1


class SemanticMatters(FusionNetwork):
    """An LSTM for each sequence, and one head over all modalities or one for each."""

    config: SemanticMattersConfig

    def __init__(self, config: SemanticMattersConfig) -> None:
        super().__init__(config)
        shapes = config.shapes
        self.modalities: tuple[Modality, ...] = tuple(m for m in MODALITIES if m in config.modalities)
        widths = {
            "vision": config.vision_hidden or min(768, shapes.vision_dim),
            "audio": config.audio_hidden or shapes.audio_dim,
            "text": shapes.text_dim,
        }
        dims = {"vision": shapes.vision_dim, "audio": shapes.audio_dim}
        self.lstms = nn.ModuleDict(
            {
                m: nn.LSTM(dims[m], widths[m], LSTM_LAYERS, batch_first=True, dropout=config.dropout)
                for m in self.modalities
                if m in dims
            }
        )
        if config.fusion == "joint":
            self.head = _head(sum(widths[m] for m in self.modalities), config.middle, config.outputs)
        else:
            self.heads = nn.ModuleDict(
                {m: _head(widths[m], config.middle, config.outputs) for m in self.modalities}
            )
            self.log_variance = nn.Parameter(torch.zeros(len(self.modalities)))

    def forward(self, window: FusionInputs) -> Tensor:
        """Raw intensities (B, outputs), in the order of the targets. For `bah`, logits (B, 1)."""
        if self.config.fusion == "joint":
            return self.head(torch.cat(self._vectors(window), dim=1))  # type: ignore[no-any-return]  # nn.Module.__call__ is Any
        return (self.weights(window)[:, :, None] * self.each(window)).sum(dim=1)

    def presence(self, window: FusionInputs) -> Tensor:
        """Which of `self.modalities` are present, (B, M)."""
        present = present_rows(window)
        return torch.stack([present[m] for m in self.modalities], dim=1)

    def each(self, window: FusionInputs) -> Tensor:
        """What each of `self.modalities` predicts by itself, (B, M, outputs); the multi-task variant only."""
        vectors = self._vectors(window)
        return torch.stack([self.heads[m](x) for m, x in zip(self.modalities, vectors, strict=True)], dim=1)

    def weights(self, window: FusionInputs) -> Tensor:
        """What each modality's prediction counts, (B, M), adding up to 1; the multi-task variant only.

        The more uncertain, the less: softmax of minus `log_variance` (Kendall et al. 2018), absent ones at 0.
        """
        present = self.presence(window)
        counts = present | ~present.any(dim=1, keepdim=True)  # all, where none is present
        return torch.where(counts, -self.log_variance, float("-inf")).softmax(dim=1)

    def modality_weights(self) -> dict[Modality, float]:
        """As `weights` where all are present (Table 3); empty with the joint fusion."""
        if self.config.fusion == "joint":
            return {}
        counts = (-self.log_variance.detach()).softmax(dim=0).tolist()
        return dict(zip(self.modalities, counts, strict=True))

    def _vectors(self, window: FusionInputs) -> list[Tensor]:
        """Each modality as one vector (B, width): words, or the LSTM's last state; zeros where absent."""
        vectors = []
        for modality in self.modalities:
            if modality == "text":
                vectors.append(words_of(window))
            else:
                x, front = packed(*frames_of(window, modality))
                vectors.append(last_frame(self.lstms[modality](x)[0], front))
        return vectors


def _head(width: int, middle: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, middle), nn.Tanh(), nn.Linear(middle, outputs))
