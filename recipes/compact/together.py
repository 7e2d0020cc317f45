"""Train all three modalities together, starting from the network of the words.

The network starts from the one that learned only the words, and is trained on the mixture. The words'
part of a target is that network's output. So the output for words stays as learned from ratings, and only
the contribution of faces and voices is new.

Training windows pair words, a synthetic face and a synthetic voice at random. The target of a window combines
those of its parts: 1 - (1 - words)(1 - face)(1 - voice), emotion by emotion. Absent words count as
the mean of the corpus, because that is the best guess without words; an absent or neutral face or voice adds
nothing, so it does not change the target of the words.

`warm_up_then_cosine`, `parameter_groups` and `follow` give the learning rate, the weight decay and the
averaged weights of both trainings.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from emi_models.inputs import FusionInputs
from emi_models.networks.taemi import Taemi
from recipes.compact.sizes import CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from recipes.compact.faces import FaceWindows
    from recipes.compact.voices import VoiceTakes
    from recipes.compact.words import WordsRecipe

__all__ = [
    "Mixture",
    "TogetherRecipe",
    "composed",
    "follow",
    "parameter_groups",
    "train_together",
    "warm_up_then_cosine",
]

# Probability that a modality is present; each is drawn separately, so that every pattern occurs.
PRESENT: Final = {"text": 0.5, "vision": 0.7, "audio": 0.7}
# Most voices show nothing, so a doubtful one must count as neutral.
PLAIN: Final = 0.8
SHORT: Final = 0.15  # probability that a voice has just begun
SHORTEST_FRAMES: Final = 25
MELS: Final = 64
ENERGY: Final = 66


def composed(words: Tensor, face: Tensor, voice: Tensor) -> Tensor:
    """The combined target of words, face and voice; all (B, 6)."""
    return 1 - (1 - words) * (1 - face) * (1 - voice)


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """Where training windows are drawn from.

    Args:
        words: embeddings (N, 384) of the same comments in several variants.
        words_show: the targets of the comments, (N, 6), in the same order.
        wordless: the target without any word, (6,).
        faces: the pool of faces.
        voices: the pool of voices.
        voice_frames: frames of a whole voice window.
        sample: frames of a voice that a drawn window holds, chosen at random from its span. The network sees
            a set, so fewer frames of the same kind give the same, and training is several times faster.
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
        """Windows (B, ...), their targets (B, 6), and where a face or voice adds to words, (B,)."""
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


def warm_up_then_cosine(step: int, warm_up: int, total: int) -> float:
    """The part of the full learning rate at a step: up over `warm_up` steps, then down to 0 at `total`."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))


@torch.no_grad()
def parameter_groups(network: Taemi, recipe: TogetherRecipe | WordsRecipe) -> list[dict[str, object]]:
    """Weight decay for matrices; none for biases, norms and missing tokens."""
    first = network.head[0].weight
    matrices = [p for p in network.parameters() if p.ndim > 1 and p is not first]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    return [
        {"params": [first], "weight_decay": recipe.weight_decay, "lr": recipe.first_layer_rate},
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


@torch.no_grad()
def follow(averaged: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move the averaged weights a step towards the network's; faster at first, while they are few."""
    decay = min(decay, (1 + step) / (10 + step))
    for slow, quick in zip(averaged.parameters(), network.parameters(), strict=True):
        slow.lerp_(quick, 1 - decay)


@dataclass(frozen=True, slots=True, kw_only=True)
class TogetherRecipe:
    """How the network is trained; the defaults are those of the packaged checkpoint."""

    seed: int = 0
    steps: int = 8000
    warm_up: int = 200
    batch: int = 256
    learning_rate: float = 2e-3
    # The layer that reads the words has already learned; the new inputs use the same matrix.
    first_layer_rate: float = 2e-3
    weight_decay: float = 0.02
    average: float = 0.998
    # The weight of windows in which a face or a voice adds to words. People rated the words but not the
    # displays: a doubtful display counts fully without words, and almost nothing with words.
    adds_weight: float = 0.02
    report_every: int = 50


def train_together(
    words: Taemi, mixture: Mixture, recipe: TogetherRecipe, report: Callable[[int, float], None]
) -> Taemi:
    """The trained network, averaged over its last steps.

    Args:
        words: the network that learned only the words; it is not changed.
        mixture: where windows come from.
        recipe: settings of the training.
        report: called with the steps done and the weighted mean squared error since the last call.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    network = Taemi(CONFIG)
    network.load_state_dict(words.state_dict())
    averaged = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(parameter_groups(network, recipe), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warm_up_then_cosine(step, recipe.warm_up, recipe.steps)
    )
    network.train()
    error = 0.0
    for step in range(recipe.steps):
        window, shows, adds = mixture.draw(recipe.batch, rng)
        weight = torch.where(adds, recipe.adds_weight, 1.0)
        squared = (network(window) - shows).square().mean(dim=1)  # (B,)
        loss = (weight * squared).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        follow(averaged, network, recipe.average, step)
        error += loss.item()
        if (step + 1) % recipe.report_every == 0:
            report(step + 1, error / recipe.report_every)
            error = 0.0
    return averaged
