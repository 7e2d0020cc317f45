"""Training windows of all three modalities: words, an invented face and an invented voice, paired at random.

What a window shows is what its parts show, together: 1 - (1 - words)(1 - face)(1 - voice), emotion by
emotion. Absent words count as the mean of the corpus, because that is the best answer without any; an absent
or neutral face or voice adds nothing, so it leaves the words' answer as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from emi_models.inputs import FusionInputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from emi_models.training.compact.faces import FaceWindows
    from emi_models.training.compact.voices import VoiceTakes

__all__ = ["Mixture", "composed"]

# Chances that a modality is there; each is drawn alone, so that every pattern comes up.
PRESENT: Final = {"text": 0.5, "vision": 0.7, "audio": 0.7}
# Most voices show nothing, so one that might or might not must be taken for plain.
PLAIN: Final = 0.8
SHORT: Final = 0.15  # chance that a voice has only just begun
SHORTEST_FRAMES: Final = 25
MELS: Final = 64
ENERGY: Final = 66


def composed(words: Tensor, face: Tensor, voice: Tensor) -> Tensor:
    """What words, face and voice show together; all (B, 6)."""
    return 1 - (1 - words) * (1 - face) * (1 - voice)


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """Where training windows are drawn from.

    Args:
        words: embeddings (N, 384) of the same comments in several guises.
        words_show: what each shows, (N, 6), in the same order.
        wordless: what is expected without any word, (6,).
        faces: the pool of faces.
        voices: the pool of voices.
        voice_frames: frames of a whole voice window.
        sample: frames of a voice that a drawn window holds, chosen at random from its span. The network sees
            a set, so fewer of the same kind say the same, and training is several times faster.
    """

    words: Sequence[Tensor]
    words_show: Sequence[Tensor]
    wordless: Tensor
    faces: FaceWindows
    voices: VoiceTakes
    voice_frames: int
    sample: int = 32
    _plain: NDArray[np.intp] = field(init=False)
    _telling: NDArray[np.intp] = field(init=False)

    def __post_init__(self) -> None:
        telling = self.voices.sounds.any(axis=(1, 2))
        object.__setattr__(self, "_plain", np.flatnonzero(~telling))
        object.__setattr__(self, "_telling", np.flatnonzero(telling))

    def draw(self, batch: int, rng: np.random.Generator) -> tuple[FusionInputs, Tensor, Tensor]:
        """Windows (B, ...), what they show, (B, 6), and where a face or voice adds to words, (B,)."""
        text, words = self._text(batch, rng)
        row = rng.integers(len(self.faces.values), size=batch)
        face = torch.from_numpy(self.faces.shows[row])
        audio, audio_mask, voice = self._voice(batch, rng)
        told, seen, heard = (
            torch.from_numpy(rng.random(batch) < PRESENT[name]) for name in ("text", "vision", "audio")
        )
        window = FusionInputs(
            vision=torch.from_numpy(self.faces.values[row]),
            vision_mask=torch.from_numpy(self.faces.mask[row]),
            vision_present=seen,
            audio=audio,
            audio_mask=audio_mask,
            audio_present=heard,
            text=text,
            text_present=told,
        )
        words = torch.where(told[:, None], words, self.wordless)
        face, voice = face * seen[:, None], voice * heard[:, None]
        adds = told & (face.any(dim=1) | voice.any(dim=1))
        return window, composed(words, face, voice), adds

    def _text(self, batch: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        rows = rng.integers(len(self.words[0]), size=batch).tolist()
        guises = rng.integers(len(self.words), size=batch).tolist()
        which = list(zip(guises, rows, strict=True))
        text = torch.stack([self.words[guise][row] for guise, row in which])
        return text, torch.stack([self.words_show[guise][row] for guise, row in which])

    def _voice(self, batch: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        length = self.voices.values.shape[1]
        values = np.zeros((batch, self.sample, self.voices.values.shape[2]), np.float32)
        mask = np.zeros((batch, self.sample), np.bool_)
        shows = np.zeros((batch, self.voices.sounds.shape[2]), np.float32)
        for row in range(batch):
            frames = self.voice_frames
            if rng.random() < SHORT:
                frames = int(rng.integers(SHORTEST_FRAMES, frames))
            takes = self._plain if rng.random() < PLAIN else self._telling
            takes = takes if len(takes) else np.arange(len(self.voices.values))
            take = int(takes[rng.integers(len(takes))])
            start = int(rng.integers(length - frames + 1))
            kept = rng.choice(frames, min(self.sample, frames), replace=False)
            values[row, : len(kept)] = self.voices.values[take, start + kept]
            mask[row, : len(kept)] = True
            shows[row] = self.voices.shows(take, start, start + frames)
        _other_microphone(values, rng)
        return torch.from_numpy(values), torch.from_numpy(mask), torch.from_numpy(shows)


def _other_microphone(values: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Another channel and gain for each window (B, T, 68), and a little noise in each feature."""
    batch, _, dim = values.shape
    knots = rng.normal(0.0, 0.5, (batch, 7)) + rng.normal(0.0, 0.5, (batch, 1))
    bands = np.stack([np.interp(np.arange(MELS), np.linspace(0, MELS - 1, 7), curve) for curve in knots])
    values[:, :, :MELS] += bands[:, None].astype(np.float32)
    values[:, :, ENERGY] += rng.normal(0.0, 0.7, (batch, 1)).astype(np.float32)
    values += rng.normal(0.0, 0.1, (batch, 1, dim)).astype(np.float32)
    values += np.float32(0.1) * rng.standard_normal(values.shape, np.float32)
