from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emi_models.encoders.wav2vec import (
    AUDEERING,
    HUBERT_LARGE,
    SpeechSpec,
    Wav2vecEncoder,
    frame_ends_ns,
    frames_for,
    identify_speech,
)
from emi_models.errors import EmiError, ModelIntegrityError
from tests.models.encoders.tiny_models import LAYERS, SPEECH, WIDTH, edit_json, edit_weights, tiny_speech

Tiny = tuple[Path, Any, dict[str, torch.Tensor]]
BARE = SpeechSpec("tiny/bare", "wav2vec2", WIDTH, LAYERS)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny_speech(tmp_path_factory.mktemp("wav2vec2"))


@pytest.fixture(scope="module")
def encoder(tiny: Tiny) -> Wav2vecEncoder:
    return Wav2vecEncoder(tiny[0], SPEECH)


def sound(samples: int, seed: int = 0) -> NDArray[np.float32]:
    """Noise that swells, with an offset that normalising takes away."""
    noise = np.random.default_rng(seed).normal(0.05, 0.1, samples)
    return (noise * np.linspace(0.2, 1.0, samples)).astype(np.float32)


def hidden_states(model: Any, samples: NDArray[np.float32]) -> torch.Tensor:
    exact = torch.tensor(samples, dtype=torch.float64)
    taken = (exact - exact.mean()) / torch.sqrt(exact.var(correction=0) + 1e-7)
    with torch.inference_mode():
        states: torch.Tensor = model(taken.float()[None]).last_hidden_state[0]
    return states


@pytest.mark.parametrize(
    ("samples", "frames"),
    [(0, 0), (1, 0), (399, 0), (400, 1), (719, 1), (720, 2), (960, 2), (16_000, 49), (192_000, 599)],
)
def test_known_lengths(samples: int, frames: int) -> None:
    assert frames_for(samples) == frames


