"""TAEMI's forward pass over sequences that slide: what `Taemi.forward` says, window by window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import gelu

from emi_engine.incremental.sequence import Sequence
from emi_engine.incremental.weights import SequenceWeights, linear
from emi_models.inputs import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from emi_models.networks.taemi import Taemi
    from emi_models.stream import FrameRun, StreamWindow
    from emi_models.vocabulary import Modality

    Floats = NDArray[np.float32]

__all__ = ["SlidingTaemi", "TaemiWeights"]


class TaemiWeights:
    """A network's weights, read only and shared by any number of streams. Variants: as in `TaemiConfig`."""

    def __init__(self, network: Taemi) -> None:
        config = self.config = network.config
        shapes = config.shapes
        self.frames: dict[Modality, SequenceWeights] = {
            "vision": SequenceWeights.of(network.vision, shapes.vision_dim, config.heads),
            "audio": SequenceWeights.of(network.audio, shapes.audio_dim, config.heads),
        }
        words = network.text
        self.text_trained = words.trained
        self.text_stand_in = np.zeros((1, shapes.text_dim), np.float32)
        if words.has_token:
            self.text_stand_in = words.token.detach().numpy()[None]
        if config.attention != "self":
            self.text_project = linear(words.project)
        if config.anchor != "text":
            self.text_across = linear(words.across[0]), linear(words.across[1])
        self.hidden, self.last = linear(network.head[0]), linear(network.head[3])


class SlidingTaemi:
    """One stream's window of a TAEMI."""

    def __init__(self, weights: TaemiWeights, *, running_sums: bool = True) -> None:
        """Empty, as at the start of a stream."""
        self._weights = weights
        shapes = weights.config.shapes
        capacities: dict[Modality, int] = {"vision": shapes.vision_frames, "audio": shapes.audio_frames}
        self._sequences: dict[Modality, Sequence] = {
            name: Sequence(name, weights.frames[name], capacity, running_sums=running_sums)
            for name, capacity in capacities.items()
        }

    @property
    def computed(self) -> int:
        """Attention rows computed whole so far, of both sequences."""
        return sum(sequence.computed for sequence in self._sequences.values())

    def restart(self) -> None:
        """Forget the stream."""
        for sequence in self._sequences.values():
            sequence.restart()

    def forward(self, window: StreamWindow, left_out: tuple[Modality | None, ...] = (None,)) -> Floats:
        """Raw intensities (n, 6) of the window: a row for each of the modalities left out, or None.

        Raises:
            InputError: a new frame, or the text, is not finite.
        """
        if not np.isfinite(window.text).all():
            raise InputError("text holds values that are NaN or infinite; mark it as not present")
        weights = self._weights
        present: set[Modality] = {"text"} if window.text_present and weights.text_trained else set()
        shown: dict[Modality, tuple[FrameRun, bool]] = {
            "vision": (window.vision, window.vision_present),
            "audio": (window.audio, window.audio_present),
        }
        for name, (run, is_present) in shown.items():
            sequence = self._sequences[name]
            if sequence.trained:  # frames slide by whether they are used or not
                sequence.slide(run)
                if is_present and len(sequence):
                    present.add(name)
        rows = [frozenset(present - {modality}) for modality in left_out]
        distinct = list(dict.fromkeys(rows))
        reader = _Reader(weights, self._sequences, window.text[None])
        hidden = weights.hidden(np.concatenate([reader.parts(row) for row in distinct]))
        answers: Floats = weights.last(gelu(torch.from_numpy(hidden)).numpy())
        return answers[[distinct.index(row) for row in rows]]


class _Reader:
    """What the head reads of one window, whichever modalities are present; nothing is found twice."""

    def __init__(self, weights: TaemiWeights, sequences: Mapping[Modality, Sequence], text: Floats) -> None:
        self._weights = weights
        self._sequences = sequences
        self._text = text
        self._found: dict[
            tuple[Modality, bool], Floats
        ] = {}  # by the sequence, and whether the anchor is there

    def parts(self, present: frozenset[Modality]) -> Floats:
        """The head's input (1, f): the words or the anchor, then what it found in the two others."""
        weights, config = self._weights, self._weights.config
        text = self._text if "text" in present else weights.text_stand_in
        if config.attention != "anchored":
            words = text if config.attention == "self" else weights.text_project(text)
            parts = [words, self._pooled("audio", present), self._pooled("vision", present)]
        elif config.anchor == "text":
            query = weights.text_project(text)
            parts = [text, self._queried("audio", query, present), self._queried("vision", query, present)]
        else:
            first, second = weights.text_across
            told = second(first(weights.text_project(text)))
            query = self._pooled(config.anchor, present)
            other: Modality = "vision" if config.anchor == "audio" else "audio"
            parts = [query, told, self._queried(other, query, present)]
        return np.concatenate(parts, axis=1)

    def _pooled(self, name: Modality, present: frozenset[Modality]) -> Floats:
        sequence = self._sequences[name]
        return sequence.pooled() if name in present else sequence.absent()

    def _queried(self, name: Modality, query: Floats, present: frozenset[Modality]) -> Floats:
        sequence = self._sequences[name]
        if name not in present:
            return sequence.absent()
        key = name, self._weights.config.anchor in present
        if key not in self._found:
            self._found[key] = sequence.queried(query)
        return self._found[key]
