"""What a clip shows a network at an instant."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emi_models.data.clip import Clip, FeatureTrack
from emi_models.inputs import FusionShapes

SHAPES = FusionShapes(vision_frames=40, vision_dim=1, audio_frames=40, audio_dim=1, text_dim=2)
S = 1_000_000_000


def track(*seconds: float) -> FeatureTrack:
    t_ns = np.array([round(s * S) for s in seconds], np.int64)
    return FeatureTrack(t_ns, np.array(seconds, np.float32)[:, None])


def seen(clip: Clip, end_s: float, span_s: float | None = None) -> list[float]:
    spans = None if span_s is None else {"vision": span_s}
    window = clip.window(SHAPES, round(end_s * S), spans)  # type: ignore[arg-type]  # of Modality
    assert bool(window.vision_present) == bool(window.vision_mask.any())
    return [round(float(value), 3) for value in window.vision[0, window.vision_mask[0], 0]]


def watched(vision: FeatureTrack) -> Clip:
    return Clip("a", vision, FeatureTrack.empty(1), FeatureTrack.empty(2), 20 * S)


def test_a_span_counts_back_from_the_newest_frame() -> None:
    clip = watched(track(1.0, 1.1, 1.2, 1.3, 5.0))
    assert seen(clip, 1.3, 0.2) == [1.2, 1.3]
    assert seen(clip, 4.9, 0.2) == [1.2, 1.3]  # nothing newer came
    assert seen(clip, 5.0, 0.2) == [5.0]
    assert seen(clip, 0.9, 0.2) == []
    assert seen(clip, 17.1, 0.2) == []  # the newest lies before the 12 s


@given(st.lists(st.floats(0, 30), max_size=40), st.floats(0, 40), st.floats(0.05, 12))
def test_a_span_is_the_end_of_what_twelve_seconds_show(at: list[float], end_s: float, span_s: float) -> None:
    clip = watched(track(*sorted(at)))
    whole, part = seen(clip, end_s), seen(clip, end_s, span_s)
    assert part == whole[len(whole) - len(part) :]
    assert bool(part) == bool(whole)
    assert seen(clip, end_s, 12.0) == whole
