"""What the face branch learns from: faces that people rated, and prototypes on faces at rest.

Rated faces (`ferplus`) say what joy, empathic pain and excitement look like, and that an angry, disgusted,
contemptuous or neutral face shows none of the six. Nobody rated admiration, amusement and determination:
these come from prototypes (`faces`). Half of the prototypes are shown by rated people: a neutral face, to
which a display is added.

In a second training the branch keeps what it has learned, but adds nothing for neutral faces, so that these
disturb words less.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from emi_models import EMOTIONS
from emi_models.encoders.face import BLENDSHAPES
from emi_models.inputs import FusionInputs
from emi_models.networks.taemi import Taemi
from recipes.compact.branches import train_branch
from recipes.compact.prototypes import FEATURES, columns
from recipes.compact.sizes import CONFIG, SHAPES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from recipes.compact.branches import BranchRecipe
    from recipes.compact.faces import FaceWindows
    from recipes.compact.ferplus import RatedFaces

__all__ = [
    "FACE_CONFIG",
    "FaceMixture",
    "SettledMixture",
    "at_rest",
    "face_window",
    "finished",
    "mirrored",
    "settling",
    "train_face",
    "what_ratings_say",
]

FACE_CONFIG: Final = replace(CONFIG, modalities=("vision",), mlp_hidden=256, dropout=0.05)

JOY, PAIN, EXCITEMENT = (EMOTIONS.index(name) for name in ("joy", "empathic_pain", "excitement"))
JOY_A_VOTE: Final = 0.75
PAIN_A_VOTE: Final = 0.7
EXCITEMENT_A_VOTE: Final = 0.7
HAPPILY_SURPRISED: Final = 0.5  # on top, for the share that surprise and happiness both have
NO_FACE: Final = 0.3  # share of "unknown" and "not a face" from which a picture is left out
MOSTLY_NEUTRAL: Final = 0.6
AT_REST: Final = 0.8  # share of "neutral" of a face at rest
RATED: Final = 0.7  # of the windows
ANGER_COUNTS: Final = 4.0  # on top, for the share that says anger: such a face must stay at rest
PAIN_COUNTS: Final = 3.0  # sadness has fewer votes than happiness, and they agree less
JITTER: Final = 0.02
LEAST_SPREAD: Final = 0.03
JOY_KEPT: Final = 0.72  # so that angry faces, whose mouths are often stretched, stay within 0.05 of rest
JOY_A_SMILE: Final = 0.108
USUAL_SMILE: Final = 0.07  # of faces that nobody calls happy
STRAIGHT: Final = 8.0
UNIT_RIDGE: Final = 1e-4
# Of the second training: how much a neutral face counts, for each of the six. With larger ones, words next to
# neutral faces are better, and the agreement with raters on other faces is worse.
NEUTRAL_COUNTS: Final = (6.0, 6.0, 6.0, 16.0, 6.0, 5.0)
SETTLE: Final = 0.4  # of the steps
SETTLE_RATE: Final = 2e-3
EXCITEMENT_KEPT: Final = 0.7  # so that angry faces, whose mouths are often open, stay within 0.05 of rest


def _mirror() -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Where each feature comes from in a mirrored face, and its sign."""
    sides = {"Left": "Right", "Right": "Left"}
    source = []
    for name in FEATURES:
        side = next((side for side in sides if name.endswith(side)), None)
        source.append(FEATURES.index(name.removesuffix(side) + sides[side]) if side else FEATURES.index(name))
    sign = np.where(np.isin(FEATURES, ("yaw", "roll", "x")), -1, 1).astype(np.float32)
    return np.array(source), sign


SOURCE, SIGN = _mirror()


