"""The voice branch: attention and five scores that are written down, not learned by gradient.

Four heads average a window's frames: all of them, the voiced ones, the voiced ones of high pitch, and the
voiced ones that are loud. Each gives pitch, voicing, flux, eight numbers of the spectrum's shape, and five of
rhythm and change. The mean
level of a frame chooses loud frames within the window and goes no further, so the gain of a microphone
changes nothing.

From these, five scores are weighted sums. Arousal, happiness and sadness were fitted to six speakers of
EmoDB (Burkhardt et al. 2005), clean and as other rooms and microphones would give them. Laughter and admiring
calls were fitted to synthesised sound (`voices`), against synthesised speech and the same recordings.
`calibrate` prints the tables. A licence of EmoDB for weights that were fitted to it could not be verified.
Most signs are as in Juslin & Laukka 2003: aroused voices are high, of quick onsets and strong in the upper
bands; sad ones are dull and without accents.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from emi_models import EMOTIONS
from emi_models.encoders.prosody import (
    CHANGE,
    ENERGY_CHANGE,
    F0,
    F0_SQUARED,
    FLUX,
    MEL_BANDS,
    PROSODY_DIM,
    RHYTHM,
    SOUND_RHYTHM,
    VOICING,
)
from emi_models.inputs import FusionInputs
from emi_models.networks.taemi import Taemi
from emi_models.population import VOICE_AT_REST
from recipes.compact.sizes import CONFIG, SHAPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = [
    "AROUSED",
    "CALM",
    "DESCRIPTORS",
    "HEADS",
    "HEARD",
    "OFFSETS",
    "SCORES",
    "VOICE_CONFIG",
    "Score",
    "linear_scores",
    "summaries",
    "voice_network",
    "voice_window",
]

# Emotions of EmoDB whose voices are of high and of low arousal.
AROUSED: Final = ("anger", "happiness", "fear")
CALM: Final = ("sadness", "boredom", "neutral")

SHAPES_OF_SPECTRUM: Final = 8
DESCRIPTORS: Final = (
    *("f0", "voicing", "flux"),
    *(f"shape{k + 1}" for k in range(SHAPES_OF_SPECTRUM)),
    *("rhythm", "sound_rhythm", "change", "energy_change", "f0_squared"),
)
HEADS: Final = ("all", "voiced", "high", "loud")
# What a frame's weight grows with: its logarithm is this times voicing, F0 in octaves, and level.
KEYS: Final = {
    "all": (0.0, 0.0, 0.0),
    "voiced": (12.0, 0.0, 0.0),
    "high": (12.0, 3.0, 0.0),
    "loud": (12.0, 0.0, 1.5),
}


def _basis() -> NDArray[np.float32]:
    """From a frame's 73 features to the descriptors and the level, (17, 73)."""
    basis = np.zeros((len(DESCRIPTORS) + 1, PROSODY_DIM), np.float32)
    for row, column in enumerate((F0, VOICING, FLUX)):
        basis[row, column] = 1
    for row, column in enumerate((RHYTHM, SOUND_RHYTHM, CHANGE, ENERGY_CHANGE, F0_SQUARED)):
        basis[3 + SHAPES_OF_SPECTRUM + row, column] = 1
    band = (np.arange(MEL_BANDS) + 0.5) / MEL_BANDS
    for k in range(SHAPES_OF_SPECTRUM):
        basis[3 + k, :MEL_BANDS] = 10 * np.cos(np.pi * (k + 1) * band) / MEL_BANDS
    basis[-1, :MEL_BANDS] = 1 / MEL_BANDS
    return basis


BASIS: Final = _basis()


