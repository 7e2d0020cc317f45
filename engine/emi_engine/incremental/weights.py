"""A TAEMI's weights as the stream form uses them: numpy, for rows on the left, constants folded in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from emi_engine.incremental.attention import Linear

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_models.networks.base import Attention
    from emi_models.networks.taemi import FrameSequence

    Floats = NDArray[np.float32]

__all__ = ["Across", "SequenceWeights", "Within", "linear"]


@dataclass(frozen=True, slots=True, eq=False)
class Within:
    """A sequence's self-attention: pre-norm and the score's scale are folded into query, key and value."""

    epsilon: float  # of the norm
    qkv: Linear  # normalised (n, D) to (n, 3 D): query, scaled; key; value
    out: Linear
    onto: Linear  # u (n, D) to O^T u: `out` on a query's side

    def normalised(self, x: Floats) -> Floats:
        """Rows (n, D) with mean 0 and variance 1."""
        centred: Floats = x - x.mean(axis=1, keepdims=True)
        variance = np.square(centred).mean(axis=1, keepdims=True)
        centred /= np.sqrt(variance + self.epsilon)
        return centred


@dataclass(frozen=True, slots=True, eq=False)
class Across:
    """A cross-attention of single queries, its key and value projections to be used on the query's side.

    A score is q_h . (K_h y + b) = (K_h^T q_h) . y + const, and softmax drops what is the same for all frames.
    A head's output is V_h (sum of weighted y) + b, because weights sum to one.
    """

    query: Linear  # scaled
    key: Floats  # (heads, width, D): K_h
    value: Floats  # (heads, D, width): V_h transposed
    value_bias: Floats  # (heads, 1, width)
    out: Linear

    @property
    def heads(self) -> int:
        """How many heads."""
        return len(self.key)


@dataclass(frozen=True, slots=True, eq=False)
class SequenceWeights:
    """One modality's road: `within` and `across` are None in variants of the network that lack them."""

    heads: int
    stand_in: Floats  # (1, dim): the missing token, or zeros
    trained: bool
    project: Linear
    within: Within | None
    across: Across | None

    @classmethod
    def of(cls, frames: FrameSequence, dim: int, heads: int) -> SequenceWeights:
        """Those of a network's own part for frames of `dim` numbers."""
        stand_in = np.zeros(dim, np.float32)
        if frames.has_token:
            stand_in = frames.token.detach().numpy()
        across = getattr(frames, "across", None)
        return cls(
            heads=heads,
            stand_in=stand_in[None],
            trained=frames.trained,
            project=linear(frames.project),
            within=_within(frames.norm, frames.within) if frames.attends else None,
            across=None if across is None else _across(across),
        )


def linear(layer: nn.Module, scale: float = 1.0) -> Linear:
    """A linear layer's weights, times a factor."""
    assert isinstance(layer, nn.Linear)  # noqa: S101  # parts of a Sequential are plain modules to a type checker
    weight, bias = (x.detach().numpy() * np.float32(scale) for x in (layer.weight, layer.bias))
    return Linear.of(weight.T, bias)


def _within(norm: nn.LayerNorm, attention: Attention) -> Within:
    gain, shift = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    scale = np.float32(_scale(attention))
    weights = [attention.query.weight, attention.key.weight, attention.value.weight]
    biases = [attention.query.bias, attention.key.bias, attention.value.bias]
    weight = np.concatenate([x.detach().numpy().T for x in weights], axis=1)
    bias = np.concatenate([x.detach().numpy() for x in biases])
    weight[:, : len(gain)] *= scale
    bias[: len(gain)] *= scale
    back = attention.out.weight.detach().numpy()
    return Within(
        epsilon=norm.eps,
        qkv=Linear.of(gain[:, None] * weight, shift @ weight + bias),
        out=linear(attention.out),
        onto=Linear.of(back, np.zeros(len(back), np.float32)),
    )


def _across(attention: Attention) -> Across:
    heads = attention.heads
    d_model = attention.key.in_features
    key = attention.key.weight.detach().numpy().reshape(heads, -1, d_model)
    value = attention.value.weight.detach().numpy().reshape(heads, -1, d_model)
    return Across(
        query=linear(attention.query, _scale(attention)),
        key=np.ascontiguousarray(key),
        value=np.ascontiguousarray(value.transpose(0, 2, 1)),
        value_bias=attention.value.bias.detach().numpy().reshape(heads, 1, -1),
        out=linear(attention.out),
    )


def _scale(attention: Attention) -> float:
    """What scores are multiplied with: 1 / sqrt(width of a head)."""
    return float((attention.query.out_features // attention.heads) ** -0.5)