def mirrored(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features (..., 58) of the same faces in a mirror."""
    turned: NDArray[np.float32] = values[..., SOURCE] * SIGN
    return turned


def what_ratings_say(faces: RatedFaces) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What rated faces add to rest, (N, 6), and how much that counts, 0 where it is not known, (N, 6)."""
    happy, surprised = faces.share("happiness"), faces.share("surprise")
    shows = np.zeros((len(faces.values), len(EMOTIONS)), np.float32)
    shows[:, JOY] = JOY_A_VOTE * happy
    shows[:, PAIN] = PAIN_A_VOTE * faces.share("sadness")
    shows[:, EXCITEMENT] = EXCITEMENT_A_VOTE * surprised + HAPPILY_SURPRISED * np.minimum(happy, surprised)
    # Some raters see sadness in nearly every neutral face: what such faces get on average is rest.
    shows -= shows[faces.share("neutral") >= MOSTLY_NEUTRAL].mean(axis=0)
    known = np.zeros_like(shows)
    known[:, [JOY, PAIN, EXCITEMENT]] = 1
    # Who looks neither happy nor surprised is not amused and admires nothing; resolve is not seen in anger.
    known[happy + surprised < 0.2] = 1
    known *= 1 + ANGER_COUNTS * faces.share("anger")[:, None]
    known[:, PAIN] *= PAIN_COUNTS
    known[faces.share("unknown") + faces.share("NF") > NO_FACE] = 0
    return shows, known


def at_rest(faces: RatedFaces) -> NDArray[np.float32]:
    """Features (K, 58) of the faces that nearly everybody called neutral."""
    return faces.values[faces.share("neutral") >= AT_REST]


@dataclass(frozen=True, slots=True, eq=False)
class FaceMixture:
    """Windows of rated faces and of prototypes, drawn at random."""

    rated: RatedFaces
    prototypes: FaceWindows
    _shows: NDArray[np.float32] = field(init=False)
    _known: NDArray[np.float32] = field(init=False)
    _usable: NDArray[np.intp] = field(init=False)
    _neutral: NDArray[np.bool_] = field(init=False)
    usual: NDArray[np.float32] = field(init=False)
    spread: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        shows, known = what_ratings_say(self.rated)
        object.__setattr__(self, "_shows", shows)
        object.__setattr__(self, "_known", known)
        object.__setattr__(self, "_neutral", self.rated.share("neutral") >= AT_REST)
        # Small movements tell as much as large ones: the network learns from standardised features.
        object.__setattr__(self, "usual", self.rated.values.mean(axis=0))
        object.__setattr__(self, "spread", np.maximum(self.rated.values.std(axis=0), LEAST_SPREAD))
        object.__setattr__(self, "_usable", np.flatnonzero(known.any(axis=1)))

    def __call__(self, batch: int, rng: np.random.Generator) -> tuple[FusionInputs, Tensor, Tensor]:
        """As `branches.Draw`, with standardised features."""
        window, shows, counts, _ = self.draw(batch, rng)
        return window, shows, counts

    def draw(
        self, batch: int, rng: np.random.Generator
    ) -> tuple[FusionInputs, Tensor, Tensor, NDArray[np.bool_]]:
        """The same, and which of them nearly all raters called neutral, (B,)."""
        rated = round(RATED * batch)
        row = self._usable[rng.integers(len(self._usable), size=rated)]
        values = self.rated.values[row]
        # A rated face fills its picture; where a face is in the picture says nothing.
        place = np.stack([*rng.normal(0.0, 0.2, (2, rated)), rng.uniform(-0.9, 0.6, rated)], axis=1)
        values[:, FEATURES.index("x") :] = place
        other = rng.integers(len(self.prototypes.values), size=batch - rated)
        values = np.concatenate([values, self.prototypes.values[other, 0]])
        turned = rng.random(batch) < 0.5
        values[turned] = mirrored(values[turned])
        values[..., :BLENDSHAPES] *= 1 + JITTER * rng.standard_normal((batch, BLENDSHAPES), np.float32)
        values[:rated] += np.float32(JITTER / 2) * rng.standard_normal(values[:rated].shape, np.float32)
        shows = np.concatenate([self._shows[row], self.prototypes.shows[other]])
        counts = np.concatenate([self._known[row], np.ones((batch - rated, len(EMOTIONS)), np.float32)])
        values = (values - self.usual) / self.spread
        window = face_window(values[:, None], np.ones((batch, 1), np.bool_))
        neutral = np.concatenate([self._neutral[row], np.zeros(batch - rated, np.bool_)])
        return window, torch.from_numpy(shows), torch.from_numpy(counts), neutral


@dataclass(frozen=True, slots=True, eq=False)
class SettledMixture:
    """The same windows with a trained branch's answers; neutral faces add nothing, and count more."""

    mixture: FaceMixture
    teacher: Taemi

    def __call__(self, batch: int, rng: np.random.Generator) -> tuple[FusionInputs, Tensor, Tensor]:
        """As `branches.Draw`, with standardised features."""
        window, _, _, neutral = self.mixture.draw(batch, rng)
        with torch.no_grad():
            answers = self.teacher(window)
        at_rest = torch.from_numpy(neutral)[:, None]
        counts = torch.where(at_rest, torch.tensor(NEUTRAL_COUNTS), 1.0)
        return window, torch.where(at_rest, 0.0, answers), counts


def train_face(mixture: FaceMixture, recipe: BranchRecipe, report: Callable[[int, float], None]) -> Taemi:
    """The trained branch; its first layer takes features as the encoder gives them."""
    usual, spread = torch.from_numpy(mixture.usual), torch.from_numpy(mixture.spread)
    network = train_branch(FACE_CONFIG, mixture, recipe, report)
    _standardise(network, usual, spread)
    network = finished(network, mixture.rated.values)
    _standardise(network, -usual / spread, 1 / spread)  # back, to train on
    student = train_branch(
        copy.deepcopy(network),
        SettledMixture(mixture, network),
        settling(recipe),
        lambda done, error: report(recipe.steps + done, error),
    )
    _standardise(student, usual, spread)
    return student


def settling(recipe: BranchRecipe) -> BranchRecipe:
    """The recipe of the second training."""
    return replace(
        recipe,
        seed=recipe.seed + 1,
        steps=round(SETTLE * recipe.steps),
        learning_rate=SETTLE_RATE,
        first_layer_rate=SETTLE_RATE,
        weight_decay=0.003,
        too_high=1.0,
    )


@torch.no_grad()
def _standardise(network: Taemi, usual: Tensor, spread: Tensor) -> None:
    """Let the network standardise features itself: what it takes is no longer (x - usual) / spread, but x."""
    project = network.vision.project
    project.weight /= spread
    project.bias.sub_(project.weight @ usual)
    network.vision.token.mul_(spread).add_(usual)


@torch.no_grad()
def finished(network: Taemi, values: NDArray[np.float32]) -> Taemi:
    """The trained branch with its last touches: less excitement, and one more unit, a smile's size.

    All raters call a clear smile happy, so learned joy hardly grows from there on; the unit makes it grow.

    Args:
        network: the trained branch.
        values: faces (N, 58), on which the unit is fitted.
    """
    config = replace(network.config, mlp_hidden=network.config.mlp_hidden + 1)
    larger = Taemi(config).eval()
    larger.load_state_dict({k: v for k, v in network.state_dict().items() if "head" not in k}, strict=False)
    read: list[Tensor] = []
    old: Any = network.head
    new: Any = larger.head
    hook = old[0].register_forward_pre_hook(lambda _, given: read.append(given[0]))
    network(face_window(values[:, None], np.ones((len(values), 1), np.bool_)))
    hook.remove()
    first = config.shapes.text_dim + config.d_model
    seen = torch.cat([read[0][:, first:], torch.ones(len(values), 1)], dim=1)
    smile = torch.from_numpy(values[:, columns("mouthSmile")].mean(axis=1, keepdims=True))
    rows = seen.double()
    # What the head reads is nearly dependent: without a penalty the solution is another in every run.
    penalty = UNIT_RIDGE * len(rows) * torch.eye(rows.shape[1], dtype=rows.dtype)
    unit = torch.linalg.solve(rows.T @ rows + penalty, rows.T @ smile.double())[:, 0].float()
    for place in (0, 3):
        new[place].weight.zero_()
    new[0].weight[:-1], new[0].bias[:-1] = old[0].weight, old[0].bias
    new[0].weight[-1, first:], new[0].bias[-1] = unit[:-1], unit[-1] + STRAIGHT  # where its curve is straight
    new[3].weight[:, :-1] = old[3].weight
    new[3].bias.copy_(old[3].bias)
    new[3].weight[EXCITEMENT] *= EXCITEMENT_KEPT
    new[3].bias[EXCITEMENT] *= EXCITEMENT_KEPT
    new[3].weight[JOY] *= JOY_KEPT
    new[3].bias[JOY] *= JOY_KEPT
    new[3].weight[JOY, -1] = JOY_A_SMILE
    new[3].bias[JOY] -= JOY_A_SMILE * (STRAIGHT + USUAL_SMILE)
    return larger


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
