"""A neutral of one's own: learned from the right frames, taken off the right way, and causal."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_models.baseline import LEARNED_S, Baseline, baselines_for, normalised_clip
from emi_models.data.clip import Clip, FeatureTrack
from emi_models.encoders import COMPACT_ENCODERS, TAEMI_ENCODERS
from emi_models.encoders.face import BLENDSHAPES, FACE_DIM, FACE_FEATURES
from emi_models.encoders.prosody import F0, F0_SQUARED, PROSODY_DIM, RHYTHM, VOICING
from emi_models.errors import DataError
from emi_models.population import FACE_AT_REST, FACE_HIGH, FACE_LOW, VOICE_AT_REST

BROW, SMILE, YAW = (FACE_FEATURES.index(name) for name in ("browInnerUp", "mouthSmileLeft", "yaw"))
FRAME_NS = 40_000_000


def faces(seconds: float, **changes: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Frames of an average neutral face, with some features set."""
    values = np.zeros((round(seconds * 25), FACE_DIM), np.float32)
    values[:, :BLENDSHAPES] = FACE_AT_REST
    for name, value in changes.items():
        values[:, FACE_FEATURES.index(name)] = value
    return np.arange(1, len(values) + 1) * FRAME_NS, values


def voices(
    seconds: float, octave: float, voicing: float = 0.9
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Frames of an average voice, this many octaves higher; every other frame has no pitch."""
    values = np.tile(VOICE_AT_REST, (round(seconds * 50), 1))
    values[:, F0] += octave
    values[:, VOICING] = voicing
    values[::2, [F0, VOICING]] = 0
    return np.arange(1, len(values) + 1) * 20_000_000, values


def test_a_raised_brow_at_rest_becomes_the_usual_one_within_seconds() -> None:
    times, values = faces(20, browInnerUp=0.5)
    seen = Baseline("vision", "running").push(times, values)
    usual = FACE_AT_REST[BROW]
    away = np.abs(seen[:, BROW] - usual) / (0.5 - usual)
    assert away[2] > 0.9
    assert away[125] < 0.6  # after 5 s
    assert away[-1] < 0.35
    assert (np.diff(away) <= 1e-6).all()
    np.testing.assert_array_equal(np.delete(seen, BROW, axis=1), np.delete(values, BROW, axis=1))


def test_a_smile_stays_a_smile_however_long_it_lasts_and_a_calibrated_one_does_not() -> None:
    times, values = faces(60, mouthSmileLeft=0.8)
    assert Baseline("vision", "running").push(times, values)[-1, SMILE] > 0.75
    assert Baseline("vision", "calibrate").push(times, values)[-1, SMILE] < 0.01


def test_what_is_above_the_own_neutral_keeps_its_order_and_its_ends() -> None:
    times, rest = faces(10, browInnerUp=0.5)
    baseline = Baseline("vision", "calibrate")
    baseline.push(times, rest)
    shown = np.linspace(0, 1, 50, dtype=np.float32)
    values = np.repeat(rest[:1], 50, axis=0)
    values[:, BROW] = shown
    seen = baseline.push(times[-1] + np.arange(1, 51) * FRAME_NS, values)[:, BROW]
    assert (np.diff(seen) > 0).all()
    assert seen[[0, -1]] == pytest.approx([0, 1])


def test_calibration_changes_nothing_for_five_seconds_and_never_moves_again() -> None:
    baseline = Baseline("vision", "calibrate")
    times, rest = faces(6, browInnerUp=0.5)
    seen = baseline.push(times, rest)
    np.testing.assert_array_equal(seen[:120], rest[:120])
    assert baseline.learned(int(times[60])).seconds == pytest.approx(2.4, abs=0.2)
    assert not baseline.learned(int(times[60])).ready
    assert baseline.learned(int(times[-1])).ready
    later, raised = faces(30, browInnerUp=0.9)
    after = baseline.push(later + times[-1], raised)[:, BROW]
    assert np.ptp(after) == 0


def test_a_turned_face_and_a_sound_without_a_voice_do_not_count() -> None:
    turned = Baseline("vision", "running")
    times, values = faces(20, browInnerUp=0.5, yaw=0.5)
    np.testing.assert_array_equal(turned.push(times, values), values)
    assert turned.learned(int(times[-1])).seconds == 0
    unvoiced, silent = Baseline("audio", "running"), Baseline("audio", "running")
    times, values = voices(20, 0.5, voicing=0.3)
    np.testing.assert_array_equal(unvoiced.push(times, values), values)
    times, values = voices(20, 0.5)  # hums, but the gate hears nobody
    np.testing.assert_array_equal(silent.push(times, values, np.zeros(len(times), np.bool_)), values)


def test_a_high_voice_comes_down_and_frames_without_pitch_stay_without() -> None:
    times, values = voices(60, 0.6)
    seen = Baseline("audio", "running").push(times, values)
    assert abs(seen[-1, F0] - VOICE_AT_REST[F0]) < 0.1
    assert (seen[::2, F0] == 0).all()
    np.testing.assert_array_equal(seen[:, VOICING], values[:, VOICING])
    assert seen[3, F0] == pytest.approx(values[3, F0], abs=0.05)
    np.testing.assert_allclose(seen[500:, F0_SQUARED], 2 * seen[500:, F0] ** 2, rtol=1e-5)
    np.testing.assert_array_equal(seen[:, RHYTHM:F0_SQUARED], values[:, RHYTHM:F0_SQUARED])


def test_frames_one_by_one_and_all_at_once_are_the_same_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    times, values = faces(20)
    values[:, :BLENDSHAPES] = rng.random((len(values), BLENDSHAPES), np.float32)
    whole, pieces = Baseline("vision", "running"), Baseline("vision", "running")
    seen = np.concatenate([pieces.push(times[k : k + 1], values[k : k + 1]) for k in range(len(times))])
    np.testing.assert_array_equal(whole.push(times, values), seen)
    # Nothing is learned from later frames.
    np.testing.assert_array_equal(Baseline("vision", "running").push(times[:250], values[:250]), seen[:250])


def test_another_face_starts_again() -> None:
    baseline = Baseline("vision", "running")
    times, values = faces(20, browInnerUp=0.5)
    baseline.push(times, values)
    baseline.restart(int(times[-1]) + 1)
    assert baseline.learned(int(times[-1])).ready  # as it was then
    assert baseline.learned(int(times[-1]) + 1).seconds == 0
    again = baseline.push(times[:1] + times[-1], values[:1])
    assert again[0, BROW] > 0.45


def test_a_clip_goes_through_the_same_function_and_other_features_are_refused() -> None:
    times, values = faces(10, browInnerUp=0.5)
    clip = Clip(
        "a", FeatureTrack(times, values), FeatureTrack.empty(PROSODY_DIM), FeatureTrack.empty(384), 10**10
    )
    seen = normalised_clip(clip, baselines_for(COMPACT_ENCODERS, "running"))
    np.testing.assert_array_equal(seen.vision.values, Baseline("vision", "running").push(times, values))
    assert baselines_for(COMPACT_ENCODERS, "off") == {}
    with pytest.raises(DataError, match="compact"):
        baselines_for(TAEMI_ENCODERS, "running")
    with pytest.raises(DataError, match="calibrate"):
        baselines_for(COMPACT_ENCODERS, "on")  # type: ignore[arg-type]  # a user's word


def test_the_tables_are_of_neutral_faces() -> None:
    assert ((FACE_LOW <= FACE_AT_REST) & (FACE_AT_REST <= FACE_HIGH)).all()
    assert FACE_HIGH[SMILE] < 0.05
    assert len(VOICE_AT_REST) == PROSODY_DIM
    assert LEARNED_S == 5
