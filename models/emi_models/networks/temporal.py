"""Models of a sequence in time that keep out what a mask hides: dilated convolutions, gated two-way LSTM.

Source: "Dual-Stage Cross-Modal Network with Dynamic Feature Fusion" §3.3 (Eq. 2, 3) and §3.4 (Eq. 6).
Both pack the present frames to the front and give the packed sequence with its mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from emi_models.networks.parts import flipped, packed, zero_unless

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Convolutions", "GatedBiLstm"]

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
