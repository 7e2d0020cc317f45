from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emi_models.encoders.wav2vec import SpeechSpec, Wav2vecEncoder, frames_for
from emi_models.encoders.wav2vec_stream import SlidingWav2vec, Strategy, StreamingWav2vec
from emi_models.errors import EmiError
from emi_models.inputs import InputError
from tests.models.encoders.tiny_models import LAYERS, WIDTH, edit_json, tiny_speech

Sound = NDArray[np.float32]
Make = Callable[..., Wav2vecEncoder]

HOP = 1_600  # samples of 0.1 s, 5 frames
DIM = WIDTH + 3
KINDS = pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm"])
STRATEGIES = pytest.mark.parametrize("strategy", ["cached", "recompute"])


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Tiny encoders, each loaded once."""
    loaded: dict[Any, Wav2vecEncoder] = {}

    def encoder(kind: str = "wav2vec2", *, normalised: bool = True, **config: Any) -> Wav2vecEncoder:
        key = (kind, normalised, *config.items())
        if key not in loaded:
            folder, _, _ = tiny_speech(tmp_path_factory.mktemp(kind), kind, **config)
            edit_json(folder / "preprocessor_config.json", do_normalize=normalised)
            spec = SpeechSpec("tiny/speech", kind, WIDTH, LAYERS, affect=True)
            loaded[key] = Wav2vecEncoder(folder, spec)
        return loaded[key]

    return encoder


def stream(
    encoder: Wav2vecEncoder,
    strategy: Strategy = "cached",
    *,
    left: float | None = 0.4,
    hold: float = 0.06,
    hop: float = HOP / 16_000,
) -> StreamingWav2vec:
    return StreamingWav2vec(encoder, hop_s=hop, left_context_s=left, hold_back_s=hold, strategy=strategy)


def sound(samples: int, seed: int = 0, swell: bool = True) -> Sound:
    """Noise, with an offset that normalising takes away."""
    noise = np.random.default_rng(seed).normal(0.05, 0.1, samples)
    return (noise * np.linspace(0.2, 1.0, samples) if swell else noise).astype(np.float32)


def hear(streaming: StreamingWav2vec, samples: Sound, cuts: list[int] | None = None) -> NDArray[np.float32]:
    """All that is found of the sound, pushed in pieces cut at `cuts`."""
    parts = np.split(samples, sorted(cuts or []))
    return np.concatenate([*(streaming.push(part) for part in parts), streaming.flush()])


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    a, b = one.astype(np.float64), other.astype(np.float64)
    found: NDArray[np.float64] = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return found


@KINDS
@STRATEGIES
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(0, 9_000), cuts=st.lists(st.integers(0, 9_000), max_size=8))
def test_any_way_to_cut_the_stream_gives_the_same_features(
    make: Make, kind: str, strategy: Strategy, length: int, cuts: list[int]
) -> None:
    streaming = stream(make(kind), strategy)
    samples = sound(length)
    whole = hear(streaming, samples)
    assert whole.shape == (frames_for(length), DIM)
    assert whole.dtype == np.float32
    assert hear(streaming, samples, cuts).tobytes() == whole.tobytes()


@KINDS
def test_sample_by_sample_is_as_good_as_at_once(make: Make, kind: str) -> None:
    streaming = stream(make(kind))
    samples = sound(2_500)
    one_by_one = [streaming.push(samples[k : k + 1]) for k in range(samples.size)]
    found = np.concatenate([*one_by_one, streaming.flush()])
    assert found.tobytes() == hear(streaming, samples).tobytes()
    assert [k for k, part in enumerate(one_by_one) if part.size] == [HOP + 80 - 1]  # one step, on the grid


@KINDS
@STRATEGIES
@pytest.mark.parametrize("normalised", [True, False])
def test_what_fits_in_one_step_is_a_whole_pass(
    make: Make, kind: str, strategy: Strategy, normalised: bool
) -> None:
    encoder = make(kind, normalised=normalised)
    streaming = stream(encoder, strategy)
    for samples in (sound(1_500), sound(HOP + 80)):
        np.testing.assert_allclose(hear(streaming, samples), encoder.encode(samples), atol=3e-5)


@KINDS
@pytest.mark.parametrize("left", [None, math.inf])
@pytest.mark.parametrize("stable", [True, False], ids=["norm first", "norm last"])
def test_with_all_context_each_step_is_a_whole_pass_over_the_sound_so_far(
    make: Make, kind: str, left: float | None, stable: bool
) -> None:
    """Where nothing is averaged over a clip, cached convolutions lose nothing."""
    encoder = make(kind, normalised=False, do_stable_layer_norm=stable)
    streaming = stream(encoder, "recompute", left=left, hold=0.0)
    samples = sound(10 * HOP + 80)
    heard = 0
    for end in range(HOP + 80, samples.size + 1, HOP):
        found = streaming.push(samples[heard:end])
        np.testing.assert_allclose(found, encoder.encode(samples[:end])[-5:], atol=1e-4)
        heard = end
    assert streaming.flush().shape == (0, DIM)


def test_normalised_by_the_same_figures_it_is_exact_too(make: Make) -> None:
    """Sound whose every 80 samples have the same mean and variance has them at every step."""
    encoder = make()
    generator = np.random.default_rng(3)
    values = sound(80)
    samples = np.concatenate([generator.permutation(values) for _ in range(10 * HOP // 80 + 1)])
    streaming = stream(encoder, "recompute", left=None, hold=0.0)
    heard = 0
    for end in range(HOP + 80, samples.size + 1, HOP):
        found = streaming.push(samples[heard:end])
        np.testing.assert_allclose(found, encoder.encode(samples[:end])[-5:], atol=1e-4)
        heard = end


@STRATEGIES
def test_on_steady_sound_features_are_nearly_those_of_a_whole_pass(make: Make, strategy: Strategy) -> None:
    encoder = make(normalised=False)
    samples = sound(64_000, swell=False)
    whole = encoder.encode(samples)
    long = cosine(hear(stream(encoder, strategy, left=2.0, hold=0.2), samples), whole)
    short = cosine(hear(stream(encoder, strategy, left=0.1, hold=0.0), samples), whole)
    assert long.mean() > 0.99
    assert long.mean() > short.mean() + 0.005  # context and waiting are worth something


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert"])
def test_group_normalisation_is_exact_at_first_then_by_the_stream_s_own_figures(
    make: Make, kind: str
) -> None:
    encoder = make(kind, normalised=False, feat_extract_norm="group", do_stable_layer_norm=False)
    steady, samples = sound(64_000, swell=False), sound(64_000)
    first = hear(stream(encoder), steady[: HOP + 80])
    np.testing.assert_allclose(first, encoder.encode(steady[: HOP + 80]), atol=5e-5)
    still = stream(encoder, "recompute", left=None, hold=0.2)
    settled = cosine(hear(still, steady), encoder.encode(steady))[50:]
    assert settled.mean() > 0.98  # figures of a second and more are those of the clip, if it is steady
    swelling = cosine(hear(still, samples), encoder.encode(samples))[50:]
    assert swelling.mean() < settled.mean() - 0.01  # and are not, where the sound changes: an approximation


def test_what_is_12_s_back_leaves_nothing_behind(make: Make) -> None:
    """Silence or noise then: convolutions, level and context are those of a stream that began later."""
    encoder = make(feat_extract_norm="group", do_stable_layer_norm=False)
    streaming = stream(encoder, "recompute", hop=0.5)
    before, speech = np.zeros(48_000, np.float32), sound(16_000 * 16, seed=5)
    found = hear(streaming, np.concatenate((before, speech)))
    fresh = hear(streaming, speech)
    np.testing.assert_allclose(found[150 + 625 :], fresh[625:], atol=1e-4)
    assert np.isfinite(found).all()
    assert not np.allclose(found[150:300], fresh[:150], atol=1e-2)  # it did depend on the silence


@STRATEGIES
@pytest.mark.parametrize("norm", ["layer", "group"])
def test_silence_then_speech_stays_within_the_bounds_of_speech_alone(
    make: Make, strategy: Strategy, norm: str
) -> None:
    encoder = make(feat_extract_norm=norm)
    hiss = sound(160_000, seed=7, swell=False) * np.float32(1e-4)
    speech = sound(32_000, seed=8, swell=False)
    for quiet in (np.zeros(160_000, np.float32), hiss):
        found = hear(stream(encoder, strategy, hop=0.5), np.concatenate((quiet, speech)))
        assert np.isfinite(found).all()
        bound = 2 * np.abs(encoder.encode(speech)).max()
        assert np.abs(found[500:]).max() < bound


def test_flush_gives_what_was_held_back_and_ends_the_stream(make: Make) -> None:
    streaming = stream(make())
    samples = sound(3 * HOP + 80)
    assert [len(streaming.push(part)) for part in np.split(samples, [HOP + 80, 2 * HOP + 80])] == [2, 5, 5]
    assert len(streaming.flush()) == 3  # 60 ms
    assert streaming.flush().shape == (0, DIM)
    after_flush = hear(streaming, samples)
    streaming.push(sound(5_000, seed=9))
    streaming.reset()
    assert hear(streaming, samples).tobytes() == after_flush.tobytes()


@STRATEGIES
def test_what_is_held_back_may_be_longer_than_a_hop(make: Make, strategy: Strategy) -> None:
    encoder = make(normalised=False)
    streaming = stream(encoder, strategy, hold=0.26)
    samples = sound(4 * HOP + 80)
    counts = [len(streaming.push(part)) for part in np.split(samples, range(HOP + 80, samples.size, HOP))]
    assert counts == [0, 0, 2, 5]
    assert len(streaming.flush()) == 13
    early = hear(streaming, samples[: 2 * HOP + 80])  # nothing was final before the end
    np.testing.assert_allclose(early, encoder.encode(samples[: 2 * HOP + 80]), atol=1e-4)


def test_it_shares_the_weights_and_goes_by_the_same_name(make: Make) -> None:
    encoder = make()
    for streaming in (stream(encoder), SlidingWav2vec(encoder)):
        assert (streaming.encoder_id, streaming.dim) == (encoder.encoder_id, DIM)
    before = {parameter.data_ptr() for parameter in encoder.model.parameters()}
    hear(stream(encoder), sound(5_000))
    assert {parameter.data_ptr() for parameter in encoder.model.parameters()} == before


def test_the_caller_owns_what_it_gets_and_keeps_what_it_gave(make: Make) -> None:
    streaming = stream(make())
    samples = sound(3 * HOP)
    samples.flags.writeable = False
    expected = hear(streaming, samples)
    first = streaming.push(samples)
    first[:] = math.nan
    np.testing.assert_array_equal(streaming.flush(), expected[len(first) :])
    assert hear(streaming, samples.astype(np.float64)).tobytes() == expected.tobytes()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("way", [stream, lambda encoder: SlidingWav2vec(encoder, hop_s=0.1)])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((2, 800), np.float32), r"shape \(2, 800\)"),
        (np.zeros(800, np.int16), "int16"),
        (np.full(800, np.nan, np.float32), "800 of 800"),
    ],
)
def test_sound_that_cannot_be_heard_is_refused_and_forgotten(
    make: Make, way: Callable[[Wav2vecEncoder], Any], bad: NDArray[Any], message: str
) -> None:
    streaming = way(make())
    streaming.push(sound(1_000))
    with pytest.raises(EmiError, match=message):
        streaming.push(bad)
    streaming.push(sound(2_000)[1_000:])
    one = streaming.flush()
    streaming.push(np.concatenate((sound(1_000), sound(2_000)[1_000:])))
    other = streaming.flush()
    np.testing.assert_array_equal(getattr(one, "values", one), getattr(other, "values", other))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hop_s": 0.25}, r"hop_s is 0\.25"),
        ({"hop_s": 0.0}, "hop_s is 0"),
        ({"hop_s": math.nan}, "hop_s is nan"),
        ({"left_context_s": -0.2}, r"left_context_s is -0\.2"),
        ({"hold_back_s": 0.03}, r"hold_back_s is 0\.03"),
        ({"left_context_s": None}, "without end"),
        ({"strategy": "guess"}, "strategy is 'guess'"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Make, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StreamingWav2vec(make(), **options)
