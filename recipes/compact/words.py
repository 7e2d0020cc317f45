"""What the words branch learns from: comments as readers take them, and sentences of our own.

Readers (`readers`) say what people would feel in a comment. What words add to rest grows with what readers
say above the little that they say of any comment, and by a factor of its own for each emotion
(`what_words_add`). So plain words add next to nothing, and a rare emotion counts next to a face and a voice.

A sentence of our own is known to show an emotion or to deny it: what readers say of it is raised to `SHOWN`
or lowered to `DENIED`. Of a plain one it is known that it shows none of the six. There are few of these, so
that they are changed a little each time, and the branch does not learn them by heart.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from emi_models.inputs import FusionInputs
from recipes.compact.branches import BranchRecipe, train_branch
from recipes.compact.sizes import CONFIG, SHAPES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from emi_models.networks.base import FusionNetwork
    from emi_models.networks.taemi import Taemi
    from recipes.compact.readers import Readers
    from recipes.compact.sentences import Sentence

__all__ = [
    "WORDS_CONFIG",
    "WORDS_RECIPE",
    "Own",
    "WordMixture",
    "predict",
    "text_window",
    "train_words",
    "what_words_add",
]

WORDS_CONFIG: Final = replace(CONFIG, modalities=("text",), mlp_hidden=704, dropout=0.0)
# Embeddings have length 1, so that one of their 384 values is about 0.05: the layer that reads them needs
# larger steps.
WORDS_RECIPE: Final = BranchRecipe(
    steps=4000, learning_rate=3e-3, first_layer_rate=4e-2, weight_decay=0.003, average=0.998
)

# By emotion, in the order of `EMOTIONS`. Joy and excitement are what neutral faces and voices disturb.
FROM: Final = (0.05, 0.03, 0.025, 0.03, 0.012, 0.025)
TIMES: Final = (1.05, 1.0, 1.15, 1.5, 2.3, 2.1)
COUNTS: Final = (1.0, 1.0, 1.5, 0.9, 1.9, 1.05)  # errors
MOST: Final = 1.0
PLAIN: Final = 0.05  # a comment of which readers say that it adds less is plain
PLAIN_COUNTS: Final = 8.0  # and its errors count more, since plain words must not move anything
SHOWN: Final = 0.3
DENIED: Final = -0.1
OWN_SHARE: Final = 0.4  # of a batch
OWN_COUNTS: Final = 2.0  # what is known of an own sentence, next to what readers say of it
OWN_PLAIN_COUNTS: Final = 8.0
OWN_NOISE: Final = 0.025  # on each of the 384 values, which are about 0.05


def what_words_add(said: Tensor) -> Tensor:
    """What words add to rest (N, 6), 0 to `MOST`, of which readers expect these intensities (N, 6)."""
    least, times = said.new_tensor(FROM), said.new_tensor(TIMES)
    return ((said - least).clamp(min=0) * times).clamp(max=MOST)


@dataclass(frozen=True, slots=True, eq=False)
class Own:
    """Sentences of our own, and what is known of them.

    Args:
        text: embeddings (N, 384).
        shown: 1 where an emotion is shown, 0 where it is not, NaN where nothing is known; (N, 6).
    """

    text: Tensor
    shown: Tensor

    @classmethod
    def of(cls, text: Tensor, sentences: Sequence[Sentence]) -> Own:
        """What is known of these sentences, with their embeddings (N, 384)."""
        shown = torch.full((len(sentences), CONFIG.outputs), torch.nan)
        for row, sentence in enumerate(sentences):
            if sentence.emotion:
                shown[row, sentence.column] = float(sentence.shown)
            else:
                shown[row] = 0.0
        return cls(text, shown)

    def adds(self, readers: Readers) -> Tensor:
        """What the sentences add to rest, (N, 6)."""
        adds = what_words_add(readers(self.text))
        adds = torch.where(self.shown == 1, adds.clamp(min=SHOWN), adds)
        least = torch.where(self.plain, 0.0, DENIED)
        return torch.where(self.shown == 0, adds.minimum(least), adds)

    @property
    def plain(self) -> Tensor:
        """Which sentences show none of the six, (N, 1)."""
        return (self.shown == 0).all(dim=1, keepdim=True)

    @property
    def counts(self) -> Tensor:
        """How much errors count, (N, 6)."""
        known = torch.where(self.plain, OWN_PLAIN_COUNTS, OWN_COUNTS)
        return torch.where(self.shown.isnan(), 1.0, known)


@dataclass(frozen=True, slots=True, eq=False)
class WordMixture:
    """Windows of comments and of own sentences, drawn at random.

    Args:
        views: embeddings (N, 384) of the same comments in several variants.
        readers: who say what a text shows.
        own: sets of sentences, of which each batch has as many.
        rest: (6,), to which words add.
    """

    views: Sequence[Tensor]
    readers: Readers
    own: Sequence[Own]
    rest: Tensor
    _adds: list[Tensor] = field(init=False)
    _own_adds: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_adds", [what_words_add(self.readers(view)) for view in self.views])
        object.__setattr__(self, "_own_adds", [own.adds(self.readers) for own in self.own])

    def __call__(self, batch: int, rng: np.random.Generator) -> tuple[FusionInputs, Tensor, Tensor]:
        """As `branches.Draw`; the branch's answers contain rest."""
        each = round(OWN_SHARE * batch / max(1, len(self.own)))
        texts, adds, counts = [], [], []
        which = rng.integers(len(self.views), size=batch - each * len(self.own))
        for place, (view, view_adds) in enumerate(zip(self.views, self._adds, strict=True)):
            rows = torch.from_numpy(rng.integers(len(view), size=int((which == place).sum())))
            texts.append(view[rows])
            adds.append(view_adds[rows])
            plain = adds[-1].amax(dim=1, keepdim=True) < PLAIN
            counts.append(torch.where(plain, PLAIN_COUNTS, 1.0).expand(-1, CONFIG.outputs))
        for own, own_adds in zip(self.own, self._own_adds, strict=True):
            rows = torch.from_numpy(rng.integers(len(own.text), size=each))
            noise = torch.from_numpy(rng.standard_normal((each, own.text.shape[1]), np.float32))
            texts.append(own.text[rows] + OWN_NOISE * noise)
            adds.append(own_adds[rows])
            counts.append(own.counts[rows])
        weights = torch.cat(counts) * torch.tensor(COUNTS)
        return text_window(torch.cat(texts)), self.rest + torch.cat(adds), weights


