"""A clip: the features of one person's face, voice and words over time, and how it was rated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import torch

from emi_models.inputs import FusionInputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from emi_models.inputs import FusionShapes
    from emi_models.vocabulary import Modality

__all__ = ["WINDOW_S", "Clip", "ClipSet", "Track"]

WINDOW_S: Final = 12.0  # of the papers, and of live use
NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """Features of one modality in order of time: stamps (T,) int64 ns from the clip's start, values (T, D).

    A frame's stamp is its capture time; a text row's is the moment from which it is known. A text row of
    zeros says that no words are known any more.
    """

    t_ns: NDArray[np.int64]
    values: NDArray[np.float32]

    @classmethod
    def empty(cls, dim: int) -> Track:
        """No frame at all, each of `dim` values."""
        return cls(np.zeros(0, np.int64), np.zeros((0, dim), np.float32))

    def until(self, end_ns: int, span_ns: int) -> NDArray[np.float32]:
        """Values (n, D) of the last `span_ns` up to the newest frame of the 12 s before `end_ns`.

        Back from the newest frame, not from the end: a face that was lost a moment ago is still shown.
        """
        stop = int(np.searchsorted(self.t_ns, end_ns, side="right"))
        if not stop:
            return self.values[:0]
        since_ns = max(end_ns - round(WINDOW_S * NS_PER_S), int(self.t_ns[stop - 1]) - span_ns)
        return self.values[np.searchsorted(self.t_ns, since_ns, side="right") : stop]


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One clip. An empty track is a modality that is missing; `targets` (6,) in [0, 1], None if unrated."""

    id: str
    vision: Track
    audio: Track
    text: Track
    duration_ns: int
    targets: NDArray[np.float32] | None = None

    def window(
        self, shapes: FusionShapes, end_ns: int, spans_s: Mapping[Modality, float] | None = None
    ) -> FusionInputs:
        """What a network would be shown at `end_ns`: the last 12 s of this clip, one row of `shapes`.

        Frames are packed to the front, the newest `shapes.*_frames` of them; a modality is present if it has
        a frame there, words if any are known just then. Live use adds its dropout times (emi_live.window).

        Args:
            shapes: the network's sizes.
            end_ns: the window's end, from the clip's start.
            spans_s: seconds of a modality that are shown, back from its newest frame, where it is not 12.
        """
        spans = spans_s or {}
        vision, vision_mask = _pack(self.vision, shapes.vision_frames, end_ns, spans.get("vision", WINDOW_S))
        audio, audio_mask = _pack(self.audio, shapes.audio_frames, end_ns, spans.get("audio", WINDOW_S))
        known = int(np.searchsorted(self.text.t_ns, end_ns, side="right"))
        text = torch.zeros(1, shapes.text_dim)
        if known:
            text[0] = torch.from_numpy(self.text.values[known - 1])
        return FusionInputs(
            vision=vision,
            vision_mask=vision_mask,
            vision_present=vision_mask.any(dim=1),
            audio=audio,
            audio_mask=audio_mask,
            audio_present=audio_mask.any(dim=1),
            text=text,
            text_present=text.any(dim=1),
        )


class ClipSet(Protocol):
    """A folder of clips, read one at a time."""

    @property
    def shapes(self) -> FusionShapes:
        """The sizes of a 12 s window of these clips."""

    @property
    def encoders(self) -> Mapping[Modality, str]:
        """The encoder whose features these are, by modality: what a checkpoint's header names."""

    @property
    def description(self) -> str:
        """What data these are and how many clips, in one line for a checkpoint's header."""

    @property
    def licence(self) -> str:
        """The terms that a checkpoint trained on these clips inherits, in one line."""

    def ids(self, split: str) -> tuple[str, ...]:
        """The clips of `train`, `valid` or `test`, in the set's order; empty if there is none."""

    def targets(self, split: str) -> NDArray[np.float32]:
        """Ratings (N, 6) in [0, 1] of `ids(split)`, in the order of `EMOTIONS`."""

    def load(self, clip_id: str) -> Clip:
        """One clip with its features."""


def _pack(track: Track, capacity: int, end_ns: int, span_s: float) -> tuple[torch.Tensor, torch.Tensor]:
    frames = track.until(end_ns, round(span_s * NS_PER_S))[-capacity:]
    values = torch.zeros(1, capacity, track.values.shape[1])
    values[0, : len(frames)] = torch.from_numpy(np.ascontiguousarray(frames))
    return values, (torch.arange(capacity) < len(frames))[None]
