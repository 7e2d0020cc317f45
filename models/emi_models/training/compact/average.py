"""What both trainings share: the course of the learning rate, and weights averaged over the steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

__all__ = ["follow", "warm_up_then_cosine"]


def warm_up_then_cosine(step: int, warm_up: int, total: int) -> float:
    """The part of the full learning rate at a step: up over `warm_up` steps, then down to 0 at `total`."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))


@torch.no_grad()
def follow(averaged: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move the averaged weights a step towards the network's; faster at first, while they are few."""
    decay = min(decay, (1 + step) / (10 + step))
    for slow, quick in zip(averaged.parameters(), network.parameters(), strict=True):
        slow.lerp_(quick, 1 - decay)
