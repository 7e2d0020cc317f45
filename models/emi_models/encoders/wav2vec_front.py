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
        scale, offset = self._level_with(samples)
        device = next(self._model.parameters()).device
        if not frames_for(samples.size):
            return torch.empty(0, self._model.config.hidden_size, device=device)
        taken = scale * (samples.astype(np.float64) - offset) if self._normalises else samples
        sound = torch.tensor(taken, dtype=torch.float32, device=device)[None, None]  # (1, 1, n)
        first, *layers = self._model.feature_extractor.conv_layers
        if isinstance(getattr(first, "layer_norm", None), torch.nn.GroupNorm):
            states = self._by_channel(first, sound, scale, offset)
        else:
            states = first(sound)
        for layer in layers:
            states = layer(states)
        self._heard = True
        projected = self._model.feature_projection(states.transpose(1, 2))
        frames: Tensor = projected[0] if isinstance(projected, tuple) else projected  # HuBERT gives one
        return frames[0]

    def _level_with(self, samples: NDArray[np.float32]) -> tuple[float, float]:
        """Scale and offset of the stream with these samples: they are taken as scale * (samples - offset)."""
        fresh = samples[OVERLAP_SAMPLES if self._heard else 0 :]
        if not self._normalises or (fresh.size == 0 and not self._heard):
            return 1.0, 0.0
        self._level.add(fresh[None])
        mean, variance = self._level.moments()
        return float(1.0 / np.sqrt(variance[0] + VARIANCE_FLOOR)), float(mean[0])

    def _by_channel(self, layer: Any, sound: Tensor, scale: float, offset: float) -> Tensor:
        """The layer with GroupNorm over time, with the stream's statistics in place of the clip's.

        They are of the convolution of the samples as they came: what was heard at another level counts as
        if it had been taken at this one.
        """
        states = layer.conv(sound)  # (1, channels, columns)
        weight, bias = layer.conv.weight.double(), layer.conv.bias
        shift = -scale * offset * weight.sum(dim=(1, 2))  # (channels,), what the offset and the bias add
        shift = (shift if bias is None else shift + bias).cpu().numpy()
        fresh = states[0, :, OVERLAP_COLUMNS if self._heard else 0 :].double().cpu().numpy()
        self._channels.add((fresh - shift[:, None]) / scale)
        raw_mean, raw_variance = self._channels.moments()
        mean, variance = scale * raw_mean + shift, scale * scale * raw_variance
        norm = layer.layer_norm
        by = torch.from_numpy(1.0 / np.sqrt(variance + norm.eps)).to(states) * norm.weight
        normal = (states - torch.from_numpy(mean).to(states)[:, None]) * by[:, None] + norm.bias[:, None]
        activated: Tensor = layer.activation(normal)
        return activated
