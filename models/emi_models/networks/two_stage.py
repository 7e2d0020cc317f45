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
from typing import TYPE_CHECKING, ClassVar, Final, Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from emi_models import EMOTIONS, MODALITIES, Modality
from emi_models.inputs import FusionInputs, FusionShapes
from emi_models.networks.base import (
    FusionNetwork,
    flipped,
    frames_of,
    last_frame,
    masked_mean,
    packed,
    present_rows,
    words_of,
    zero_unless,
)
from emi_models.networks.config import Task, check_choice, check_modalities, check_shares, check_sizes
from emi_models.targets import MAX_TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

__all__ = ["Branch", "TwoStage", "TwoStageConfig"]

Branch = Literal["text", "audio", "vision", "motion"]
Pooling = Literal["mlp", "attention", "mean", "mean_std", "linear", "lstm", "gru", "bilstm"]
POOLINGS: Final = tuple(name for name in get_args(Pooling) if name != "mlp")
TEXT_POOLINGS: Final = ("mlp", "linear", "lstm", "gru")
RECURRENT: Final = ("lstm", "gru", "bilstm")
BILSTM_LAYERS: Final = 3
EPSILON: Final = 1e-8  # below the square root, whose slope at 0 is infinite


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoStageConfig:
    """Everything that decides the network's parameters and their use; the defaults are the paper's (§4.8).

    Motion is action units (blendshapes, from our own face stage) and head pose: the last `motion_dim` values
    of a vision frame, a separate branch. 0: there is no such branch. A whole frame, as with the compact
    bundle's faces: vision has no other branch. With `motion_mask` two flags follow, 0 or 1: whether the frame
    holds a face, and whether it holds motion, so that each has frames and a mask of its own.

    `*_pooling` are the models of Table 3, how frames become one vector. `attention`, `mean` and `mean_std`
    (mean and standard deviation) go before the branch's block; `lstm`, `gru` (last state) and `bilstm` (three
    layers both ways, then attention) give `hidden` values to it; `linear` is the mean and one linear layer in
    place of the block. For text, one vector, `mlp` is the block alone.
    """

    task: ClassVar[Task] = "emi"

    shapes: FusionShapes
    modalities: tuple[Modality, ...] = MODALITIES  # those trained; the others have no branch
    targets: int = len(EMOTIONS)  # how many labels it estimates
    motion_dim: int = 0
    motion_mask: bool = False
    text_pooling: Pooling = "mlp"
    audio_pooling: Pooling = "attention"
    vision_pooling: Pooling = "attention"
    motion_pooling: Pooling = "attention"
    hidden: int = 384  # of the text, audio and vision branches
    motion_hidden: int = 128
    fusion_hidden: int = 384
    dropout: float = 0.45
    modality_dropout: float = 0.3  # chance that stage two drops a branch that is present

    def __post_init__(self) -> None:
        check_sizes(self, "hidden", "motion_hidden", "fusion_hidden")
        check_sizes(self, "targets", most=MAX_TARGETS)
        check_sizes(self, "motion_dim", least=0, most=self.shapes.vision_dim)
        if self.motion_mask and not 0 < self.motion_dim < self.still_dim + self.motion_dim:
            raise ValueError(
                f"motion_mask needs a face and motion; a frame has {self.shapes.vision_dim} values"
            )
        check_choice(self, "text_pooling", TEXT_POOLINGS)
        for name in ("audio", "vision", "motion"):
            check_choice(self, f"{name}_pooling", POOLINGS)
            if self.hidden % 2 and getattr(self, f"{name}_pooling") == "bilstm":
                raise ValueError(f"hidden {self.hidden} is odd; a bilstm halves it")
        check_shares(self, "dropout", "modality_dropout")
        check_modalities(self)

    @property
    def still_dim(self) -> int:
        """Values of a vision frame before those of motion."""
        return self.shapes.vision_dim - self.motion_dim - (2 if self.motion_mask else 0)

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
            "vision": vision and self.still_dim > 0,
            "motion": vision and self.motion_dim > 0,
        }
        return tuple(name for name, there in exists.items() if there)


