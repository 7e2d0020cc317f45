from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emi_models.encoders.wav2vec import SpeechSpec, Wav2vecEncoder, frames_for
from emi_models.encoders.wav2vec_stream import Wav2vecFront
from tests.models.encoders.tiny_models import LAYERS, WIDTH, edit_json, tiny_speech

HOP = 1_600


def sound(samples: int) -> NDArray[np.float32]:
    """It swells by 100, so that figures of one part are not those of another."""
    noise = np.random.default_rng(0).normal(0.05, 0.1, samples)
    return (noise * np.geomspace(0.01, 1.0, samples)).astype(np.float32)


def whole_pass(encoder: Wav2vecEncoder, samples: NDArray[np.float32]) -> torch.Tensor:
    """Projected frames by the model's own layers, normalised as its own extractor would."""
    exact = samples.astype(np.float64)
    if encoder.normalises:
        exact = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-7)
    with torch.inference_mode():
        states = encoder.model.feature_extractor(torch.tensor(exact, dtype=torch.float32)[None])
        projected = encoder.model.feature_projection(states.transpose(1, 2))
    frames: torch.Tensor = projected[0] if isinstance(projected, tuple) else projected
    return frames[0]


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm"])
@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("normalised", [True, False])
def test_each_step_s_frames_are_those_of_a_whole_pass_over_the_sound_so_far(
    tmp_path: Path, kind: str, norm: str, bias: bool, normalised: bool
) -> None:
    folder, _, _ = tiny_speech(tmp_path, kind, feat_extract_norm=norm, conv_bias=bias)
    edit_json(folder / "preprocessor_config.json", do_normalize=normalised)
    encoder = Wav2vecEncoder(folder, SpeechSpec("tiny", kind, WIDTH, LAYERS, affect=True))
    front = Wav2vecFront(encoder, spans=100)
    samples = sound(6 * HOP + 80 + 700)
    for start in range(0, samples.size - 80, HOP):
        block = samples[start : start + HOP + 80]
        with torch.inference_mode():
            frames = front.step(block)
        assert len(frames) == frames_for(block.size)
        expected = whole_pass(encoder, samples[: start + block.size])[-len(frames) :]
        torch.testing.assert_close(frames, expected, atol=1e-4, rtol=0)
