"""TAEMI, the words-anchored fusion network: six intensities from a window of face, voice and words.

Source: "TAEMI: Text-Anchored Emotional Mimicry Intensity estimation" §3.3–3.5. Contracts of this file:

- a window's prediction depends on its own rows only, never on batch mates or on how much padding follows;
- frames where the mask is False, and modalities that are not present, are never read: a learned token stands
  in for an absent modality, as a sequence of one frame, so that shapes never change;
- a modality outside `config.modalities` is always absent, whatever the window says, in every engine;
- no positions: a frame's projection, key and value depend on that frame alone and may be cached across hops;
- no control flow that depends on data: it exports to ONNX as it is. Outputs are raw, not clipped to [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from emi_models.inputs import FusionInputs, FusionShapes
from emi_models.vocabulary import EMOTIONS, MODALITIES

if TYPE_CHECKING:
    from torch import Tensor

    from emi_models.vocabulary import Modality

__all__ = ["Taemi", "TaemiConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaemiConfig:
    """Everything that decides TAEMI's parameters and their use; the defaults are the paper's."""

    shapes: FusionShapes
    modalities: tuple[Modality, ...] = MODALITIES  # those trained; the others are always their tokens
    d_model: int = 512
    heads: int = 4
    mlp_hidden: int = 512
    dropout: float = 0.1
    modality_dropout: float = 0.1  # chance that training replaces a present modality by its token

    def __post_init__(self) -> None:
        for name in ("d_model", "heads", "mlp_hidden"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65536:
                raise ValueError(f"{name} is {value!r}; it must be a whole number from 1 to 65536")
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of heads {self.heads}")
        for name in ("dropout", "modality_dropout"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0.0 <= value < 1.0:
                raise ValueError(f"{name} is {value!r}; it must lie in [0, 1)")
        if not self.modalities or not set(self.modalities) <= set(MODALITIES):
            raise ValueError(
                f"modalities are {self.modalities!r}; name at least one of {', '.join(MODALITIES)}"
            )


class Attention(nn.Module):
    """Multi-head attention of queries (B, Q, D) over the frames (B, T, D) that a mask marks as present."""

    def __init__(self, d_model: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout  # on attention weights, in training
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, queries: Tensor, frames: Tensor, mask: Tensor) -> Tensor:
        """Mixed values, (B, Q, D). `mask` is (B, T), True = present, with at least one True in each row."""
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, Q or T, D / H)
            for x in (self.query(queries), self.key(frames), self.value(frames))
        )
        # An additive mask: a Boolean one is exported with guards that make ONNX Runtime several times slower.
        bias = torch.where(mask, 0.0, float("-inf"))[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).flatten(-2))  # type: ignore[no-any-return]  # nn.Module.__call__ is Any


class Stream(nn.Module):
    """One modality's road into the fusion: its missing token and its projection.

    A sequence also has its self-attention (pre-norm, residual, no norm after it) and the cross-attention by
    which the words query it.
    """

    def __init__(self, dim: int, config: TaemiConfig, *, trained: bool, sequence: bool) -> None:
        super().__init__()
        self.trained = trained
        self.drop = config.modality_dropout
        self.token = nn.Parameter(torch.empty(dim))
        if not self.token.is_meta:  # where PyTorch would spend 4 s on imports to draw nothing
            nn.init.normal_(self.token, std=0.02)
        self.project = nn.Linear(dim, config.d_model)
        if sequence:
            self.norm = nn.LayerNorm(config.d_model)
            self.within = Attention(config.d_model, config.heads, config.dropout)
            self.across = Attention(config.d_model, config.heads, config.dropout)

    def usable(self, present: Tensor) -> Tensor:
        """Which rows (B,) use their own features rather than the token; in training, dropped at random."""
        if not self.training or self.drop == 0.0:
            return present
        return present & (torch.rand(present.shape, device=present.device) >= self.drop)

    def vector(self, x: Tensor, present: Tensor) -> Tensor:
        """Features (B, D) with the token where they are absent."""
        if not self.trained:
            return self.token.expand(x.shape[0], -1)
        return torch.where(self.usable(present)[:, None], x, self.token)

    def queried(self, query: Tensor, x: Tensor, mask: Tensor, present: Tensor) -> Tensor:
        """What the words' query (B, 1, d_model) finds in the frames x (B, T, D): (B, d_model)."""
        if self.trained:
            present = self.usable(present & mask.any(dim=1))[:, None]  # (B, 1)
            first = torch.arange(x.shape[1], device=x.device) == 0
            mask = (present & mask) | (~present & first)  # an absent modality is one frame, its token
            x = torch.where(present[:, :, None], x, self.token)
            x = torch.where(mask[:, :, None], x, 0.0)  # whatever stands in padding is never read
        else:  # one frame that is the token: what the branch above computes, without the padding
            x = self.token.expand(x.shape[0], 1, -1)
            mask = torch.ones_like(present)[:, None]
        x = self.project(x)  # (B, T, d_model)
        normed = self.norm(x)
        x = x + self.within(normed, normed, mask)
        return self.across(query, x, mask).squeeze(1)  # type: ignore[no-any-return]  # nn.Module.__call__ is Any


class Taemi(nn.Module):
    """The network of the paper's §3.3 with the missing tokens and modality dropout of §3.4."""

    def __init__(self, config: TaemiConfig) -> None:
        super().__init__()
        self.config = config
        shapes, trained = config.shapes, config.modalities
        self.vision = Stream(shapes.vision_dim, config, trained="vision" in trained, sequence=True)
        self.audio = Stream(shapes.audio_dim, config, trained="audio" in trained, sequence=True)
        self.text = Stream(shapes.text_dim, config, trained="text" in trained, sequence=False)
        self.head = nn.Sequential(
            nn.Linear(shapes.text_dim + 2 * config.d_model, config.mlp_hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.mlp_hidden, len(EMOTIONS)),
        )

    def forward(self, window: FusionInputs) -> Tensor:
        """Raw intensities (B, 6) in the order of `EMOTIONS`; clip to [0, 1] to show them."""
        t = self.text.vector(window.text, window.text_present)  # (B, Dt)
        query = self.text.project(t)[:, None]  # (B, 1, d_model)
        h_a = self.audio.queried(query, window.audio, window.audio_mask, window.audio_present)  # (B, d_model)
        h_v = self.vision.queried(query, window.vision, window.vision_mask, window.vision_present)
        fused = torch.cat([t, h_a, h_v], dim=1)  # (B, Dt + 2 d_model): 1792 in the paper
        return self.head(fused)  # type: ignore[no-any-return]  # nn.Module.__call__ is Any
