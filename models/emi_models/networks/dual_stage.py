"""The dual-stage network: face and voice are first aligned with words, then fused by how good each is.

Source: "Dual-Stage Cross-Modal Network with Dynamic Feature Fusion for Emotional Mimicry Intensity
Estimation" §3.3–3.5; the paper gives no sizes beyond its features', so that those of `DualStageConfig` are
ours. Beyond the contracts of `FusionNetwork`:

- stage I (`align`) trains encoders and, behind each, a projection into the space that faces, voices and
  words share, as CLIP does. All are frozen in stage II, which trains everything else. On stored features,
  whose encoders cannot be trained, stage I has the projections alone: less than the paper's, whose faces
  gained by it (.09 to .16, Table 2);
- words may take part in stage I alone (`align_text`): Table 2, and V+A of Table 3;
- face and voice are averaged over M equally long segments each, of their own frames. The m-th parts of both
  are taken as simultaneous, so that Eq. 9 can add them, and words stand in each;
- an absent modality has no part in the softmax of Eq. 8: the weights of the others add up to 1. With none
  present a learned vector stands in for the weighted sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from emi_models import EMOTIONS, MODALITIES, Modality
from emi_models.inputs import FusionInputs, FusionShapes
from emi_models.networks.base import (
    Attention,
    Convolutions,
    FusionNetwork,
    GatedBiLstm,
    frames_of,
    learned,
    masked_mean,
    present_rows,
    segment_means,
    words_of,
)
from emi_models.networks.config import Task, check_modalities, check_shares, check_sizes
from emi_models.targets import MAX_TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

__all__ = ["Aligned", "DualStage", "DualStageConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DualStageConfig:
    """Everything that decides the network's parameters and their use."""

    task: ClassVar[Task] = "emi"

    shapes: FusionShapes
    modalities: tuple[Modality, ...] = MODALITIES  # those trained; the others are not in the network
    targets: int = len(EMOTIONS)  # how many labels it estimates
    shared: int = 512  # the space in which stage I compares, as wide as CLIP ViT-B/16's
    d_model: int = 256
    segments: int = 8  # M
    tcn_layers: int = 4  # K; dilations 1, 2, 4, 8: 31 frames seen, six seconds at the paper's 5 Hz
    heads: int = 4
    layers: int = 2  # of the Transformer encoder
    dropout: float = 0.1
    align_text: bool = False  # words take part in stage I, even if `modalities` leave them out of stage II

    @property
    def aligned(self) -> tuple[Modality, ...]:
        """The modalities of stage I."""
        return tuple(m for m in MODALITIES if m in self.modalities or (m == "text" and self.align_text))

    def __post_init__(self) -> None:
        check_sizes(self, "shared", "d_model", "heads")
        check_sizes(self, "targets", most=MAX_TARGETS)
        check_sizes(self, "segments", most=1024)
        check_sizes(self, "tcn_layers", "layers", most=16)
        if self.d_model % self.heads or self.d_model % 2:
            raise ValueError(f"d_model {self.d_model} is not a multiple of heads {self.heads} and of 2")
        check_shares(self, "dropout")
        check_modalities(self)
        if self.align_text and self.shapes.text_dim == 1:
            raise ValueError("align_text is set, and the clips have no features of text")

    @property
    def outputs(self) -> int:
        """How many values a prediction has."""
        return self.targets


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """Stage I's view of a batch: unit vectors (B, E), and which rows (B,) have both sides of each pair.

    What a vector is for a modality that is absent has no meaning; a row is a pair only if both are present.
    """

    vision: Tensor
    audio: Tensor
    text: Tensor
    vision_pairs: Tensor
    audio_pairs: Tensor


