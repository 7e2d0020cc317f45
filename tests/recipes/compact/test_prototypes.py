"""The tables of displays: every name in them is known, and each emotion has a face that shows it."""

from __future__ import annotations

import numpy as np
import pytest

from emi_models import EMOTIONS
from emi_models.encoders.face import BLENDSHAPES, FACE_DIM
from recipes.compact.faces import LOOKS, VISEMES
from recipes.compact.manners import LAUGH, PLAIN, VOICES, WOW, Manner
from recipes.compact.prototypes import ACTIONS, FACES, FEATURES, FacePrototype, columns, displacement

MANNERS = (*PLAIN, *VOICES, LAUGH, WOW)


def test_the_columns_are_the_face_encoder_s() -> None:
    assert len(FEATURES) == len(set(FEATURES)) == FACE_DIM
    assert FEATURES[BLENDSHAPES:] == ("pitch", "yaw", "roll", "x", "y", "z")
    # Where the demo and MediaPipe have them.
    places = {"browInnerUp": 3, "eyeBlinkLeft": 9, "jawOpen": 25, "mouthSmileLeft": 44, "noseSneerRight": 51}
    assert {name: FEATURES.index(name) for name in places} == places


def test_a_name_without_its_side_is_both_sides() -> None:
    assert columns("mouthSmile") == [44, 45]
    assert columns("jawOpen") == [25]
    moved = displacement({"mouthSmile": 0.5, "jawOpen": 0.25})
    assert np.flatnonzero(moved).tolist() == [25, 44, 45]
    with pytest.raises(ValueError, match="not in tuple"):
        columns("mouthGrin")


@pytest.mark.parametrize("prototype", FACES, ids=lambda prototype: prototype.name)
def test_a_face_is_made_of_known_actions(prototype: FacePrototype) -> None:
    assert set(prototype.always) | set(prototype.sometimes) <= set(ACTIONS)
    assert all(0 < chance <= 1 for chance in prototype.sometimes.values())
    assert set(prototype.shows) <= set(EMOTIONS)
    assert all(0 < intensity < 1 for intensity in prototype.shows.values())
    assert prototype.source


@pytest.mark.parametrize("manner", MANNERS, ids=lambda manner: manner.name)
def test_a_voice_has_ranges_that_can_be_drawn_from(manner: Manner) -> None:
    for low, high in (manner.pitch_st, manner.spread_st, manner.rate_hz, manner.pause, manner.effort):
        assert low < high
    assert manner.pause[0] >= 0
    assert manner.pause[1] < 1
    assert set(manner.shows) <= set(EMOTIONS)
    assert manner.source


def test_every_emotion_has_a_face_and_determination_has_no_voice() -> None:
    assert {emotion for prototype in FACES for emotion in prototype.shows} == set(EMOTIONS)
    assert {e for manner in MANNERS for e in manner.shows} == set(EMOTIONS) - {"determination"}
    assert not any(manner.shows for manner in PLAIN)
    assert sum(prototype.weight for prototype in FACES if not prototype.shows) > 3  # what is not to be taken


def test_mouth_shapes_and_looks_move_known_blendshapes() -> None:
    for parts in VISEMES.values():
        assert displacement(parts).max(initial=0.0) < 1
    for names in LOOKS.values():
        assert all(columns(name) for name in names)