@given(st.integers(0, 2_000_000))
def test_frames_are_those_of_400_samples_every_320(samples: int) -> None:
    assert frames_for(samples) == max(0, (samples - 400) // 320 + 1)


@given(st.integers(400, 5_000))
@settings(max_examples=20, deadline=None)
def test_the_model_makes_as_many_frames_as_was_said(encoder: Wav2vecEncoder, samples: int) -> None:
    assert encoder.encode(sound(samples)).shape == (frames_for(samples), WIDTH + 3)


def test_a_frame_ends_25_ms_after_it_begins() -> None:
    assert frame_ends_ns(3).tolist() == [25_000_000, 45_000_000, 65_000_000]
    assert frame_ends_ns(599)[-1] == 11_985_000_000
    assert frame_ends_ns(0).shape == (0,)


@pytest.mark.parametrize("samples", [400, 960, 16_000, 40_123])
def test_states_then_arousal_dominance_valence(tiny: Tiny, encoder: Wav2vecEncoder, samples: int) -> None:
    _, model, head = tiny
    hidden = hidden_states(model, sound(samples))
    dense = torch.nn.functional.linear(hidden, head["classifier.dense.weight"], head["classifier.dense.bias"])
    affect = torch.nn.functional.linear(
        torch.tanh(dense), head["classifier.out_proj.weight"], head["classifier.out_proj.bias"]
    )
    features = encoder.encode(sound(samples))
    assert features.dtype == np.float32
    np.testing.assert_allclose(features[:, :WIDTH], hidden.numpy(), atol=2e-5)
    np.testing.assert_allclose(features[:, WIDTH:], affect.numpy(), atol=2e-5)
    assert encoder.dim == features.shape[1] == WIDTH + 3


def test_it_hears_as_the_model_s_own_feature_extractor(tiny: Tiny, encoder: Wav2vecEncoder) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    extractor = Wav2Vec2FeatureExtractor.from_pretrained(tiny[0])
    taken = extractor(sound(20_000), sampling_rate=16_000, return_tensors="pt").input_values
    with torch.inference_mode():
        hidden = tiny[1](taken).last_hidden_state[0].numpy()
    np.testing.assert_allclose(encoder.encode(sound(20_000))[:, :WIDTH], hidden, atol=1e-4)


def test_loudness_and_offset_do_not_matter_unless_the_model_says_so(
    encoder: Wav2vecEncoder, tmp_path: Path
) -> None:
    samples = sound(8_000)
    np.testing.assert_allclose(encoder.encode(samples), encoder.encode(0.5 * samples + 0.1), atol=1e-3)
    folder, model, _ = tiny_speech(tmp_path)
    edit_json(folder / "preprocessor_config.json", do_normalize=False)
    with torch.inference_mode():
        hidden = model(torch.tensor(samples)[None]).last_hidden_state[0].numpy()
    np.testing.assert_allclose(Wav2vecEncoder(folder, SPEECH).encode(samples)[:, :WIDTH], hidden, atol=2e-5)


@pytest.mark.parametrize("samples", [0, 1, 399])
def test_less_than_25_ms_gives_no_frame(encoder: Wav2vecEncoder, samples: int) -> None:
    assert encoder.encode(sound(samples)).shape == (0, WIDTH + 3)


def test_silence_is_finite(encoder: Wav2vecEncoder) -> None:
    assert np.isfinite(encoder.encode(np.zeros(16_000, np.float32))).all()


def test_long_sound_is_heard_in_pieces_of_12_s(encoder: Wav2vecEncoder) -> None:
    samples = sound(30 * 16_000 + 77)
    features = encoder.encode(samples)
    assert len(features) == frames_for(samples.size) == 1499
    first = encoder.encode(samples[:192_000])
    second = encoder.encode(samples[599 * 320 :][:192_000])
    last = encoder.encode(samples[(1499 - 599) * 320 :])
    assert len(first) == len(second) == len(last) == 599
    np.testing.assert_allclose(features[:599], first, atol=1e-6)
    np.testing.assert_allclose(features[599:1198], second, atol=1e-6)
    np.testing.assert_allclose(features[1198:], last[-301:], atol=1e-6)


def test_double_precision_is_taken_and_the_sound_left_alone(encoder: Wav2vecEncoder) -> None:
    samples = sound(5_000)
    before = samples.copy()
    samples.flags.writeable = False
    single = encoder.encode(samples)
    np.testing.assert_allclose(encoder.encode(samples.astype(np.float64)), single, atol=1e-6)
    np.testing.assert_array_equal(samples, before)
    assert encoder.encode(samples).tobytes() == single.tobytes()


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 800), np.float32), r"shape \(2, 800\)"),
        (np.zeros(800, np.int16), "int16"),
        (np.array([0.0] * 800 + [np.nan, np.inf], np.float32), "2 of 802"),
    ],
)
def test_sound_that_cannot_be_heard_is_refused(
    encoder: Wav2vecEncoder, samples: NDArray[Any], message: str
) -> None:
    with pytest.raises(EmiError, match=message):
        encoder.encode(samples)


def test_names_of_old_checkpoints_are_understood(tiny: Tiny, encoder: Wav2vecEncoder, tmp_path: Path) -> None:
    folder, _, _ = tiny_speech(tmp_path, old_names=True)
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="pt") as stored:
        assert "wav2vec2.encoder.pos_conv_embed.conv.weight_g" in stored.keys()  # noqa: SIM118 - no mapping
    np.testing.assert_array_equal(
        Wav2vecEncoder(folder, SPEECH).encode(sound(5_000)), encoder.encode(sound(5_000))
    )


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm"])
def test_a_model_without_the_head_gives_its_states_alone(tmp_path: Path, kind: str) -> None:
    folder, model, _ = tiny_speech(tmp_path, kind, head=False)
    encoder = Wav2vecEncoder(folder, SpeechSpec("tiny/bare", kind, WIDTH, LAYERS))
    features = encoder.encode(sound(6_000))
    assert encoder.dim == features.shape[1] == WIDTH
    np.testing.assert_allclose(features, hidden_states(model, sound(6_000)).numpy(), atol=2e-5)


def test_sound_is_heard_alike_by_models_that_normalise_within(tmp_path: Path) -> None:
    """Group normalisation, as in wav2vec 2.0 base, would see padding; there is none."""
    folder, model, _ = tiny_speech(tmp_path, feat_extract_norm="group", do_stable_layer_norm=False)
    features = Wav2vecEncoder(folder, SPEECH).encode(sound(960))
    np.testing.assert_allclose(features[:, :WIDTH], hidden_states(model, sound(960)).numpy(), atol=2e-5)


