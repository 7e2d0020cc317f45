"""TAEMI, the words-anchored fusion network: six intensities from a window of face, voice and words.

Source: "TAEMI: Text-Anchored Emotional Mimicry Intensity estimation" §3.3–3.5, and §4.3 for the variants.
Beyond the contracts of `FusionNetwork`:

- an absent modality is its learned token (zeros in the variant without), as a sequence of one frame;
- no positions: a frame's projection, key and value depend on that frame alone and may be cached across hops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from emi_models.networks.base import Attention, FusionNetwork, learned, masked_mean, zero_unless
from emi_models.networks.config import TaemiConfig, fused_width

if TYPE_CHECKING:
    from torch import Tensor

    from emi_models import Modality
    from emi_models.inputs import FusionInputs

__all__ = ["Taemi", "TaemiConfig"]


class Stream(nn.Module):
    """One modality's road into the fusion: what stands in for it, and its dropout in training."""

    def __init__(self, dim: int, config: TaemiConfig, name: Modality) -> None:
        super().__init__()
        self.trained = name in config.modalities
        self.drop = config.modality_dropout
        self.has_token = config.missing == "token"
        if self.has_token:
            self.token = learned(dim)

    def usable(self, present: Tensor) -> Tensor:
        """Which rows (B,) use their own features; in training, some are dropped at random."""
        if not self.training or self.drop == 0.0:
            return present
        return present & (torch.rand(present.shape, device=present.device) >= self.drop)

    def stand_in(self, x: Tensor) -> Tensor:
        """What is used (D,) in place of absent features x (..., D)."""
        return self.token if self.has_token else x.new_zeros(x.shape[-1])


class Words(Stream):
    """Text, one vector: a query where it is the anchor, and a sequence of one where another modality is."""

    def __init__(self, dim: int, config: TaemiConfig) -> None:
        super().__init__(dim, config, "text")
        if config.attention != "self":
            self.project = nn.Linear(dim, config.d_model)
        if config.anchor != "text":  # attention to a sequence of one is its value, for any query
            self.across = nn.Sequential(
                nn.Linear(config.d_model, config.d_model), nn.Linear(config.d_model, config.d_model)
            )

    def vector(self, x: Tensor, present: Tensor) -> Tensor:
        """Features (B, D) with the stand-in where they are absent."""
        if not self.trained:
            return self.stand_in(x).expand(x.shape[0], -1)
        return torch.where(self.usable(present)[:, None], x, self.stand_in(x))

    def queried(self, t: Tensor) -> Tensor:
        """What another modality's query finds in the words (B, D): (B, d_model)."""
        return self.across(self.project(t))  # type: ignore[no-any-return]  # nn.Module.__call__ is Any


class FrameSequence(Stream):
    """A sequence: projected, then its self-attention (pre-norm, residual, no norm after it).

    Where another modality is the anchor, also the cross-attention by which that one queries it.
    """

    def __init__(self, dim: int, config: TaemiConfig, name: Modality) -> None:
        super().__init__(dim, config, name)
        self.project = nn.Linear(dim, config.d_model)
        self.attends = config.attention != "none"
        if self.attends:
            self.norm = nn.LayerNorm(config.d_model)
            self.within = Attention(config.d_model, config.heads, config.dropout)
        if config.attention == "anchored" and config.anchor != name:
            self.across = Attention(config.d_model, config.heads, config.dropout)

    def sequence(self, x: Tensor, mask: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """From frames x (B, T, D): the sequence (B, T, d_model) and its mask, True at least once a row."""
        if self.trained:
            present = self.usable(present & mask.any(dim=1))[:, None]  # (B, 1)
            first = torch.arange(x.shape[1], device=x.device) == 0
            mask = (present & mask) | (~present & first)  # an absent modality is one frame, its stand-in
            x = torch.where(present[:, :, None], x, self.stand_in(x))
            x = zero_unless(mask, x)  # padding is never read
        else:  # one frame that is the stand-in: what the branch above computes, without the padding
            x = self.stand_in(x).expand(x.shape[0], 1, -1)
            mask = torch.ones_like(present)[:, None]
        x = self.project(x)  # (B, T, d_model)
        if self.attends:
            normed = self.norm(x)
            x = x + self.within(normed, normed, mask)
        return x, mask

    def pooled(self, x: Tensor, mask: Tensor, present: Tensor) -> Tensor:
        """The mean (B, d_model) of the sequence that `sequence` makes."""
        return masked_mean(*self.sequence(x, mask, present))

    def queried(self, query: Tensor, x: Tensor, mask: Tensor, present: Tensor) -> Tensor:
        """What the anchor's query (B, d_model) finds in the sequence that `sequence` makes: (B, d_model)."""
        return self.across(query[:, None], *self.sequence(x, mask, present)).squeeze(1)


class Taemi(FusionNetwork):
    """The network of the paper's §3.3 with the missing tokens and modality dropout of §3.4."""

    config: TaemiConfig

    def __init__(self, config: TaemiConfig) -> None:
        super().__init__(config)
        shapes = config.shapes
        self.vision = FrameSequence(shapes.vision_dim, config, "vision")
        self.audio = FrameSequence(shapes.audio_dim, config, "audio")
        self.text = Words(shapes.text_dim, config)
        self.head = nn.Sequential(
            nn.Linear(fused_width(config), config.mlp_hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.mlp_hidden, config.head_width),
        )

    def forward(self, window: FusionInputs) -> Tensor:
        """Raw intensities (B, outputs), in the order of the targets; clip to [0, 1] to show them."""
        t = self.text.vector(window.text, window.text_present)  # (B, Dt)
        voice = window.audio, window.audio_mask, window.audio_present
        face = window.vision, window.vision_mask, window.vision_present
        config = self.config
        if config.attention == "self":
            fused = [t, self.audio.pooled(*voice), self.vision.pooled(*face)]
        elif config.attention == "none":
            fused = [self.text.project(t), self.audio.pooled(*voice), self.vision.pooled(*face)]
        elif config.anchor == "text":
            query = self.text.project(t)  # (B, d_model)
            fused = [t, self.audio.queried(query, *voice), self.vision.queried(query, *face)]
        elif config.anchor == "audio":
            query = self.audio.pooled(*voice)
            fused = [query, self.text.queried(t), self.vision.queried(query, *face)]
        else:
            query = self.vision.pooled(*face)
            fused = [query, self.text.queried(t), self.audio.queried(query, *voice)]
        # 1792 in the paper, Dt + 2 d_model; 3 d_model where the words are projected.
        if config.divergence:
            fused.append((fused[1] - fused[2]).abs())
        y: Tensor = self.head(torch.cat(fused, dim=1))
        if config.gated:
            intensity, gate = y.chunk(2, dim=1)
            y = intensity * torch.sigmoid(gate)
        return y