class BranchEncoder(nn.Module):
    """One branch: frames (B, T, D) that are pooled into one vector, or one vector, to (B, hidden)."""

    def __init__(self, dim: int, hidden: int, dropout: float, pooling: Pooling) -> None:
        super().__init__()
        self.pooling = pooling
        if pooling == "linear":
            self.block = nn.Sequential(nn.Linear(dim, hidden))
            return
        if pooling == "lstm":
            self.recurrent: nn.Module = nn.LSTM(dim, hidden, batch_first=True)
        elif pooling == "gru":
            self.recurrent = nn.GRU(dim, hidden, batch_first=True)
        elif pooling == "bilstm":
            self.recurrent = BiLstm(dim, hidden, BILSTM_LAYERS)
        dim = hidden if pooling in RECURRENT else 2 * dim if pooling == "mean_std" else dim
        if pooling in ("attention", "bilstm"):
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
        if mask is None and self.pooling in ("lstm", "gru"):  # one vector is a sequence of one
            x, mask = x[:, None], torch.ones_like(x[:, :1], dtype=torch.bool)
        if mask is not None:
            x = self._pooled(x, mask)
        return self.block(x)  # type: ignore[no-any-return]  # nn.Module.__call__ is Any

    def _pooled(self, x: Tensor, mask: Tensor) -> Tensor:
        """One vector of frames (B, T, D): (B, D), (B, 2 D) or (B, hidden); without frames, of zeros."""
        if self.pooling in ("mean", "linear"):
            return masked_mean(x, mask)
        if self.pooling == "mean_std":
            mean = masked_mean(x, mask)
            spread = masked_mean((x - mean[:, None]) ** 2, mask)
            return torch.cat([mean, (spread + EPSILON).sqrt()], dim=1)
        if self.pooling in ("lstm", "gru"):
            frames, front = packed(x, mask)
            return last_frame(self.recurrent(frames)[0], front)
        if self.pooling == "bilstm":
            x, mask = self.recurrent(x, mask)
            x = zero_unless(mask, x)
        counts = mask | ~mask.any(dim=1, keepdim=True)  # all zeros where there is no frame, not 0 / 0
        weights = torch.where(counts, self.score(x).squeeze(2), float("-inf")).softmax(dim=1)  # (B, T)
        return (weights[:, None, :] @ x).squeeze(1)


class BiLstm(nn.Module):
    """Layers of LSTMs both ways over packed frames, so that padding is in nobody's past."""

    def __init__(self, dim: int, hidden: int, layers: int) -> None:
        super().__init__()
        dims = [dim, *[hidden] * (layers - 1)]
        self.forth = nn.ModuleList(nn.LSTM(d, hidden // 2, batch_first=True) for d in dims)
        self.back = nn.ModuleList(nn.LSTM(d, hidden // 2, batch_first=True) for d in dims)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """From frames x (B, T, dim) and their mask: states (B, T, hidden), packed, and their mask."""
        x, front = packed(x, mask)
        for forth, back in zip(self.forth, self.back, strict=True):
            x = torch.cat([forth(x)[0], flipped(back(flipped(x, front))[0], front)], dim=2)
        return x, front


class TwoStage(FusionNetwork):
    """The branches' encoders and the fusion regressor."""

    config: TwoStageConfig

    def __init__(self, config: TwoStageConfig) -> None:
        super().__init__(config)
        shapes = config.shapes
        dims = {
            "text": shapes.text_dim,
            "audio": shapes.audio_dim,
            "vision": config.still_dim,
            "motion": config.motion_dim,
        }
        hidden = {
            name: config.motion_hidden if name == "motion" else config.hidden for name in config.branches
        }
        self.encoders = nn.ModuleDict(
            {
                name: BranchEncoder(
                    dims[name], hidden[name], config.dropout, getattr(config, f"{name}_pooling")
                )
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
        frames, _ = frames_of(window, "vision")
        still, moves = self.config.still_dim, self.config.motion_dim
        face_mask, motion_mask = self._seen(window)
        inputs = {
            "text": (F.normalize(words_of(window), dim=1),),
            "audio": frames_of(window, "audio"),
            "vision": (zero_unless(face_mask, frames[:, :, :still]), face_mask),
            "motion": (zero_unless(motion_mask, frames[:, :, still : still + moves]), motion_mask),
        }
        return {name: self.encoders[name](*inputs[name]) for name in names or self.branches}

    def presence(self, window: FusionInputs) -> dict[str, Tensor]:
        """Which rows (B,) each branch is present in."""
        face_mask, motion_mask = self._seen(window)
        present = {str(modality): rows for modality, rows in present_rows(window).items()}
        present |= {"vision": face_mask.any(dim=1), "motion": motion_mask.any(dim=1)}
        return {name: present[name] for name in self.config.branches}

    def fuse(self, encoded: Mapping[str, Tensor], presence: Mapping[str, Tensor]) -> Tensor:
        """Intensities (B, outputs) from all branches' embeddings and presence; training drops some."""
        present = torch.stack([presence[name] for name in self.branches], dim=1)  # (B, branches)
        scale = 1.0
        if self.training and self.config.modality_dropout > 0.0:
            present = self._kept(present)
            scale = 1.0 / (1.0 - self.config.modality_dropout)  # as published; the LayerNorm behind undoes it
        vectors = [zero_unless(present[:, i], encoded[name]) for i, name in enumerate(self.branches)]
        return self.fusion(torch.cat(vectors, dim=1) * scale)  # type: ignore[no-any-return]  # nn.Module.__call__ is Any

    def _seen(self, window: FusionInputs) -> tuple[Tensor, Tensor]:
        """Which vision frames (B, T) hold a face, and which hold motion."""
        frames, mask = frames_of(window, "vision")
        if not self.config.motion_mask:
            return mask, mask
        flags = frames[:, :, -2:] > 0.5
        return mask & flags[:, :, 0], mask & flags[:, :, 1]

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
