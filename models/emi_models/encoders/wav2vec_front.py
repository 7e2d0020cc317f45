"""wav2vec 2.0's convolutions, step by step: each step's samples give the frames that are new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from emi_models.encoders.running_moments import RunningMoments
from emi_models.encoders.wav2vec import (
    KERNELS,
    OVERLAP_SAMPLES,
    STRIDES,
    VARIANCE_FLOOR,
    frames_for,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from emi_models.encoders.wav2vec import Wav2vecEncoder

__all__ = ["Wav2vecFront"]

# What a step shares with the one before it, after the first convolution.
OVERLAP_COLUMNS: Final = (OVERLAP_SAMPLES - KERNELS[0]) // STRIDES[0] + 1


class Wav2vecFront:
    """Turns steps of sound into frames as the transformer takes them, shape (n, hidden size).

    The convolutions pad nothing and step by 320 samples in all, so a run of 320n + 80 samples gives just
    its n frames: with 80 samples of overlap nothing is computed twice but those, and the frames are those
    of a whole pass, to rounding.

    Two statistics over a whole clip cannot be had of a stream; here they are of the last 12 s up to and
    with the step, on the grid of steps, which is what a pass over the last 12 s would use at that instant:

    - the mean and variance of the samples, where the model takes normalised sound;
    - where the first layer has GroupNorm over time (wav2vec 2.0 base, HuBERT base), the mean and variance of
      each of its channels. Per-layer LayerNorm (the large models) looks at one frame and needs nothing.

    Exact for the first step. Later ones are normalised otherwise than a pass over the whole clip would, the
    less the longer the stream is; frames that were given out are not touched again.
    """

    def __init__(self, encoder: Wav2vecEncoder, spans: int) -> None:
        """Share the encoder's weights; `spans` steps make up 12 s."""
        self._model = encoder.model
        self._normalises = encoder.normalises
        self._spans = spans
        first = self._model.feature_extractor.conv_layers[0]
        norm = getattr(first, "layer_norm", None)
        self._group_norm = norm if isinstance(norm, torch.nn.GroupNorm) else None
        self.reset()

    def reset(self) -> None:
        """Forget the sound and its statistics."""
        self._heard = False
        self._level = RunningMoments(self._spans)
        self._channels = RunningMoments(self._spans)

    def step(self, samples: NDArray[np.float32]) -> Tensor:
        """The frames of these samples, shape (frames_for(n), hidden size).

        Args:
            samples: shape (n,); but for the first step's, the first 80 are the last 80 of the step before.
        """
        skip = OVERLAP_SAMPLES if self._heard else 0
        taken = self._levelled(samples, skip)
        if not frames_for(samples.size):
            return torch.empty(0, self._model.config.hidden_size)
        device = next(self._model.parameters()).device
        sound = torch.tensor(taken, dtype=torch.float32, device=device)[None, None]  # (1, 1, n)
        layers = self._model.feature_extractor.conv_layers
        states = layers[0](sound) if self._group_norm is None else self._first_layer(layers[0], sound)
        for layer in layers[1:]:
            states = layer(states)
        self._heard = True
        projected = self._model.feature_projection(states.transpose(1, 2))
        frames: Tensor = projected[0] if isinstance(projected, tuple) else projected  # HuBERT gives one
        return frames[0]

    def _levelled(self, samples: NDArray[np.float32], skip: int) -> NDArray[Any]:
        if not self._normalises or samples.size <= skip:
            return samples
        self._level.add(samples[None, skip:])
        mean, variance = self._level.moments()
        levelled: NDArray[Any] = (samples.astype(np.float64) - mean) / np.sqrt(variance + VARIANCE_FLOOR)
        return levelled

    def _first_layer(self, layer: Any, sound: Tensor) -> Tensor:
        """The layer with GroupNorm, with the stream's statistics in place of the clip's."""
        assert self._group_norm is not None  # noqa: S101 - for the type checker
        states = layer.conv(sound)  # (1, channels, columns)
        skip = OVERLAP_COLUMNS if self._heard else 0
        self._channels.add(states[0, :, skip:].cpu().numpy())
        mean, variance = (torch.from_numpy(found).to(states) for found in self._channels.moments())
        norm = self._group_norm
        scale = norm.weight * torch.rsqrt(variance + norm.eps)
        normal = (states - mean[:, None]) * scale[:, None] + norm.bias[:, None]
        activated: Tensor = layer.activation(normal)
        return activated
