"""Two ways to give a stream of frames to the transformer: with kept keys and values, or anew each step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch

from emi_models.encoders.wav2vec_layers import CachedLayers

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CachedPass", "Pass", "RecomputedPass"]


class Pass(Protocol):
    """What turns the projected frames of a step into the hidden states that became final."""

    def reset(self) -> None:
        """Forget all frames."""

    def step(self, frames: Tensor, *, last: bool) -> Tensor:
        """Hidden states of the frames that became final, in order, shape (n, hidden size).

        Args:
            frames: the step's new ones, shape (new, hidden size); fewer only in the last step.
            last: no frame will come, so all become final.
        """


class CachedPass:
    """Each step computes its new frames and the edge; old ones are keys and values that were kept.

    A kept key is that of its frame's last pass: it knew at most the `edge` + `new` frames after it. That is
    all that differs from a pass over the same frames at once.
    """

    def __init__(self, model: Any, *, new: int, edge: int, left: int) -> None:
        self.layers = CachedLayers(model, new=new, edge=edge, left=left)
        self._places = torch.arange(self.layers.slots, device=self.layers.behind.device)
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self.layers.reset()
        self._count = 0  # of frames before this step

    def step(self, frames: Tensor, *, last: bool) -> Tensor:
        """As `Pass.step`."""
        layers = self.layers
        found = len(frames)
        edge = min(layers.edge, self._count)
        if found + edge == 0:
            return frames
        # Absent slots are zero, which is what the convolution for positions must see there.
        padded = torch.nn.functional.pad(frames, (0, 0, 0, layers.new - found))
        start = layers.slots - layers.new  # the slot of the first new frame
        present = (self._places >= start - self._count) & (self._places < start + found)
        states = layers(padded, present)
        self._count += found
        final: Tensor = states[layers.edge - edge : (layers.edge + found if last else layers.new)]
        return final


class RecomputedPass:
    """Each step passes left context, open and new frames through the model's own transformer.

    At `left` None the context is all that was heard, and work grows with its square. Where the context is cut
    the convolution for positions sees zeros before it.
    """

    def __init__(self, model: Any, *, edge: int, left: int | None) -> None:
        self._encoder = model.encoder
        self._edge, self._left = edge, left
        weight = self._encoder.layer_norm.weight
        self._none: Tensor = weight.new_zeros(0, model.config.hidden_size)
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self._frames = self._none  # context, then those that are not final
        self._context = 0

    def step(self, frames: Tensor, *, last: bool) -> Tensor:
        """As `Pass.step`."""
        self._frames = torch.cat((self._frames, frames))
        done = max(self._context, len(self._frames) - (0 if last else self._edge))
        if done == self._context:
            return self._none
        states = self._encoder(self._frames[None]).last_hidden_state[0]
        final: Tensor = states[self._context : done]
        kept = done if self._left is None else min(done, self._left)
        self._frames = self._frames[done - kept :].clone()
        self._context = kept
        return final