def descriptors(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Descriptors and level of frames (T, 73): (T, 17)."""
    found: NDArray[np.float32] = frames.astype(np.float32) @ BASIS.T
    return found


def summaries(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """What each head finds in a window of frames (T, 73): (4, 16)."""
    each = descriptors(frames)
    logits = np.stack([each[:, [1, 0, -1]] @ np.array(KEYS[head], np.float32) for head in HEADS])
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    found: NDArray[np.float32] = weights @ each[:, :-1]
    return found


@torch.no_grad()
def _write_attention(network: Taemi) -> None:
    """Set the weights of a network's voice so that its attention gives `summaries`.

    Head h's sixteen numbers are at 16 h in what the head of the network reads.
    """
    voice, width = network.audio, network.config.d_model // network.config.heads
    for layer in (
        voice.project,
        voice.within.out,
        *(getattr(voice.across, n) for n in ("query", "key", "value", "out")),
    ):
        layer.weight.zero_()
        layer.bias.zero_()
    voice.project.weight[: len(BASIS)] = torch.from_numpy(BASIS)
    for head, name in enumerate(HEADS):
        first = head * width
        voice.across.query.bias[first] = width**0.5
        by_voicing, by_f0, by_level = KEYS[name]
        voice.across.key.weight[first, [1, 0, len(BASIS) - 1]] = torch.tensor([by_voicing, by_f0, by_level])
        for row in range(len(DESCRIPTORS)):
            voice.across.value.weight[first + row, row] = 1
    voice.across.out.weight.copy_(torch.eye(network.config.d_model))


# What the scores are made of: a head's number, its mean and deviation, and its weights.
HEARD: Final[Mapping[tuple[str, str], tuple[float, ...]]] = {
    # head, number: mean, deviation; arousal, happiness, sadness, laughter, calls
    ("all", "voicing"): (0.60, 0.10, -0.010, -0.001, -0.060, -0.048, -0.002),
    ("all", "flux"): (0.16, 0.29, 0.011, -0.040, -0.004, 0.001, -0.112),
    ("voiced", "f0"): (-0.16, 0.51, 0.096, 0.067, 0.010, 0.033, -0.001),
    ("voiced", "voicing"): (0.91, 0.05, -0.012, -0.030, 0.037, 0.016, -0.035),
    ("voiced", "flux"): (-0.11, 0.22, 0.036, 0.021, -0.011, -0.014, 0.041),
    ("voiced", "shape1"): (3.32, 1.42, -0.057, -0.013, 0.024, 0.009, 0.009),
    ("voiced", "shape2"): (0.49, 1.13, -0.010, 0.015, 0.030, -0.003, 0.091),
    ("voiced", "shape3"): (1.32, 0.82, -0.010, 0.031, -0.011, -0.005, -0.001),
    ("voiced", "shape4"): (-0.08, 0.74, 0.029, 0.087, 0.006, -0.008, -0.031),
    ("voiced", "shape5"): (-0.10, 0.58, 0.004, -0.007, 0.016, -0.014, -0.011),
    ("voiced", "shape6"): (-0.31, 0.60, 0.041, 0.013, 0.028, 0.001, 0.001),
    ("voiced", "shape7"): (-0.42, 0.34, 0.020, 0.015, 0.022, 0.001, 0.008),
    ("voiced", "shape8"): (-0.48, 0.37, -0.023, -0.010, 0.032, -0.008, -0.016),
    ("high", "f0"): (0.39, 0.50, 0.016, 0.080, 0.020, 0.024, 0.042),
    ("high", "voicing"): (0.88, 0.07, 0.012, 0.017, -0.034, -0.041, 0.036),
    ("high", "flux"): (-0.07, 0.41, -0.018, 0.056, 0.043, 0.010, 0.023),
    ("high", "shape1"): (2.39, 1.46, 0.008, 0.001, -0.045, 0.031, 0.032),
    ("high", "shape2"): (0.14, 1.16, -0.004, 0.024, -0.003, -0.035, 0.050),
    ("high", "shape3"): (0.93, 0.82, 0.001, -0.066, 0.040, -0.010, -0.045),
    ("high", "shape4"): (-0.27, 0.75, 0.007, 0.060, 0.026, 0.009, -0.041),
    ("high", "shape5"): (-0.18, 0.60, -0.023, -0.054, 0.032, -0.013, -0.016),
    ("high", "shape6"): (-0.38, 0.63, 0.006, -0.036, -0.028, 0.014, 0.019),
    ("high", "shape7"): (-0.43, 0.40, -0.008, -0.079, -0.005, 0.027, -0.016),
    ("high", "shape8"): (-0.46, 0.45, -0.027, -0.025, 0.011, 0.023, -0.016),
    ("loud", "f0"): (-0.14, 0.52, 0.095, 0.058, -0.026, 0.033, -0.002),
    ("loud", "voicing"): (0.91, 0.05, -0.050, -0.037, 0.047, -0.004, 0.001),
    ("loud", "flux"): (0.02, 0.29, 0.070, 0.060, -0.062, -0.005, -0.028),
    ("loud", "shape1"): (3.18, 1.60, -0.047, 0.024, -0.008, 0.023, -0.014),
    ("loud", "shape2"): (-0.05, 1.34, -0.025, -0.024, 0.073, 0.005, 0.064),
    ("loud", "shape3"): (1.17, 0.95, 0.005, 0.007, -0.009, -0.012, -0.024),
    ("loud", "shape4"): (-0.35, 0.82, 0.037, 0.068, 0.024, -0.005, -0.016),
    ("loud", "shape5"): (-0.14, 0.63, -0.048, 0.015, 0.043, -0.012, 0.004),
    ("loud", "shape6"): (-0.37, 0.65, 0.033, 0.005, 0.017, -0.002, 0.044),
    ("loud", "shape7"): (-0.50, 0.37, -0.005, -0.005, 0.044, 0.015, 0.017),
    ("loud", "shape8"): (-0.46, 0.39, -0.026, -0.019, 0.012, -0.009, -0.017),
    ("all", "rhythm"): (0.25, 0.10, 0.000, 0.000, 0.000, 0.027, 0.000),
    ("all", "sound_rhythm"): (0.14, 0.08, 0.000, 0.000, 0.000, 0.067, 0.000),
    ("all", "change"): (1.05, 0.22, 0.000, 0.000, 0.000, -0.087, 0.000),
    ("all", "energy_change"): (0.77, 0.23, 0.000, 0.000, 0.000, -0.009, 0.000),
    ("all", "f0_squared"): (0.55, 0.42, 0.000, 0.000, 0.000, -0.007, 0.000),
    ("voiced", "rhythm"): (0.28, 0.13, 0.000, 0.000, 0.000, 0.013, 0.000),
    ("voiced", "sound_rhythm"): (0.16, 0.10, 0.000, 0.000, 0.000, -0.017, 0.000),
    ("voiced", "change"): (1.10, 0.22, 0.000, 0.000, 0.000, 0.004, 0.000),
    ("voiced", "energy_change"): (0.54, 0.20, 0.000, 0.000, 0.000, 0.006, 0.000),
    ("voiced", "f0_squared"): (0.79, 0.67, 0.000, 0.000, 0.000, 0.021, 0.000),
    ("high", "rhythm"): (0.27, 0.15, 0.000, 0.000, 0.000, 0.006, 0.000),
    ("high", "sound_rhythm"): (0.15, 0.11, 0.000, 0.000, 0.000, -0.004, 0.000),
    ("high", "change"): (1.04, 0.29, 0.000, 0.000, 0.000, -0.038, 0.000),
    ("high", "energy_change"): (0.73, 0.48, 0.000, 0.000, 0.000, 0.004, 0.000),
    ("high", "f0_squared"): (1.26, 0.86, 0.000, 0.000, 0.000, -0.017, 0.000),
    ("loud", "rhythm"): (0.29, 0.13, 0.000, 0.000, 0.000, -0.006, 0.000),
    ("loud", "sound_rhythm"): (0.17, 0.10, 0.000, 0.000, 0.000, -0.018, 0.000),
    ("loud", "change"): (1.15, 0.23, 0.000, 0.000, 0.000, 0.002, 0.000),
    ("loud", "energy_change"): (0.49, 0.19, 0.000, 0.000, 0.000, -0.007, 0.000),
    ("loud", "f0_squared"): (0.71, 0.63, 0.000, 0.000, 0.000, 0.020, 0.000),
}
OFFSETS: Final = (0.558, 0.307, 0.263, 0.065, 0.112)  # of the five scores


@dataclass(frozen=True, slots=True)
class Score:
    """What a score adds to an intensity: nothing up to `begins`, all of `adds` from `ends` on.

    `of` is the score's place, and `rest` its value in an ordinary voice.
    """

    emotion: str
    of: int
    begins: float
    ends: float
    adds: float
    rest: float


AROUSAL, HAPPINESS, SADNESS, LAUGHTER, CALLS = range(5)
# Nearly all neutral recordings of the six speakers are below `begins`. Few voiced frames give scores that
# vary more, so the limits are also such that speech that begins adds 0.2 in one of a thousand windows with 30
# voiced frames, about 0.9 s. Joy and pain add less than 0.2 in any voice: a voice that begins in the middle
# of a word scored up to 1.3 for sadness (speakers of the fit, 1,500 onsets), and sad recordings up to 1.2.
SCORES: Final = (
    Score("excitement", AROUSAL, 0.95, 1.38, 0.5, 0.3),
    Score("joy", HAPPINESS, 0.55, 0.75, 0.17, 0.15),
    Score("empathic_pain", SADNESS, 0.78, 0.95, 0.18, 0.4),
    Score("amusement", LAUGHTER, 0.67, 1.0, 0.5, 0.1),
    Score("admiration", CALLS, 0.75, 1.1, 0.3, 0.2),
)
KNEE: Final = 30.0  # how sharp the limits are: a knee is about 1 / KNEE of the score wide
SLOPE: Final = 0.02  # what a score adds outside of its limits, for each 1, so that the order is kept there
STRAIGHT: Final = 8.0  # so far up, the curve of a hidden unit is a straight line
VOICE_CONFIG: Final = replace(CONFIG, modalities=("audio",), mlp_hidden=3 * len(SCORES), dropout=0.0)


def linear_scores(found: NDArray[np.float32]) -> NDArray[np.float64]:
    """The five scores (B, 5) from what the heads found, (B, 4, 16)."""
    values = np.array(list(HEARD.values()))
    picked = np.stack([found[:, HEADS.index(h), DESCRIPTORS.index(d)] for h, d in HEARD], axis=1)
    scores: NDArray[np.float64] = (picked - values[:, 0]) / values[:, 1] @ values[:, 2:] + OFFSETS
    return scores


@torch.no_grad()
def _write_scores(network: Taemi) -> None:
    """Set the hidden units of a voice network to the scores, and its output to what they add.

    Two units make a score's limits, and a third its slope.
    """
    hidden: Any = network.head[0]
    last: Any = network.head[3]
    width = network.config.d_model // network.config.heads
    first = network.config.shapes.text_dim
    values = np.array(list(HEARD.values()))
    columns = [first + HEADS.index(h) * width + DESCRIPTORS.index(d) for h, d in HEARD]
    for tensor in (hidden.weight, hidden.bias, last.weight, last.bias):
        tensor.zero_()
    for place, score in enumerate(SCORES):
        weights = values[:, 2 + score.of] / values[:, 1]
        offset = OFFSETS[score.of] - float(weights @ values[:, 0])
        adds = score.adds / (score.ends - score.begins)
        units = ((score.begins, KNEE, adds), (score.ends, KNEE, -adds), (score.rest - STRAIGHT, 1.0, SLOPE))
        for unit, (limit, sharp, out) in enumerate(units):
            row = 3 * place + unit
            hidden.weight[row, columns] = torch.from_numpy(sharp * weights).float()
            hidden.bias[row] = sharp * (offset - limit)
            last.weight[EMOTIONS.index(score.emotion), row] = out / sharp
        last.bias[EMOTIONS.index(score.emotion)] -= SLOPE * STRAIGHT


def voice_network() -> Taemi:
    """The network that has only a voice, and says what it adds to rest."""
    torch.manual_seed(0)  # of what is not used
    network = Taemi(VOICE_CONFIG).eval()
    _write_attention(network)
    _write_scores(network)
    with torch.no_grad():  # where the search for the token of an absent voice begins
        network.audio.token.copy_(torch.from_numpy(VOICE_AT_REST))
    return network


def voice_window(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> FusionInputs:
    """Windows (B, ...) with only voices, from features (B, T, 73) and their mask (B, T)."""
    batch = len(values)
    nothing = FusionInputs(*(t.expand(batch, *t.shape[1:]) for t in FusionInputs.empty(SHAPES).tensors()))
    return replace(
        nothing,
        audio=torch.from_numpy(values),
        audio_mask=torch.from_numpy(mask),
        audio_present=torch.ones(batch, dtype=torch.bool),
    )
