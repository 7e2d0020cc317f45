"""What the fusion networks have in common: one call, and shared parts.

The parts are attention, missing tokens, and sequences with holes. Masks are (B, T), True = present. What
stands where a mask is False is never read, not even NaN.

Two models of a sequence in time ignore what a mask hides: dilated convolutions and a gated two-way LSTM.
Their source: "Dual-Stage Cross-Modal Network with Dynamic Feature Fusion" §3.3 (Eq. 2, 3) and §3.4 (Eq. 6).
Both pack the present frames to the front and give the packed sequence with its mask.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from emi_models import Modality
    from emi_models.inputs import FusionInputs
    from emi_models.networks.config import NetworkConfig

__all__ = [
    "Attention",
    "Convolutions",
    "FusionNetwork",
    "GatedBiLstm",
    "flipped",
    "frames_of",
    "last_frame",
    "learned",
    "masked_mean",
    "masked_out",
    "packed",
    "present_rows",
    "segment_means",
    "words_of",
    "zero_unless",
]


class FusionNetwork(nn.Module, ABC):
    """A system of the papers: one call, whichever it is, for training, engines and benchmarks alike.

    Contracts of every subclass:

    - a window's prediction depends on its own rows only, never on batch mates or on how much padding follows;
    - what stands behind a False mask or presence flag is never read, and masks may have holes anywhere: the
      frames marked True, in their order, are the sequence;
    - any number of frames from 1 up, not only that of `config.shapes`; a modality that is present without a
      frame, or outside `config.modalities`, is absent;
    - no control flow that depends on data, so that it exports to ONNX as it is; it builds on the meta device.
    """

    config: NetworkConfig

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def forward(self, window: FusionInputs) -> Tensor:
        """Raw intensities (B, outputs), in the order of the targets, not clipped to [0, 1]."""

    def modality_weights(self) -> Mapping[Modality, float]:
        """What each modality's prediction counts when all are present; empty unless that is learned."""
        return {}

    if TYPE_CHECKING:

        def __call__(self, window: FusionInputs) -> Tensor:
            """As `forward`."""


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

    def forward(self, queries: Tensor, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mixed values, (B, Q, D). `mask` has at least one True in each row; None: all frames are present."""
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, Q or T, D / H)
            for x in (self.query(queries), self.key(frames), self.value(frames))
        )
        # An additive mask: a Boolean one is exported with guards that make ONNX Runtime several times slower.
        bias = None if mask is None else masked_out(mask, q.dtype)[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).flatten(-2))  # type: ignore[no-any-return]  # nn.Module.__call__ is Any

    if TYPE_CHECKING:

        def __call__(self, queries: Tensor, frames: Tensor, mask: Tensor | None = None) -> Tensor:
            """As `forward`."""


def learned(*size: int) -> nn.Parameter:
    """A vector, or several, to be learned: a missing token, positions. Drawn from N(0, 0.02)."""
    vectors = nn.Parameter(torch.empty(*size))
    if not vectors.is_meta:  # where PyTorch would spend 4 s on imports to draw nothing
        nn.init.normal_(vectors, std=0.02)
    return vectors


def present_rows(window: FusionInputs) -> dict[Modality, Tensor]:
    """Which rows (B,) each modality is present in: it says so, and has a frame."""
    return {
        "vision": window.vision_present & window.vision_mask.any(dim=1),
        "audio": window.audio_present & window.audio_mask.any(dim=1),
        "text": window.text_present,
    }


def frames_of(window: FusionInputs, modality: Literal["vision", "audio"]) -> tuple[Tensor, Tensor]:
    """A modality's frames (B, T, D), zeros in place of those that are not present, and their mask (B, T)."""
    present = getattr(window, f"{modality}_present")
    mask = getattr(window, f"{modality}_mask") & present[:, None]
    return zero_unless(mask, getattr(window, modality)), mask


def words_of(window: FusionInputs) -> Tensor:
    """The words' vector (B, D), zeros where there is none."""
    return zero_unless(window.text_present, window.text)


def zero_unless(mask: Tensor, x: Tensor) -> Tensor:
    """The vectors of x (..., D) where the mask (...) is True, zeros elsewhere."""
    return torch.where(mask[..., None], x, 0.0)


def masked_out(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores so that only frames of the mask get weight: 0 there, elsewhere far below any.

    Finite in every precision, because attention is compiled in tiles: minus infinity in all of one is NaN.
    """
    lowest = max(torch.finfo(dtype).min, torch.finfo(torch.float32).min)  # in double precision, too
    return torch.where(mask, 0.0, lowest / 2).to(dtype)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean (B, D) of the present frames of x (B, T, D); zeros where there is none."""
    count = mask.sum(dim=1, keepdim=True).clamp(min=1)
    return zero_unless(mask, x).sum(dim=1) / count


def packed(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The present frames of x (B, T, D) moved to the front in their order, zeros behind them; and their mask.

    Recurrences and convolutions then see the same sequence wherever the holes were.
    """
    frames = x.shape[1]
    position = torch.arange(frames, device=x.device)
    rank = torch.where(
        mask, position, position + frames
    )  # no two alike: present ones first, each in its order
    order = rank.topk(frames, dim=1, largest=False).indices
    front = position < mask.sum(dim=1, keepdim=True)  # (B, T)
    return zero_unless(front, _take(x, order)), front


def flipped(x: Tensor, front: Tensor) -> Tensor:
    """The frames of a packed x (B, T, D) from last to first, those behind them where they were."""
    position = torch.arange(x.shape[1], device=x.device)
    return _take(x, torch.where(front, front.sum(dim=1, keepdim=True) - 1 - position, position))


def last_frame(x: Tensor, front: Tensor) -> Tensor:
    """The last frame (B, D) of a packed x (B, T, D); zeros where there is none."""
    last = (front.sum(dim=1, keepdim=True) - 1).clamp(min=0)  # (B, 1)
    return zero_unless(front.any(dim=1), _take(x, last).squeeze(1))


def segment_means(x: Tensor, mask: Tensor, segments: int) -> Tensor:
    """Means (B, M, D) over M equally long segments of the present frames of x (B, T, D).

    A frame on a border counts in both segments, in proportion. So the segments are equal and none is empty,
    however few the frames are; their mean is the mean of the frames. Zeros where there is no frame.
    """
    # In single precision, whatever x has: half precision cannot count beyond 2048.
    rank = (mask.cumsum(dim=1) - 1).float()[:, None, :]  # (B, 1, T), of present frames among themselves
    length = mask.sum(dim=1).clamp(min=1).float()[:, None, None] / segments  # (B, 1, 1)
    start = torch.arange(segments, device=x.device)[:, None] * length  # (B, M, 1)
    shared = torch.minimum(rank + 1, start + length) - torch.maximum(rank, start)
    weights = torch.where(mask[:, None, :], shared.clamp(min=0.0), 0.0) / length  # (B, M, T)
    return weights.to(x.dtype) @ zero_unless(mask, x)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Frames (B, K, D) of x (B, T, D) at the given indices (B, K)."""
    # Not take_along_dim, whose export is for one batch size only.
    return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))


KERNEL = 3  # frames, of each convolution


class Convolutions(nn.Module):
    """A temporal convolutional network: residual layers, each looking twice as far to both sides as the last.

    To both sides, since the whole window is known when it is used.
    """

    def __init__(self, dim: int, d_model: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Linear(dim, d_model)
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(layers))
        self.layers = nn.ModuleList(
            nn.Conv1d(d_model, d_model, KERNEL, dilation=2**k, padding="same") for k in range(layers)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """From frames x (B, T, dim) and their mask: hidden states (B, T, d_model), packed, and their mask."""
        x, front = packed(x, mask)
        h = self.enter(x)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            seen = zero_unless(front, norm(h))  # behind the last frame as before the first: zeros
            h = h + self.dropout(F.gelu(layer(seen.transpose(1, 2)).transpose(1, 2)))
        return h, front


class GatedBiLstm(nn.Module):
    """A two-way LSTM; each state passes a gate that looks at it and at its change since the one before.

    Two one-way LSTMs, one of them over the frames from last to first: so padding is never in its past.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.forth = nn.LSTM(dim, hidden, batch_first=True)
        self.back = nn.LSTM(dim, hidden, batch_first=True)
        self.gate = nn.Linear(4 * hidden, 2 * hidden)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """From frames x (B, T, dim) and their mask: gated states (B, T, 2 hidden), packed, and their mask."""
        x, front = packed(x, mask)
        h = torch.cat([self.forth(x)[0], flipped(self.back(flipped(x, front))[0], front)], dim=2)
        change = h - torch.cat([h[:, :1], h[:, :-1]], dim=1)  # 0 at the first frame
        return torch.sigmoid(self.gate(torch.cat([h, change], dim=2))) * h, front