class Layer(nn.Module):
    """One layer of a Transformer encoder, pre-norm, over sequences (B, M, D) that have no padding."""

    def __init__(self, d_model: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.attention = Attention(d_model, heads, dropout)
        self.dropout = nn.Dropout(dropout)
        self.block = nn.Sequential(
            nn.LayerNorm(d_model),
            nn.Linear(d_model, 4 * d_model),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * d_model, d_model),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The sequence after attention and the block, (B, M, D)."""
        normed = self.norm(x)
        x = x + self.dropout(self.attention(normed, normed))
        return x + self.block(x)  # type: ignore[no-any-return]  # nn.Module.__call__ is Any


class DualStage(FusionNetwork):
    """Stage I's projections, and stage II's temporal models, mappings, quality scores and encoder."""

    config: DualStageConfig

    def __init__(self, config: DualStageConfig) -> None:
        super().__init__(config)
        shapes, d_model, trained = config.shapes, config.d_model, config.modalities
        self.modalities: tuple[Modality, ...] = tuple(m for m in MODALITIES if m in trained)
        dims = {"vision": shapes.vision_dim, "audio": shapes.audio_dim, "text": shapes.text_dim}
        self.project = nn.ModuleDict({m: nn.Linear(dims[m], config.shared) for m in config.aligned})
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # where CLIP starts

        if "vision" in trained:
            self.tcn = Convolutions(config.shared, d_model, config.tcn_layers, config.dropout)
        if "audio" in trained:
            self.lstm = GatedBiLstm(config.shared, d_model // 2)
        widths = {"vision": d_model, "audio": d_model, "text": config.shared}
        self.map = nn.ModuleDict(
            {m: _perceptron(widths[m], d_model, d_model, config.dropout) for m in self.modalities}
        )
        self.quality = nn.ModuleDict(
            {m: _perceptron(d_model, d_model // 2, 1, config.dropout) for m in self.modalities}
        )
        self.nothing = learned(d_model)
        self.positions = learned(config.segments, d_model)
        self.encoder = nn.Sequential(
            *(Layer(d_model, config.heads, config.dropout) for _ in range(config.layers)),
            nn.LayerNorm(d_model),
        )
        self.head = nn.Linear(d_model, config.outputs)

    def forward(self, window: FusionInputs) -> Tensor:
        """Raw intensities (B, outputs), in the order of the targets; clip to [0, 1] to show them."""
        features, weights = self.weighed(window)
        fused = (weights[..., None] * features).sum(dim=2)  # (B, M, d_model), Eq. 9
        exists = self._presence(window).any(dim=1)[:, None, None]
        fused = torch.where(exists, fused, self.nothing)
        y = self.head(self.encoder(fused + self.positions))  # (B, M, 6)
        return y.mean(dim=1)  # type: ignore[no-any-return]  # nn.Module.__call__ is Any

    def align(self, window: FusionInputs) -> Aligned:
        """Stage I: what the two contrastive losses compare; their temperature is `1 / logit_scale.exp()`.

        The paper averages segments, then the video: the mean of all frames, since segments are equally long.
        A modality outside of `config.aligned` has zeros, and no pairs.
        """
        pooled = {
            "vision": masked_mean(*frames_of(window, "vision")),
            "audio": masked_mean(*frames_of(window, "audio")),
            "text": words_of(window),
        }
        absent = window.text.new_zeros(window.batch, self.config.shared)
        unit = dict.fromkeys(MODALITIES, absent)
        aligned = self.config.aligned
        unit |= {m: F.normalize(self.project[m](pooled[m]), dim=1) for m in aligned}
        present = dict.fromkeys(MODALITIES, torch.zeros_like(window.text_present))
        present |= {m: rows for m, rows in present_rows(window).items() if m in aligned}
        return Aligned(
            **unit,
            vision_pairs=present["text"] & present["vision"],
            audio_pairs=present["text"] & present["audio"],
        )

    def weighed(self, window: FusionInputs) -> tuple[Tensor, Tensor]:
        """What Eq. 9 adds up: features (B, M, modalities, d_model), weights (B, M, modalities) of Eq. 8.

        The modalities are those of `self.modalities`. Weights add up to 1 and are 0 where one is absent;
        with none present they have no meaning.
        """
        features = torch.stack([self.map[m](self._segments(window, m)) for m in self.modalities], dim=2)
        scores = torch.cat([self.quality[m](features[:, :, i]) for i, m in enumerate(self.modalities)], dim=2)
        present = self._presence(window)
        counts = present | ~present.any(dim=1, keepdim=True)  # finite where none is present
        weights = torch.where(counts[:, None, :], scores, float("-inf")).softmax(dim=2)
        return features, weights

    def alignment_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that stage I trains, and stage II leaves as they are."""
        return chain(self.project.parameters(), [self.logit_scale])

    def fusion_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that stage II trains."""
        stage_one = {id(parameter) for parameter in self.alignment_parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in stage_one)

    def _presence(self, window: FusionInputs) -> Tensor:
        """Which modalities are present, (B, modalities)."""
        present = present_rows(window)
        return torch.stack([present[m] for m in self.modalities], dim=1)

    def _segments(self, window: FusionInputs, modality: Modality) -> Tensor:
        """A modality over M segments, (B, M, width), before its mapping."""
        segments = self.config.segments
        if modality == "text":
            text = self.project["text"](words_of(window))  # (B, shared)
            return text[:, None, :].expand(-1, segments, -1)  # type: ignore[no-any-return]  # nn.Module.__call__ is Any
        x, mask = frames_of(window, modality)
        model = self.tcn if modality == "vision" else self.lstm
        h, front = model(self.project[modality](x), mask)
        return segment_means(h, front, segments)


def _perceptron(width: int, hidden: int, out: int, dropout: float) -> nn.Sequential:
    """A norm and two layers: the paper's `MLP` of Eq. 4 and Eq. 7."""
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, out)
    )
