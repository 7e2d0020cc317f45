"""What the face branch learns from: faces that people rated, and prototypes on faces at rest.

Judges (`judges`) say how raters vote on a face, and joy, empathic pain and excitement grow with these votes.
They can be asked about any face, so the branch also learns from means of two faces. What neutral faces show
on average is rest; an angry, disgusted or contemptuous face shows next to nothing. Nobody rated admiration,
amusement and determination: these come from prototypes (`faces`). Half of the prototypes are shown by rated
people: a neutral face, to which a display is added.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from emi_models import EMOTIONS
from emi_models.encoders.face import BLENDSHAPES
from emi_models.inputs import FusionInputs
from recipes.compact.branches import train_branch
from recipes.compact.ferplus import VOTES
from recipes.compact.prototypes import FEATURES, columns, mirrored
from recipes.compact.sizes import CONFIG, SHAPES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from emi_models.networks.taemi import Taemi
    from recipes.compact.branches import BranchRecipe
    from recipes.compact.faces import FaceWindows
    from recipes.compact.ferplus import RatedFaces
    from recipes.compact.judges import Judges

__all__ = ["FACE_CONFIG", "FaceMixture", "at_rest", "face_window", "train_face", "what_votes_show"]

FACE_CONFIG: Final = replace(CONFIG, modalities=("vision",), mlp_hidden=510, dropout=0.0)

JOY, PAIN, EXCITEMENT = (EMOTIONS.index(name) for name in ("joy", "empathic_pain", "excitement"))


# What votes show, chosen on a tenth of FER+ `train`: so that the agreement with voters is high, and words
# next to neutral faces lose little. Small shares count less than their part, since a few raters give them to
# nearly every neutral face.
JOY_FROM: Final = 0.33
JOY_MOST: Final = 0.3
# All call a clear smile happy, but joy grows with the smile, unless judges see a feeling in which lips are
# drawn too.
JOY_A_SMILE: Final = 0.22
NOT_A_SMILE: Final = ("anger", "disgust", "contempt")
PAIN_MOST, PAIN_POWER = 0.25, 1.3
EXCITEMENT_MOST, EXCITEMENT_POWER = 0.34, 1.75
BOTH: Final = 0.2  # excitement on top, for the share that surprise and happiness both have
BOTH_FROM: Final = 0.1
KNOWN_BELOW: Final = 0.2  # share of happiness and surprise
NO_FACE: Final = 0.3  # share of "unknown" and "not a face" from which a picture is left out
AT_REST: Final = 0.8  # share of "neutral" of a face at rest
RATED: Final = 0.85  # of the windows
MIXED: Final = 0.5  # of the rated ones: a mean of two faces, of which the judges say what it shows
JITTER: Final = 0.02
RATED_JITTER: Final = 0.1  # of rated faces: the judges see what was changed, and answer accordingly
LEAST_SPREAD: Final = 0.03
NEUTRAL_COUNTS: Final = 3.0  # a neutral face must show nothing
ANGER_COUNTS: Final = 2.0
ANGRY: Final = 0.5
# Sadness and surprise are shown weaker than joy, and their errors count as much.
COUNTS: Final = {JOY: 2.5, PAIN: 25.0, EXCITEMENT: 7.0}


def what_votes_show(values: NDArray[np.float32], shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """What faces (N, 58) show of which judges expect these shares of votes (N, 10): (N, 6), from 0 on."""
    shows = np.zeros((len(values), len(EMOTIONS)), np.float32)
    happy, sad, surprised = (shares[:, VOTES.index(name)] for name in ("happiness", "sadness", "surprise"))
    smile = values[:, columns("mouthSmile")].mean(axis=1)
    smile *= (1 - shares[:, [VOTES.index(name) for name in NOT_A_SMILE]].sum(axis=1)) ** 2
    shows[:, JOY] = JOY_MOST * np.maximum(happy - JOY_FROM, 0) / (1 - JOY_FROM) + JOY_A_SMILE * smile
    shows[:, PAIN] = PAIN_MOST * sad**PAIN_POWER
    shows[:, EXCITEMENT] = EXCITEMENT_MOST * surprised**EXCITEMENT_POWER
    shows[:, EXCITEMENT] += BOTH * np.maximum(np.minimum(happy, surprised) - BOTH_FROM, 0)
    return shows


def _known(faces: RatedFaces) -> NDArray[np.float32]:
    """How much each of the six counts of each face, (N, 6); 0 where nobody knows."""
    known = np.zeros((len(faces.values), len(EMOTIONS)), np.float32)
    known[:, list(COUNTS)] = 1
    # Who looks neither happy nor surprised is not amused and admires nothing.
    known[faces.share("happiness") + faces.share("surprise") < KNOWN_BELOW] = 1
    known[faces.share("neutral") >= AT_REST] *= NEUTRAL_COUNTS
    known[faces.share("anger") >= ANGRY] *= ANGER_COUNTS
    known[:, list(COUNTS)] *= np.array(list(COUNTS.values()), np.float32)
    known[faces.share("unknown") + faces.share("NF") > NO_FACE] = 0
    return known


def at_rest(faces: RatedFaces) -> NDArray[np.float32]:
    """Features (K, 58) of the faces that nearly everybody called neutral."""
    return faces.values[faces.share("neutral") >= AT_REST]


@dataclass(frozen=True, slots=True, eq=False)
class FaceMixture:
    """Windows of rated faces and of prototypes, drawn at random."""

    rated: RatedFaces
    judges: Judges
    prototypes: FaceWindows
    _counts: NDArray[np.float32] = field(init=False)
    _usable: NDArray[np.intp] = field(init=False)
    _rest: NDArray[np.float32] = field(init=False)  # what neutral faces show on average, (6,)
    usual: NDArray[np.float32] = field(init=False)
    spread: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_counts", _known(self.rated))
        object.__setattr__(self, "_usable", np.flatnonzero(self._counts.any(axis=1)))
        neutral = at_rest(self.rated)
        object.__setattr__(self, "_rest", what_votes_show(neutral, self.judges(neutral)).mean(axis=0))
        # Small movements tell as much as large ones: the network learns from standardised features.
        object.__setattr__(self, "usual", self.rated.values.mean(axis=0))
        object.__setattr__(self, "spread", np.maximum(self.rated.values.std(axis=0), LEAST_SPREAD))

    def __call__(self, batch: int, rng: np.random.Generator) -> tuple[FusionInputs, Tensor, Tensor]:
        """As `branches.Draw`, with standardised features."""
        rated = round(RATED * batch)
        row = self._usable[rng.integers(len(self._usable), size=rated)]
        values, counts = self.rated.values[row], self._counts[row]
        mixed = round(MIXED * rated)
        share = rng.random((mixed, 1), np.float32)
        others = self._usable[rng.integers(len(self._usable), size=mixed)]
        values[:mixed] = share * values[:mixed] + (1 - share) * self.rated.values[others]
        counts[:mixed] = 0
        counts[:mixed, list(COUNTS)] = list(COUNTS.values())
        # A rated face fills its picture; where a face is in the picture says nothing.
        place = np.stack([*rng.normal(0.0, 0.2, (2, rated)), rng.uniform(-0.9, 0.6, rated)], axis=1)
        values[:, FEATURES.index("x") :] = place
        other = rng.integers(len(self.prototypes.values), size=batch - rated)
        values = np.concatenate([values, self.prototypes.values[other, 0]])
        turned = rng.random(batch) < 0.5
        values[turned] = mirrored(values[turned])
        values[:, :BLENDSHAPES] *= 1 + JITTER * rng.standard_normal((batch, BLENDSHAPES), np.float32)
        values[:rated, :BLENDSHAPES] *= 1 + RATED_JITTER * rng.standard_normal(
            (rated, BLENDSHAPES), np.float32
        )
        seen = what_votes_show(values[:rated], self.judges(values[:rated])) - self._rest
        shows = np.concatenate([seen, self.prototypes.shows[other]])
        counts = np.concatenate([counts, np.ones((batch - rated, len(EMOTIONS)), np.float32)])
        values = (values - self.usual) / self.spread
        window = face_window(values[:, None], np.ones((batch, 1), np.bool_))
        return window, torch.from_numpy(shows), torch.from_numpy(counts)


def train_face(mixture: FaceMixture, recipe: BranchRecipe, report: Callable[[int, float], None]) -> Taemi:
    """The trained branch; its first layer takes features as the encoder gives them."""
    usual, spread = torch.from_numpy(mixture.usual), torch.from_numpy(mixture.spread)
    network = train_branch(FACE_CONFIG, mixture, recipe, report)
    with torch.no_grad():
        # What the network takes is no longer (x - usual) / spread, but x.
        project = network.vision.project
        project.weight /= spread
        project.bias.sub_(project.weight @ usual)
        network.vision.token.mul_(spread).add_(usual)
    return network


def face_window(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> FusionInputs:
    """Windows (B, ...) with only faces, from features (B, F, 58) and their mask (B, F)."""
    empty, batch = FusionInputs.empty(SHAPES), len(values)
    nothing = FusionInputs(*(t.expand(batch, *t.shape[1:]) for t in empty.tensors()))
    return replace(
        nothing,
        vision=torch.from_numpy(values),
        vision_mask=torch.from_numpy(mask),
        vision_present=torch.ones(batch, dtype=torch.bool),
    )
