"""What is measured of modalities that come, go and meet is what happens in the windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from emi_models import EMOTIONS
from emi_models.checkpoint import load_checkpoint, packaged_checkpoint
from emi_models.encoders.prosody import F0, FLUX
from emi_models.encoders.voice_activity import CHUNK_SAMPLES
from emi_models.inputs import FusionInputs
from emi_models.networks.base import FusionNetwork
from emi_models.population import VOICE_AT_REST
from recipes.compact.calibrate import read_sound
from recipes.compact.conduct import READ, beside_words, make_onsets, onset_windows, steps, together
from recipes.compact.faces import FaceWindows
from recipes.compact.ferplus import VOTES, RatedFaces
from recipes.compact.prototypes import displacement
from recipes.compact.scores import Acted, HeldOut, infer
from recipes.compact.sizes import SHAPES
from recipes.compact.voices import VoiceTakes

JOY, PAIN = EMOTIONS.index("joy"), EMOTIONS.index("empathic_pain")


@pytest.fixture(scope="module")
def network() -> FusionNetwork:
    return load_checkpoint(packaged_checkpoint("compact")).network


@pytest.fixture(scope="module")
def held() -> HeldOut:
    """Happy, sad and neutral faces; two joyful comments, two sad ones, two of nothing; acted voices."""
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
    # Aroused voices are high, and those of the calm low; eight sounds of two speakers.
    high = np.array([True, True, False, False] * 2)
    rng = np.random.default_rng(0)
    frames = [np.tile(VOICE_AT_REST, (60, 1)) for _ in high]
    for each, aroused in zip(frames, high, strict=True):
        each[:, [F0, FLUX]] += rng.uniform(1.0, 1.4) if aroused else rng.uniform(-0.4, 0.0)
    return HeldOut(
        texts={"written": texts},
        targets=targets,
        sentences=texts,
        faces=RatedFaces(np.stack(faces).astype(np.float32), shares, np.arange(len(kinds))),
        acted=Acted(
            frames=frames,
            emotions=np.where(high, "happiness", "sadness"),
            speakers=np.repeat(["03", "08"], 4),
            numbers=np.arange(8) // 2,
        ),
        invented_faces=FaceWindows(nothing, nothing > 0, nothing),
        invented_voices=VoiceTakes(nothing.astype(np.float16), nothing),
    )


@pytest.mark.parametrize("other", ["face", "voice"])
def test_pairs_are_the_same_as_their_parts_alone(network: FusionNetwork, held: HeldOut, other: str) -> None:
    rest = infer(network, FusionInputs.empty(SHAPES))[0]
    found = together(network, held, pairs=20)
    for shown in (f"happy_{other}", f"sad_{other}"):
        for words in ("joyful_words", "sad_words"):
            for emotion in ("joy", "empathic_pain", "excitement"):
                expected = found[f"{shown}_{emotion}"] + found[f"{words}_{emotion}"]
                expected -= float(rest[EMOTIONS.index(emotion)])
                assert found[f"{shown}_{words}_{emotion}"] == pytest.approx(expected, abs=1e-4)
    emotion = {"face": "joy", "voice": "excitement"}[other]
    assert found[f"happy_{other}_{emotion}"] > found[f"sad_{other}_{emotion}"] + 0.1


def test_words_beside_a_voice_that_add_the_same_leave_its_order_and_others_do_not(
    network: FusionNetwork, held: HeldOut
) -> None:
    found = beside_words(network, held, held.texts["written"][:1])
    assert found["arousal_n"] == 8
    assert found["arousal_alone_r"] > 0.7
    assert found["arousal_alone_kept"] == 1
    assert found["arousal_plain_r"] == pytest.approx(found["arousal_alone_r"], abs=1e-4)
    assert found["arousal_plain_kept"] == pytest.approx(1, abs=1e-4)
    assert found["arousal_comments_kept"] < 1
    assert found["arousal_comments_r"] == pytest.approx(
        found["arousal_comments_kept"] * found["arousal_alone_r"], abs=1e-4
    )
    for name in ("alone_r", "alone_auc", "comments_r", "comments_kept"):
        assert found[f"arousal_{name}_low"] <= found[f"arousal_{name}"] + 1e-4
        assert found[f"arousal_{name}"] <= found[f"arousal_{name}_high"] + 1e-4


def test_a_step_is_the_largest_of_the_six(network: FusionNetwork, held: HeldOut) -> None:
    rest = infer(network, FusionInputs.empty(SHAPES))[0]
    found = steps(network, held, rest, held.texts["written"][:1])
    assert (found["step_words_n"], found["step_plain_n"], found["step_face_n"]) == (2, 1, 3)
    assert found["step_words_max"] >= found["step_words"] > 0
    assert found["step_face_large"] == 0
    assert found["step_words_large"] in (0, 0.5, 1)
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
