"""A speaker's files are one session with one neutral, and calibration starts with those at rest."""

from __future__ import annotations

import numpy as np
import pytest

from emi_bench.truth.features import Features, relative_to_own_neutral
from emi_bench.truth.ratings import RatedItem
from emi_models.data.clip import Clip, FeatureTrack
from emi_models.encoders import COMPACT_ENCODERS
from emi_models.population import VOICE_AT_REST

F0, VOICING = 64, 65


def clip(octave: float) -> Clip:
    """Six seconds of a voice that is this much higher than others."""
    values = np.tile(VOICE_AT_REST, (300, 1))
    values[:, F0] += octave
    values[:, VOICING] = 0.9
    sound = FeatureTrack(np.arange(1, 301) * 20_000_000, values)
    return Clip("a", FeatureTrack.empty(58), sound, FeatureTrack.empty(384), 6 * 10**9)


def item(speaker: str, emotion: str) -> RatedItem:
    return RatedItem("x", None, "", speaker, {}, {"emotion": emotion})


def test_each_speaker_has_one_neutral_and_it_is_taken_from_files_at_rest() -> None:
    items = [item("a", "anger"), item("a", "neutral"), item("b", "neutral"), item("", "anger")]
    clips = {0: clip(0.9), 1: clip(0.4), 2: clip(0.0), 3: clip(0.9)}
    found = relative_to_own_neutral(Features(clips, {}), items, COMPACT_ENCODERS, "calibrate")  # type: ignore[arg-type]  # keys are modalities
    pitch = {place: each.audio.values[-1, F0] - VOICE_AT_REST[F0] for place, each in found.clips.items()}
    assert list(pitch) == [0, 1, 2, 3]
    assert pitch[0] == pytest.approx(0.5, abs=0.01)  # anger, above the neutral of `a`
    assert pitch[1] == pytest.approx(0.0, abs=0.01)
    assert pitch[2] == pytest.approx(0.0, abs=0.01)
    assert pitch[3] == pytest.approx(0.0, abs=0.01)  # nobody named: a session of its own
