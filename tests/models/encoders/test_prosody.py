from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchaudio.functional import melscale_fbanks

from emi_models.encoders import COMPACT_ENCODERS
from emi_models.encoders.prosody import (
    CHANGE,
    ENCODER_ID,
    ENERGY,
    ENERGY_CHANGE,
    F0,
    F0_SQUARED,
    FLUX,
    FRAME_SAMPLES,
    HOP_SAMPLES,
    MEL_BANDS,
    MEL_DEVIATION,
    MEL_MEAN,
    POWER_FLOOR,
    PROSODY_DIM,
    RHYTHM,
    SOUND_RHYTHM,
    VOICING,
    ProsodyEncoder,
    mel_bank,
)
from tests.models.encoders.media import RATE_HZ, cut, read_sound

SETTLED = 2  # the first frames look back on sound that was never there


@pytest.fixture(scope="module")
def shared() -> ProsodyEncoder:
    return ProsodyEncoder()


@pytest.fixture
def encoder(shared: ProsodyEncoder) -> ProsodyEncoder:
    shared.reset()
    return shared


def voice(f0_hz: float | NDArray[np.float64], seconds: float = 0.5) -> NDArray[np.float32]:
    """A sound of ten harmonics, in a little noise."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(f0_hz, round(seconds * RATE_HZ))) / RATE_HZ
    tone = sum(0.2 / k * np.sin(k * phase + k * k) for k in range(1, 11))
    noise = np.random.default_rng(0).standard_normal(phase.size)
    return np.asarray(tone + 0.002 * noise, np.float32)


@pytest.mark.assets
def test_its_features_are_those_of_torchaudio_s_mel_bands(
    assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packaged checkpoint was trained on these."""
    bank = melscale_fbanks(513, 60.0, 7600.0, MEL_BANDS, RATE_HZ, norm=None, mel_scale="htk").numpy().T
    assert np.abs(mel_bank() - bank).max() <= 1e-5
    sounds = [read_sound(assets / "speech/jfk.flac"), voice(180), voice(np.linspace(80, 400, 8000))]
    own = [ProsodyEncoder().push(sound) for sound in sounds]
    monkeypatch.setattr("emi_models.encoders.prosody.mel_bank", lambda: bank)
    for sound, features in zip(sounds, own, strict=True):
        assert np.abs(ProsodyEncoder().push(sound) - features).max() <= 1e-5


def test_its_id_is_the_one_that_checkpoints_name() -> None:
    assert COMPACT_ENCODERS["audio"] == ENCODER_ID


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 0), (399, 0), (400, 1), (719, 1), (720, 2), (16_000, 49)]
)
def test_frame_k_covers_400_samples_from_320_k(encoder: ProsodyEncoder, samples: int, frames: int) -> None:
    assert encoder.push(np.zeros(samples, np.float32)).shape == (frames, PROSODY_DIM)


