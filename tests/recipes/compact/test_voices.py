"""Invented voices as the real prosody encoder hears them: pitch, tempo and tilt are what was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_models import EMOTIONS
from emi_models.encoders.prosody import ENERGY, F0, RHYTHM, VOICING, ProsodyEncoder
from recipes.compact.manners import LAUGH, PLAIN, VOICES
from recipes.compact.synthesiser import RATE_HZ, TRACK_HZ, Tracks, record, synthesise
from recipes.compact.utterances import Score, Speaker, Take, laugh, smooth, speak, wow
from recipes.compact.voices import make_voices, shown

MAN = Speaker(f0_hz=110.0, tract=1.0, breath=0.05, jitter=0.005, shimmer=0.03)
PLAIN_TAKE = Take(pitch_st=0.0, spread_st=2.0, rate_hz=4.0, pause=0.15, effort=0.0)


def steady(f0_hz: float = 120.0, seconds: float = 1.0, **changes: float) -> Tracks:
    """A vowel that is held."""
    count = round(seconds * TRACK_HZ)
    values = {"voice": 1.0, "breath": 0.0, "hiss": 0.0, "hiss_hz": 4000.0, "tilt_db": 0.0, **changes}
    tracks = {name: np.full(count, value) for name, value in values.items()}
    return Tracks(
        f0_hz=np.full(count, f0_hz),
        formants_hz=np.tile([700.0, 1200.0, 2500.0, 3500.0, 4500.0], (count, 1)),
        bandwidths_hz=np.tile([70.0, 90.0, 130.0, 220.0, 300.0], (count, 1)),
        **tracks,
    )


def sound(tracks: Tracks, seed: int = 0) -> NDArray[np.float32]:
    return synthesise(tracks, 0.005, 0.03, np.random.default_rng(seed))


def heard(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return ProsodyEncoder().push(samples)


def pitch_hz(frames: NDArray[np.float32]) -> float:
    return float(200 * 2 ** np.median(frames[frames[:, VOICING] > 0.5, F0]))


@pytest.mark.parametrize("f0_hz", [90.0, 150.0, 260.0, 400.0])
def test_the_encoder_hears_the_pitch_that_was_asked_for(f0_hz: float) -> None:
    frames = heard(sound(steady(f0_hz)))[3:-3]
    assert pitch_hz(frames) == pytest.approx(f0_hz, rel=0.03)
    assert (frames[:, VOICING] > 0.8).mean() > 0.9


def test_the_sound_is_as_long_as_its_tracks_and_repeatable() -> None:
    assert len(sound(steady(seconds=0.7))) == round(0.7 * RATE_HZ)
    assert np.array_equal(sound(steady(), 3), sound(steady(), 3))


def test_breath_and_hiss_have_no_pitch_and_silence_is_silent() -> None:
    for name in ("breath", "hiss"):
        frames = heard(sound(steady(voice=0.0, **{name: 0.5})))[3:-3]
        assert frames[:, VOICING].mean() < 0.5
    assert not sound(steady(voice=0.0)).any()


def test_effort_lifts_the_upper_bands() -> None:
    soft, loud = (heard(sound(steady(tilt_db=tilt)))[3:-3] for tilt in (-4.0, 4.0))

    def slope(frames: NDArray[np.float32]) -> float:
        return float(frames[:, 25:38].mean() - frames[:, 5:15].mean())

    assert slope(loud) > slope(soft) + 0.5


def test_a_formant_is_where_it_was_put() -> None:
    spectrum = np.abs(np.fft.rfft(sound(steady(100.0))))
    hz = np.fft.rfftfreq(RATE_HZ, 1 / RATE_HZ)

    def level(around_hz: float) -> float:
        return float(spectrum[np.abs(hz - around_hz) < 100].max())

    assert level(700) > 3 * level(950)
    assert level(2500) > 1.5 * level(1850)


def test_manners_sound_as_they_are_described() -> None:
    """Excited speech is higher, wider and faster than sorrow, in the features of the real encoder."""
    excited, sorry = (
        np.concatenate(
            [
                heard(synthesise(speak(3, MAN, Take.draw(manner, rng), rng), 0.005, 0.03, rng))
                for rng in map(np.random.default_rng, range(4))
            ]
        )
        for manner in (VOICES[0], VOICES[2])
    )
    assert pitch_hz(excited) > 1.3 * pitch_hz(sorry)

    def quiet(frames: NDArray[np.float32]) -> float:
        return float((frames[:, ENERGY] < frames[:, ENERGY].max() - 3).mean())

    assert quiet(sorry) > quiet(excited) + 0.1


def test_laughter_has_four_to_five_notes_a_second() -> None:
    rng = np.random.default_rng(2)
    take = Take.draw(LAUGH, rng)
    tracks = laugh(6.0, MAN, take, rng)
    loud = tracks.voice > 0.3
    starts = np.flatnonzero(np.diff(loud.astype(int)) > 0)
    between = np.diff(starts) / TRACK_HZ
    assert np.median(between) == pytest.approx(1 / take.rate_hz, abs=0.03)
    assert 1 / 5.5 < np.median(between) < 1 / 3.8


def test_laughter_has_a_rhythm_and_talking_has_less() -> None:
    rng = np.random.default_rng(3)
    laughs = heard(sound(laugh(4.0, MAN, Take.draw(LAUGH, rng), rng)))
    talks = heard(sound(speak(4.0, MAN, PLAIN_TAKE, rng)))
    assert laughs[50:, RHYTHM].mean() > talks[50:, RHYTHM].mean() + 0.15


def test_a_wow_ends_lower_than_it_began() -> None:
    rng = np.random.default_rng(0)
    tracks = wow(0.5, MAN, Take(2.0, 4.0, 1.5, 0.0, 0.0), rng)
    sounding = np.flatnonzero(tracks.voice > 0.3)
    tenth = len(sounding) // 10
    assert tracks.f0_hz[sounding[-tenth:]].mean() < 0.8 * tracks.f0_hz[sounding[:tenth]].mean()


def test_speech_keeps_to_its_take() -> None:
    rng = np.random.default_rng(1)
    tracks = speak(20.0, MAN, PLAIN_TAKE, rng)
    semitones = 12 * np.log2(tracks.f0_hz / MAN.f0_hz)
    assert semitones.std() == pytest.approx(PLAIN_TAKE.spread_st, rel=0.05)
    assert semitones.mean() == pytest.approx(0.0, abs=0.2)


def test_halfway_between_two_takes() -> None:
    other = Take(pitch_st=4.0, spread_st=6.0, rate_hz=6.0, pause=0.05, effort=1.0)
    assert PLAIN_TAKE.towards(other, 0.0) == PLAIN_TAKE
    assert PLAIN_TAKE.towards(other, 1.0) == other
    assert PLAIN_TAKE.towards(other, 0.5).rate_hz == 5.0


def test_segments_are_joined_in_order() -> None:
    score = Score()
    vowel = np.array([700.0, 1200.0, 2500.0])
    assert score.add(0.1, vowel, voice=1.0) == 20
    score.add(0.05, vowel)
    tracks = score.tracks(np.zeros(score.length), MAN, PLAIN_TAKE, np.random.default_rng(0))
    assert tracks.voice[5] == 1.0
    assert tracks.voice[-1] == 0.0
    assert np.array_equal(smooth(np.ones(9), 3), np.ones(9))


def test_a_recording_is_in_range_and_of_any_level() -> None:
    voice = sound(steady(seconds=2.0))
    levels = []
    for seed in range(12):
        recorded = record(voice, np.random.default_rng(seed))
        assert recorded.shape == voice.shape
        assert np.abs(recorded).max() <= 1.0
        levels.append(20 * np.log10(recorded.std()))
    assert max(levels) - min(levels) > 10
    assert max(levels) < -5


def test_takes_are_repeatable_and_finite() -> None:
    one, same = (make_voices(6, 3, lambda _: None) for _ in range(2))
    assert one.values.shape == (6, 200, 73)
    assert np.array_equal(one.values, same.values)
    assert np.isfinite(one.values).all()
    assert one.sounds.shape == (6, 200, len(EMOTIONS))


def test_what_a_window_shows_grows_with_how_long_it_sounds() -> None:
    sounds = np.zeros((150, 6), np.float32)
    assert not shown(sounds).any()
    sounds[:20, 1] = 0.6
    assert shown(sounds)[1] == pytest.approx(0.3)  # 0.4 s, half of what is wanted
    sounds[:40, 1] = 0.6
    assert shown(sounds)[1] == pytest.approx(0.6)
    sounds[40:80, 5] = 0.4
    assert shown(sounds).tolist() == pytest.approx([0, 0.3, 0, 0, 0, 0.2])


def test_plain_speech_shows_nothing() -> None:
    assert not any(manner.shows for manner in PLAIN)
