"""The stream form of TAEMI says what the plain network says, whatever comes, goes and is missing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emi_engine.incremental import SlidingTaemi, TaemiWeights
from emi_engine.protocol import LEFT_OUT
from emi_models.inputs import FrameRun, FusionShapes, InputError, StreamWindow
from tests.engine.incremental.streams import Person, network, whole

EXACT = 1e-5

VARIANTS: dict[str, dict[str, object]] = {
    "the paper's": {},
    "no tokens": {"missing": "zero"},
    "audio anchor": {"anchor": "audio"},
    "vision anchor": {"anchor": "vision"},
    "self-attention": {"attention": "self"},
    "concatenation": {"attention": "none"},
    "words alone": {"modalities": ("text",)},
    "no words": {"modalities": ("vision", "audio")},
    "one head": {"heads": 1},
}

Step = Callable[[Person], object]
counts = st.integers(0, 40)  # more than a window holds, too
steps = st.one_of(
    st.builds(lambda come, go: lambda person: person.audio.hop(come, go), counts, counts),
    st.builds(
        lambda come, go: lambda person: person.vision.hop(come, go), st.integers(0, 15), st.integers(0, 15)
    ),
    st.builds(lambda n: lambda person: person.audio.skip(n), counts),
    st.builds(lambda n: lambda person: person.vision.skip(n), counts),
    st.just(lambda person: person.speak()),
)
flags = st.tuples(st.booleans(), st.booleans(), st.booleans())


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(VARIANTS)), st.lists(st.tuples(st.lists(steps, max_size=3), flags), max_size=12)
)
def test_any_pattern_of_arrivals_drops_gaps_and_tokens(
    variant: str, hops: list[tuple[list[Step], tuple[bool, bool, bool]]]
) -> None:
    made = network(**VARIANTS[variant])  # type: ignore[arg-type]  # settings alone
    sliding, person = SlidingTaemi(TaemiWeights(made)), Person()
    for changes, present in hops:
        for change in changes:
            change(person)
        window = person.window(*present)
        assert np.abs(sliding.forward(window, LEFT_OUT) - whole(made, window)).max() <= EXACT


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_a_steady_stream(variant: str) -> None:
    made = network(**VARIANTS[variant])  # type: ignore[arg-type]  # settings alone
    sliding, person = SlidingTaemi(TaemiWeights(made)), Person()
    for _ in range(100):
        person.audio.hop(3, 0)
        person.vision.hop(1, 0)
        window = person.window()
        assert np.abs(sliding.forward(window, LEFT_OUT) - whole(made, window)).max() <= EXACT


@pytest.mark.slow
def test_ten_thousand_hops_do_not_drift() -> None:
    """Every hop moves the window, so every sum has had thousands of terms added and taken away by then."""
    made = network()
    sliding, person = SlidingTaemi(TaemiWeights(made)), Person()
    worst = 0.0
    for hop in range(10_000):
        person.audio.hop(1 + hop % 3, 0)
        person.vision.hop(hop % 2, 0)
        window = person.window(text=hop % 7 > 0)
        answer = sliding.forward(window)
        if hop % 100 == 0 or hop > 9_900:
            worst = max(worst, float(np.abs(answer - whole(made, window)[:1]).max()))
    assert worst <= EXACT


def test_a_frame_that_outweighs_all_others_comes_and_goes() -> None:
    """Its term is nearly all of each sum; when it is taken away, what remains must still be exact."""
    made = network()
    sliding, person = SlidingTaemi(TaemiWeights(made)), Person()
    person.audio.frames[::20] *= 40.0
    for _ in range(120):
        person.audio.hop(2, 0)
        person.vision.hop(1, 0)
        window = person.window()
        assert np.abs(sliding.forward(window) - whole(made, window)[:1]).max() <= EXACT * max(
            1.0, float(np.abs(whole(made, window)).max())
        )


def test_frames_are_computed_once() -> None:
    """A long window in small hops: the rows computed are about one a frame, not one a frame and hop."""
    shapes = FusionShapes(vision_frames=4, vision_dim=5, audio_frames=300, audio_dim=7, text_dim=6)
    made = network(shapes=shapes)
    sums, plain = (SlidingTaemi(TaemiWeights(made), running_sums=on) for on in (True, False))
    person = Person(shapes=shapes)
    person.audio.frames *= 0.2
    for _ in range(150):
        person.audio.hop(10, 0)
        window = person.window()
        assert np.abs(sums.forward(window) - plain.forward(window)).max() <= EXACT
    frames = person.audio.stop
    assert frames <= sums.computed <= 1.5 * frames
    assert plain.computed > 20 * sums.computed


def test_another_stream_is_taken_in_anew() -> None:
    made = network()
    sliding, first, second = SlidingTaemi(TaemiWeights(made)), Person(1), Person(2)
    first.audio.skip(500)
    for person, arrive in ((first, 20), (second, 9), (first, 3)):
        person.audio.hop(arrive, 0)
        sliding.restart()
        window = person.window()
        assert np.abs(sliding.forward(window) - whole(made, window)[:1]).max() <= EXACT
    window = second.window()  # without being told: its numbers are behind those that were seen
    assert np.abs(sliding.forward(window) - whole(made, window)[:1]).max() <= EXACT


@pytest.mark.parametrize("modality", ["vision", "audio", "text"])
def test_what_is_not_finite_is_refused_and_leaves_no_trace(modality: str) -> None:
    made = network()
    sliding, person = SlidingTaemi(TaemiWeights(made)), Person()
    person.audio.hop(20, 0)
    person.vision.hop(5, 0)
    sliding.forward(person.window())
    person.audio.hop(2, 0)
    person.vision.hop(2, 0)
    good = person.window()
    bad = StreamWindow(
        _spoiled(good.vision) if modality == "vision" else good.vision,
        True,
        _spoiled(good.audio) if modality == "audio" else good.audio,
        True,
        good.text * np.float32(np.nan) if modality == "text" else good.text,
        True,
    )
    with pytest.raises(InputError, match=modality):
        sliding.forward(bad)
    assert np.abs(sliding.forward(good) - whole(made, good)[:1]).max() <= EXACT


def _spoiled(run: FrameRun) -> FrameRun:
    values = run.values.copy()
    values[-1, 0] = np.inf
    return FrameRun(run.start, values)


def test_the_network_s_weights_are_left_as_they_are() -> None:
    made = network()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    sliding, person = SlidingTaemi(TaemiWeights(made)), Person()
    for _ in range(5):
        person.audio.hop(10, 0)
        sliding.forward(person.window(), LEFT_OUT)
    assert all(tensor.equal(before[name]) for name, tensor in made.state_dict().items())