def train_words(mixture: WordMixture, recipe: BranchRecipe, report: Callable[[int, float], None]) -> Taemi:
    """The trained branch; its answers are rest and what words add."""
    return train_branch(WORDS_CONFIG, mixture, recipe, report)


def text_window(text: Tensor, *, present: bool = True) -> FusionInputs:
    """Windows (B, ...) with only words, from embeddings (B, 384); face and voice take no memory."""
    shapes, batch = SHAPES, len(text)
    zero, no = torch.zeros(1), torch.zeros(1, dtype=torch.bool)
    return FusionInputs(
        vision=zero.expand(batch, shapes.vision_frames, shapes.vision_dim),
        vision_mask=no.expand(batch, shapes.vision_frames),
        vision_present=no.expand(batch),
        audio=zero.expand(batch, shapes.audio_frames, shapes.audio_dim),
        audio_mask=no.expand(batch, shapes.audio_frames),
        audio_present=no.expand(batch),
        text=text,
        text_present=torch.full((batch,), present),
    )


def predict(network: FusionNetwork, text: Tensor, *, present: bool = True) -> NDArray[np.float32]:
    """Raw intensities (B, 6) from embeddings (B, 384), with face and voice missing."""
    with torch.inference_mode():
        intensities: NDArray[np.float32] = network(text_window(text, present=present)).numpy()
    return intensities