def test_the_head_is_not_left_out_silently(tmp_path: Path) -> None:
    folder, _, _ = tiny_speech(tmp_path, head=False)
    with pytest.raises(ModelIntegrityError, match="classifier"):
        Wav2vecEncoder(folder, SPEECH)
    assert Wav2vecEncoder(folder, BARE).dim == WIDTH


def test_a_head_of_another_shape_is_refused(tmp_path: Path) -> None:
    folder, _, _ = tiny_speech(tmp_path)
    edit_weights(folder, "classifier.out_proj.weight", torch.zeros(8, WIDTH))
    with pytest.raises(ModelIntegrityError, match="out_proj"):
        Wav2vecEncoder(folder, SPEECH)


def test_the_order_of_the_three_is_checked(tmp_path: Path) -> None:
    folder, _, _ = tiny_speech(tmp_path)
    edit_json(folder / "config.json", id2label={"0": "valence", "1": "arousal", "2": "dominance"})
    with pytest.raises(ModelIntegrityError, match="rates valence"):
        Wav2vecEncoder(folder, SPEECH)
    for unsaid in (
        {"2": "valence", "1": "dominance", "0": "Arousal"},
        {"0": "LABEL_0", "1": "LABEL_1"},
        None,
    ):
        edit_json(folder / "config.json", id2label=unsaid)
        assert Wav2vecEncoder(folder, SPEECH).dim == WIDTH + 3


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"conv_stride": [5, 2, 2, 2, 2, 2, 4]}, "50 frames"),
        ("config.json", {"add_adapter": True}, "50 frames"),
        ("preprocessor_config.json", {"sampling_rate": 8_000}, "for 8000 Hz, not 16000"),
    ],
)
def test_another_rate_is_refused(tmp_path: Path, file: str, changes: dict[str, Any], message: str) -> None:
    folder, _, _ = tiny_speech(tmp_path)
    edit_json(folder / file, **changes)
    with pytest.raises(ModelIntegrityError, match=message):
        Wav2vecEncoder(folder, SPEECH)


def test_hubert_does_not_pass_for_the_bundle_s_model(tmp_path: Path) -> None:
    folder, _, _ = tiny_speech(tmp_path, "hubert", head=False)
    with pytest.raises(ModelIntegrityError, match="hubert, 32"):
        Wav2vecEncoder(folder, AUDEERING)
    assert not HUBERT_LARGE.affect


@pytest.mark.parametrize(
    ("kind", "config", "pads"),
    [
        ("wav2vec2", {}, True),
        ("wavlm", {}, False),
        ("hubert", {}, True),
        ("hubert", {"conv_pos_batch_norm": True}, False),  # zeros are none behind it
        ("wav2vec2", {"feat_extract_norm": "group", "do_stable_layer_norm": False}, False),  # as base models
    ],
)
def test_runs_that_go_through_together_have_the_features_that_each_has_alone(
    tmp_path: Path, kind: str, config: dict[str, Any], pads: bool
) -> None:
    folder, *_ = tiny_speech(tmp_path, kind, **config)
    encoder = Wav2vecEncoder(folder, identify_speech(folder))
    noise = np.random.default_rng(0)
    lengths = (20_000, 399, 8_000, 13 * 16_000, 20_000, 12_345)  # of no frame and of two pieces, too
    runs = [(0.1 * noise.standard_normal(length)).astype(np.float32) for length in lengths]
    batches: list[int] = []
    forward = encoder.model.forward

    def counted(samples: torch.Tensor, **more: Any) -> Any:
        batches.append(len(samples))
        return forward(samples, **more)

    encoder.model.forward = counted
    together = encoder.encode_together(runs)
    assert sorted(batches) == ([6] if pads else [1, 1, 2, 2])
    for run, found in zip(runs, together, strict=True):
        alone = encoder.encode(run)
        assert found.shape == alone.shape
        assert np.abs(found - alone).max(initial=0.0) <= 1e-5 * np.abs(alone).max(initial=0.0)