@given(sizes=st.lists(st.integers(1, 2500), min_size=1, max_size=8), seed=st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_any_split_gives_the_same_bits(shared: ProsodyEncoder, sizes: list[int], seed: int) -> None:
    noise = np.random.default_rng(seed).standard_normal(6000).astype(np.float32)
    samples = voice(180, 6000 / RATE_HZ) + 0.05 * noise
    shared.reset()
    whole = shared.push(samples)
    shared.reset()
    parts = np.concatenate([shared.push(block) for block in cut(samples, sizes)])
    assert parts.tobytes() == whole.tobytes()


def test_a_frame_depends_on_the_past_alone(encoder: ProsodyEncoder) -> None:
    sound = voice(150)
    known = encoder.push(sound)
    encoder.reset()
    changed = sound.copy()
    changed[10 * HOP_SAMPLES + FRAME_SAMPLES :] = 0.0
    other = encoder.push(changed)
    assert known[:11].tobytes() == other[:11].tobytes()
    assert not np.array_equal(known[11], other[11])


def test_the_bands_are_those_of_torchaudio(encoder: ProsodyEncoder) -> None:
    from torchaudio.transforms import MelSpectrogram

    sound = voice(220)
    transform = MelSpectrogram(
        RATE_HZ, n_fft=1024, win_length=400, hop_length=320, f_min=60.0, f_max=7600.0, n_mels=64, center=False
    )
    centred = torch.nn.functional.pad(
        torch.from_numpy(sound), (312, 312)
    )  # torch centres the window in the FFT
    power = transform(centred).T.numpy() / float(torch.hann_window(400).square().sum())
    frames = encoder.push(sound)
    expected = (np.log(power + POWER_FLOOR) - MEL_MEAN) / MEL_DEVIATION
    np.testing.assert_allclose(frames[:, :MEL_BANDS], expected[: len(frames)], atol=2e-3)


@pytest.mark.parametrize("f0_hz", [70.0, 85.0, 110.0, 160.0, 220.0, 330.0, 470.0])
def test_f0_of_a_steady_voice(encoder: ProsodyEncoder, f0_hz: float) -> None:
    frames = encoder.push(voice(f0_hz))[SETTLED:]
    assert frames[:, VOICING].min() > 0.9
    cents = 1200 * (frames[:, F0] - np.log2(f0_hz / 200))
    assert np.abs(cents).max() < 10


def test_f0_follows_a_glide(encoder: ProsodyEncoder) -> None:
    glide = np.geomspace(100, 300, RATE_HZ)
    frames = encoder.push(voice(glide, 1.0))[SETTLED:]
    # What a frame measures lies up to 50 ms back.
    middle = (np.arange(SETTLED, SETTLED + len(frames)) * HOP_SAMPLES + FRAME_SAMPLES - 400).clip(0)
    cents = 1200 * (frames[:, F0] - np.log2(glide[middle] / 200))
    assert np.abs(cents).max() < 60


def test_noise_and_silence_are_unvoiced(encoder: ProsodyEncoder) -> None:
    noise = np.random.default_rng(0).standard_normal(RATE_HZ).astype(np.float32)
    for sound in (0.1 * noise, 1e-4 * noise, np.zeros(RATE_HZ, np.float32), np.ones(RATE_HZ, np.float32)):
        encoder.reset()
        frames = encoder.push(sound.astype(np.float32))[SETTLED:]
        assert np.isfinite(frames).all()
        assert frames[:, VOICING].max() < 0.5
        assert not frames[:, F0].any()


def test_mains_hum_is_not_a_voice(encoder: ProsodyEncoder) -> None:
    hum = np.sin(2 * np.pi * 50 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32) * 0.01
    assert not encoder.push(hum)[SETTLED:, F0].any()


def test_energy_is_in_tens_of_decibels(encoder: ProsodyEncoder) -> None:
    loud = encoder.push(voice(200))[5, ENERGY]
    encoder.reset()
    quiet = encoder.push(voice(200) * np.float32(0.1))[5, ENERGY]
    assert loud - quiet == pytest.approx(2.0, abs=1e-3)


def test_flux_marks_an_onset(encoder: ProsodyEncoder) -> None:
    quiet = np.random.default_rng(0).standard_normal(RATE_HZ // 2).astype(np.float32) * 1e-3
    frames = encoder.push(np.concatenate((quiet, voice(150))))
    assert abs(int(frames[SETTLED:, FLUX].argmax()) + SETTLED - quiet.size // HOP_SAMPLES) <= 1


@pytest.mark.parametrize(
    ("clip", "low_hz", "high_hz"),
    [
        ("jfk.flac", 200, 300),  # an address shouted to a crowd: its harmonics at 2.3 s are 312 Hz apart
        ("LJ001-0004.wav", 180, 270),
        ("librivox_sense_0880.wav", 70, 110),
    ],
)
def test_speakers_sound_as_they_are(
    encoder: ProsodyEncoder, assets: Path, clip: str, low_hz: float, high_hz: float
) -> None:
    frames = encoder.push(read_sound(assets / "speech" / clip))
    voiced = frames[frames[:, VOICING] > 0.8]
    assert low_hz < 200 * 2 ** np.median(voiced[:, F0]) < high_hz


def test_speech_is_about_standard(encoder: ProsodyEncoder, assets: Path) -> None:
    frames = encoder.push(read_sound(assets / "speech" / "LJ001-0006.wav"))
    speech = frames[frames[:, ENERGY] > -1.0]
    assert abs(speech[:, :MEL_BANDS].mean()) < 0.5
    assert 0.6 < speech[:, :MEL_BANDS].std() < 1.4
    assert np.abs(frames).max() < 8


def test_notes_of_laughter_are_a_rhythm_and_a_steady_voice_is_none(encoder: ProsodyEncoder) -> None:
    """Five notes of 100 ms a second, at any gain."""
    sounding = np.arange(2 * RATE_HZ) % (RATE_HZ // 5) < RATE_HZ // 10
    sound = voice(250, 2.0) * sounding + 0.001
    found = []
    for gain in (1.0, 0.3):
        encoder.reset()
        found.append(encoder.push((gain * sound).astype(np.float32))[50:])
    assert found[0][:, RHYTHM].mean() > 0.8
    assert found[0][:, SOUND_RHYTHM].mean() > 0.8
    assert np.abs(found[0] - found[1])[:, [RHYTHM, SOUND_RHYTHM]].mean() < 0.05
    encoder.reset()
    steady = encoder.push(voice(250, 2.0))[50:]
    assert steady[:, RHYTHM].max() < 0.1
    assert steady[:, CHANGE].mean() < 0.3 * found[0][:, CHANGE].mean()


def test_change_and_spread_are_what_they_say(encoder: ProsodyEncoder) -> None:
    frames = encoder.push(voice(np.geomspace(100, 300, RATE_HZ), 1.0))
    np.testing.assert_allclose(frames[:, F0_SQUARED], 2 * frames[:, F0] ** 2, rtol=1e-5)
    np.testing.assert_allclose(frames[1:, ENERGY_CHANGE], 2 * np.abs(np.diff(frames[:, ENERGY])), atol=1e-5)
    shape = frames[:, :MEL_BANDS] - frames[:, :MEL_BANDS].mean(axis=1, keepdims=True)
    expected = 2 * np.abs(shape[5:] - shape[:-5]).mean(axis=1)
    np.testing.assert_allclose(frames[5:, CHANGE], expected, atol=1e-5)
    assert not frames[:5, CHANGE].any()
    assert not frames[0, ENERGY_CHANGE]
