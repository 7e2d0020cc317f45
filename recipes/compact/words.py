"""What the words branch learns from: comments as readers take them, and sentences of our own.

Readers (`readers`) say what people would feel in a comment. What words add to rest grows with what readers
say above the least that they say of anything, and by a factor of its own for each emotion (`what_words_add`).
So plain words add next to nothing, and a rare emotion counts next to a face and a voice. Readers can be asked
about any text, so the branch also learns from means of two comments.

A sentence of our own is known to show an emotion or to deny it: what readers say of it is raised to `SHOWN`
or lowered to nothing. Of a plain one it is known that it shows none of the six.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import torch

from emi_models.inputs import FusionInputs
from recipes.compact.branches import BranchRecipe, train_branch
from recipes.compact.sizes import CONFIG, SHAPES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
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
    steps=8000, learning_rate=1e-3, first_layer_rate=1e-2, weight_decay=0.01, average=0.998
)

# By emotion, in the order of `EMOTIONS`.
FROM: Final = (0.06, 0.03, 0.03, 0.04, 0.02, 0.03)
TIMES: Final = (1.2, 1.1, 1.3, 1.3, 2.0, 1.7)
MOST: Final = 1.0
SHOWN: Final = 0.25  # what a sentence that shows an emotion adds at least
OWN_SHARE: Final = 0.25  # of a batch
MIXED: Final = 0.3  # of the comments: a mean of two
OWN_COUNTS: Final = 1.0  # what is known of an own sentence, next to what readers say of it
COUNTS: Final = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0)  # errors by emotion


def what_words_add(said: Tensor) -> Tensor:
    """What words add to rest (N, 6), 0 to 1, of which readers expect these intensities (N, 6)."""
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
        return torch.where(self.shown == 0, 0.0, adds)


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
    _own_adds: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_own_adds", [own.adds(self.readers) for own in self.own])

    def __call__(self, batch: int, rng: np.random.Generator) -> tuple[FusionInputs, Tensor, Tensor]:
        """As `branches.Draw`; the branch's answers contain rest."""
        each = round(OWN_SHARE * batch / max(1, len(self.own)))
        comments = batch - each * len(self.own)
        text, mixed = self._drawn(comments, rng), round(MIXED * comments)
        share = torch.from_numpy(rng.random((mixed, 1), np.float32))
        text[:mixed] = share * text[:mixed] + (1 - share) * self._drawn(mixed, rng)
        texts, adds = [text], [what_words_add(self.readers(text))]
        counts = [torch.ones(comments, CONFIG.outputs)]
        for own, own_adds in zip(self.own, self._own_adds, strict=True):
            rows = torch.from_numpy(rng.integers(len(own.text), size=each))
            texts.append(own.text[rows])
            adds.append(own_adds[rows])
            counts.append(torch.where(own.shown[rows].isnan(), 1.0, OWN_COUNTS))
        weights = torch.cat(counts) * torch.tensor(COUNTS)
        return text_window(torch.cat(texts)), self.rest + torch.cat(adds), weights

    def _drawn(self, count: int, rng: np.random.Generator) -> Tensor:
        """Comments (count, 384), each in one of its variants."""
        rows = torch.from_numpy(rng.integers(len(self.views[0]), size=count))
        which = rng.integers(len(self.views), size=count)
        text = torch.empty(count, self.views[0].shape[1])
        for place, view in enumerate(self.views):
            text[which == place] = view[rows[which == place]]
        return text


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
