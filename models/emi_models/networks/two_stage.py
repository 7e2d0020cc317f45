"""The two-stage framework: each modality's encoder is trained alone, then a small regressor fuses them.

Source: "Two-Stage Multimodal Framework for Emotion Mimicry Intensity Prediction" §4.2–4.6. Stage one trains
`encode` of one branch under its own head, which is discarded; stage two trains `fuse`, and slowly the
encoders. Beyond the contracts of `FusionNetwork`:

- an absent branch is a zero vector at the fusion, in place of its encoder's output; with nothing present the
  fusion sees zeros throughout. Training makes it used to that by modality dropout, which leaves at least one;
- words are brought to unit length first; the order of frames does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn

from emi_models import EMOTIONS, MODALITIES, Modality
from emi_models.inputs import FusionInputs, FusionShapes
from emi_models.networks.base import FusionNetwork, frames_of, present_rows, words_of, zero_unless
from emi_models.networks.config import Task, check_modalities, check_shares, check_sizes
from emi_models.targets import MAX_TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

__all__ = ["Branch", "TwoStage", "TwoStageConfig"]

Branch = Literal["text", "audio", "vision", "motion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoStageConfig:
    """Everything that decides the network's parameters and their use; the defaults are the paper's (§4.8).

    Motion is action units (blendshapes, from our own face stage) and head pose: the last `motion_dim` values
    of a vision frame, a separate branch. 0: there is no such branch. A whole frame, as with the compact
    bundle's faces: vision has no other branch.
    """

    task: ClassVar[Task] = "emi"

    shapes: FusionShapes
    modalities: tuple[Modality, ...] = MODALITIES  # those trained; the others have no branch
    targets: int = len(EMOTIONS)  # how many labels it estimates
    motion_dim: int = 0
    hidden: int = 384  # of the text, audio and vision branches
    motion_hidden: int = 128
    fusion_hidden: int = 384
    dropout: float = 0.45
    modality_dropout: float = 0.3  # chance that stage two drops a branch that is present

    def __post_init__(self) -> None:
        check_sizes(self, "hidden", "motion_hidden", "fusion_hidden")
        check_sizes(self, "targets", most=MAX_TARGETS)
        check_sizes(self, "motion_dim", least=0, most=self.shapes.vision_dim)
        check_shares(self, "dropout", "modality_dropout")
        check_modalities(self)

    @property
    def outputs(self) -> int:
        """How many values a prediction has."""
        return self.targets

    @property
    def branches(self) -> tuple[Branch, ...]:
        """Those that this network has, in the order of their vectors at the fusion."""
        vision = "vision" in self.modalities
        exists: dict[Branch, bool] = {
            "text": "text" in self.modalities,
            "audio": "audio" in self.modalities,
            "vision": vision and self.motion_dim < self.shapes.vision_dim,
            "motion": vision and self.motion_dim > 0,
        }
        return tuple(name for name, there in exists.items() if there)


class BranchEncoder(nn.Module):
    """One branch: a vector (B, D), or frames that attention pools into one, to an embedding (B, hidden)."""

    def __init__(self, dim: int, hidden: int, dropout: float, *, pools: bool) -> None:
        super().__init__()
        if pools:
            self.score = nn.Linear(dim, 1)
        self.block = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.LayerNorm(hidden),
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The embedding (B, hidden) of x: (B, D), or frames (B, T, D) with zeros where the mask is False."""
        if mask is not None:
            counts = mask | ~mask.any(dim=1, keepdim=True)  # all zeros where there is no frame, not 0 / 0
            weights = torch.where(counts, self.score(x).squeeze(2), float("-inf")).softmax(dim=1)  # (B, T)
            x = (weights[:, None, :] @ x).squeeze(1)  # (B, D)
        return self.block(x)  # type: ignore[no-any-return]  # nn.Module.__call__ is Any


class TwoStage(FusionNetwork):
    """The branches' encoders and the fusion regressor."""

    config: TwoStageConfig

    def __init__(self, config: TwoStageConfig) -> None:
        super().__init__(config)
        shapes = config.shapes
        dims = {
            "text": shapes.text_dim,
            "audio": shapes.audio_dim,
            "vision": shapes.vision_dim - config.motion_dim,
            "motion": config.motion_dim,
        }
        hidden = {
            name: config.motion_hidden if name == "motion" else config.hidden for name in config.branches
        }
        self.encoders = nn.ModuleDict(
            {
                name: BranchEncoder(dims[name], hidden[name], config.dropout, pools=name != "text")
                for name in hidden
            }
        )
        width = sum(hidden.values())  # 1152 in the paper without motion, 1280 with
        self.fusion = nn.Sequential(
            nn.LayerNorm(width),
            nn.Dropout(config.dropout),
            nn.Linear(width, config.fusion_hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.fusion_hidden, config.outputs),
        )

    def forward(self, window: FusionInputs) -> Tensor:
        """Raw intensities (B, outputs), in the order of the targets; clip to [0, 1] to show them."""
        return self.fuse(self.encode(window), self.presence(window))

    @property
    def branches(self) -> tuple[str, ...]:
        """Of `text`, `audio`, `vision` and `motion` those that exist, in this order."""
        return self.config.branches

    def encode(self, window: FusionInputs, *names: str) -> dict[str, Tensor]:
        """The embeddings (B, hidden) of all branches, or those named; of an absent one it has no meaning."""
        face, face_mask = frames_of(window, "vision")
        still = self.config.shapes.vision_dim - self.config.motion_dim
        inputs = {
            "text": (F.normalize(words_of(window), dim=1),),
            "audio": frames_of(window, "audio"),
            "vision": (face[:, :, :still], face_mask),
            "motion": (face[:, :, still:], face_mask),
        }
        return {name: self.encoders[name](*inputs[name]) for name in names or self.branches}

    def presence(self, window: FusionInputs) -> dict[str, Tensor]:
        """Which rows (B,) each branch is present in."""
        present = present_rows(window)
        return {name: present["vision" if name == "motion" else name] for name in self.config.branches}

    def fuse(self, encoded: Mapping[str, Tensor], presence: Mapping[str, Tensor]) -> Tensor:
        """Intensities (B, outputs) from all branches' embeddings and presence; training drops some."""
        present = torch.stack([presence[name] for name in self.branches], dim=1)  # (B, branches)
        scale = 1.0
        if self.training and self.config.modality_dropout > 0.0:
            present = self._kept(present)
            scale = 1.0 / (1.0 - self.config.modality_dropout)  # as published; the LayerNorm behind undoes it
        vectors = [zero_unless(present[:, i], encoded[name]) for i, name in enumerate(self.branches)]
        return self.fusion(torch.cat(vectors, dim=1) * scale)  # type: ignore[no-any-return]  # nn.Module.__call__ is Any

    def branch_parameters(self, name: str) -> Iterator[nn.Parameter]:
        """The parameters of one branch's encoder."""
        return self.encoders[name].parameters()

    def fusion_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the fusion regressor."""
        return self.fusion.parameters()

    def _kept(self, present: Tensor) -> Tensor:
        """Which of the present branches (B, branches) survive: each by chance, and always the luckiest."""
        luck = torch.rand(present.shape, device=present.device)
        luckiest = torch.where(present, luck, 0.0).max(dim=1, keepdim=True).values
        return present & (luck >= luckiest.clamp(max=self.config.modality_dropout))
