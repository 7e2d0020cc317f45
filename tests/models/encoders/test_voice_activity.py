from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emi_models.encoders.voice_activity import CHUNK_SAMPLES, VoiceGate
from emi_models.errors import ModelUnavailableError
from tests.models.encoders.media import cut, read_sound


@pytest.fixture(scope="module")
def gate() -> VoiceGate:
    return VoiceGate()


@pytest.mark.parametrize("clip", ["jfk.flac", "silero_test_16k.wav"])
def test_it_agrees_with_faster_whisper(gate: VoiceGate, assets: Path, clip: str) -> None:
    from faster_whisper.vad import get_vad_model

    samples = read_sound(assets / "speech" / clip)
    whole = samples[: samples.size // CHUNK_SAMPLES * CHUNK_SAMPLES]
    expected = get_vad_model()(np.pad(whole, (0, CHUNK_SAMPLES))).reshape(-1)[:-1]
    gate.reset()
    np.testing.assert_allclose(gate.push(whole), expected, atol=1e-5)


def test_it_hears_speech_and_not_silence(gate: VoiceGate, assets: Path) -> None:
    gate.reset()
    speech = gate.push(read_sound(assets / "speech" / "LJ001-0002.wav"))
    assert (speech > 0.5).mean() > 0.8
    gate.reset()
    assert gate.push(np.zeros(16_000, np.float32)).max() < 0.1


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_any_split_gives_the_same_bits(gate: VoiceGate, sizes: list[int]) -> None:
    samples = np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.1
    gate.reset()
    whole = gate.push(samples)
    gate.reset()
    parts = np.concatenate([gate.push(block) for block in cut(samples, sizes)])
    assert parts.tobytes() == whole.tobytes()
    assert parts.shape == (8000 // CHUNK_SAMPLES,)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="no voice model"):
        VoiceGate(tmp_path / "none.onnx")
