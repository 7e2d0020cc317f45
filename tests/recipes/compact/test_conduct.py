"""What is measured of modalities that come, go and meet is what happens in the windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from emi_models import EMOTIONS
from emi_models.checkpoint import load_checkpoint, packaged_checkpoint
from emi_models.encoders.voice_activity import CHUNK_SAMPLES
from emi_models.inputs import FusionInputs
from emi_models.networks.base import FusionNetwork
from recipes.compact.calibrate import read_sound
from recipes.compact.conduct import READ, make_onsets, onset_windows, steps, together
from recipes.compact.faces import FaceWindows
from recipes.compact.ferplus import VOTES, RatedFaces
from recipes.compact.prototypes import displacement
from recipes.compact.scores import HeldOut, infer
from recipes.compact.sizes import SHAPES
from recipes.compact.voices import VoiceTakes

JOY, PAIN = EMOTIONS.index("joy"), EMOTIONS.index("empathic_pain")


@pytest.fixture(scope="module")
def network() -> FusionNetwork:
    return load_checkpoint(packaged_checkpoint("compact")).network


@pytest.fixture(scope="module")
def held() -> HeldOut:
    """Two happy, two sad and three neutral faces; two joyful comments, two sad ones, two of nothing."""
    kinds = ("happiness", "happiness", "sadness", "sadness", "neutral", "neutral", "neutral")
    shares = np.zeros((len(kinds), len(VOTES)), np.float32)
    shares[np.arange(len(kinds)), [VOTES.index(kind) for kind in kinds]] = 1
    faces = [displacement({"mouthSmile": smile}) for smile in (0.9, 0.8, 0.0, 0.0, 0.0, 0.1, 0.02)]
    targets = np.zeros((6, len(EMOTIONS)), np.float32)
    targets[[0, 1], JOY], targets[[2, 3], PAIN] = 1, 1
    texts = torch.nn.functional.normalize(
        torch.randn(6, 384, generator=torch.Generator().manual_seed(0)), dim=1
    )
    nothing = np.zeros((0, 0), np.float32)
    return HeldOut(
        texts={"written": texts},
        targets=targets,
        sentences=texts,
        faces=RatedFaces(np.stack(faces).astype(np.float32), shares, np.arange(len(kinds))),
        recordings=[],
        emotions=np.array([]),
        invented_faces=FaceWindows(nothing, nothing > 0, nothing),
        invented_voices=VoiceTakes(nothing.astype(np.float16), nothing),
    )


def test_pairs_are_the_same_faces_and_words_as_alone(network: FusionNetwork, held: HeldOut) -> None:
    rest = infer(network, FusionInputs.empty(SHAPES))[0]
    found = together(network, held, pairs=20)
    for face in ("happy_face", "sad_face"):
        for words in ("joyful_words", "sad_words"):
            for emotion in ("joy", "empathic_pain"):
                expected = found[f"{face}_{emotion}"] + found[f"{words}_{emotion}"]
                expected -= float(rest[EMOTIONS.index(emotion)])
                assert found[f"{face}_{words}_{emotion}"] == pytest.approx(expected, abs=1e-4)
    assert found["happy_face_joy"] > found["sad_face_joy"] + 0.1


def test_a_step_is_the_largest_of_the_six(network: FusionNetwork, held: HeldOut) -> None:
    rest = infer(network, FusionInputs.empty(SHAPES))[0]
    found = steps(network, held, rest, held.texts["written"][:1])
    assert (found["step_words_n"], found["step_plain_n"], found["step_face_n"]) == (2, 1, 3)
    assert found["step_words_max"] >= found["step_words"] > 0
    assert 0 < found["step_face"] < found["step_face_max"] < 0.2


@pytest.mark.assets
def test_a_voice_begins_after_silence_and_counts_from_the_chunk_on_that_makes_it(
    network: FusionNetwork, assets: Path
) -> None:
    onsets = make_onsets([read_sound(assets / READ[0])], 3)
    assert len(onsets) == 3
    for onset in onsets:
        assert np.ptp(onset.frames[:45, :64]) == 0  # a second of silence
        assert onset.ends[0] >= 50 + 28 * CHUNK_SAMPLES // 320
        assert 1 <= len(onset.ends) <= 5
        assert set(np.diff(onset.ends)) <= {10}
        answers = infer(network, onset_windows(onset))
        assert answers.shape == (len(onset.ends), len(EMOTIONS))
