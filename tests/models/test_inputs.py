"""FusionInputs: what it accepts, what it refuses and in which words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from emi_models.inputs import (
    COMPACT_SHAPES,
    TAEMI_SHAPES,
    FrameRun,
    FusionInputs,
    FusionShapes,
    InputError,
    StreamWindow,
    shown_frames,
)

SMALL = FusionShapes(vision_frames=5, vision_dim=3, audio_frames=7, audio_dim=4, text_dim=2)


def test_an_empty_window_fits_its_shapes_and_has_nothing_present() -> None:
    for shapes in (SMALL, COMPACT_SHAPES, TAEMI_SHAPES):
        window = FusionInputs.empty(shapes, batch=3)
        window.check(shapes)
        assert window.batch == 3
        assert not any(t.any() for t in window.tensors())


def test_names_and_tensors_are_in_the_order_of_the_fields() -> None:
    window = FusionInputs.empty(SMALL)
    assert FusionInputs.names()[0] == "vision"
    assert FusionInputs.names()[-1] == "text_present"
    assert len(window.tensors()) == len(FusionInputs.names()) == 8
    assert window.tensors()[5] is window.audio_present


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("vision", torch.zeros(1, 6, 3), r"vision .*\(1, 6, 3\)"),
        ("audio_mask", torch.zeros(2, 7, dtype=torch.bool), r"audio_mask .*\(2, 7\)"),
        ("text_present", torch.zeros(1), "text_present is torch.float32"),
        ("audio", torch.zeros(1, 7, 4, dtype=torch.float64), "audio is torch.float64"),
        ("text", torch.tensor([[0.0, float("nan")]]), "text holds 1 of 2"),
        ("vision", torch.full((1, 5, 3), float("-inf")), "vision holds 15 of 15"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(name: str, value: torch.Tensor, words: str) -> None:
    window = replace(FusionInputs.empty(SMALL), **{name: value})
    with pytest.raises(InputError, match=words):
        window.check(SMALL)


def test_a_batch_of_no_windows_is_refused() -> None:
    with pytest.raises(InputError):
        FusionInputs.empty(SMALL, batch=0).check(SMALL)


def test_huge_finite_values_are_accepted() -> None:
    window = replace(FusionInputs.empty(SMALL), vision=torch.full((1, 5, 3), 3e38))
    window.check(SMALL)


def test_without_clears_presence_and_shares_features() -> None:
    window = replace(
        FusionInputs.empty(SMALL), vision_present=torch.tensor([True]), text_present=torch.tensor([True])
    )
    reduced = window.without("vision")
    assert not reduced.vision_present.any()
    assert reduced.text_present.all()
    assert window.vision_present.all()
    assert reduced.vision is window.vision
    with pytest.raises(InputError, match="smell"):
        window.without("smell")  # type: ignore[arg-type]  # what a caller without a type checker may write


def test_stack_joins_rows_in_order() -> None:
    first = replace(FusionInputs.empty(SMALL), text=torch.tensor([[1.0, 2.0]]))
    second = replace(FusionInputs.empty(SMALL, batch=2), text=torch.tensor([[3.0, 4.0], [5.0, 6.0]]))
    joined = FusionInputs.stack([first, second])
    joined.check(SMALL)
    assert joined.text[:, 0].tolist() == [1.0, 3.0, 5.0]
    with pytest.raises(InputError, match="at least one"):
        FusionInputs.stack([])


@pytest.mark.parametrize("value", [0, -1, 65537, 2.0, True])
def test_impossible_sizes_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="text_dim"):
        replace(SMALL, text_dim=value)


@pytest.mark.parametrize(
    ("start_ns", "end_ns", "span_ns", "rows"),
    [
        (0, 40, None, slice(0, 4)),  # all
        (10, 30, None, slice(1, 3)),  # a frame at the start is outside, one at the end is inside
        (0, 100, 20, slice(2, 4)),  # the span ends at the newest frame, not at the window's end
        (25, 100, 90, slice(2, 4)),  # a span longer than the window changes nothing
        (0, 5, 20, slice(0, 0)),
        (50, 90, 20, slice(4, 4)),
    ],
)
def test_a_window_shows_the_frames_of_its_span(
    start_ns: int, end_ns: int, span_ns: int | None, rows: slice
) -> None:
    times = np.array([10, 20, 30, 40], np.int64)
    assert shown_frames(times, start_ns, end_ns, span_ns) == rows


def test_arrays_and_tensors_of_a_window_are_the_same_numbers() -> None:
    rng = np.random.default_rng(0)
    window = StreamWindow(
        vision=FrameRun(7, rng.random((3, 3), np.float32)),
        vision_present=True,
        audio=FrameRun(0, rng.random((7, 4), np.float32)),
        audio_present=False,
        text=rng.random(2, np.float32),
        text_present=True,
    )
    tensors, arrays = window.inputs(SMALL), window.arrays(SMALL, counterfactuals=True)
    tensors.check(SMALL)
    assert tuple(arrays) == FusionInputs.names()
    rows = FusionInputs.stack([tensors, *(tensors.without(name) for name in ("vision", "audio", "text"))])
    for name, tensor in zip(rows.names(), rows.tensors(), strict=True):
        assert arrays[name].dtype == tensor.numpy().dtype
        assert np.array_equal(arrays[name], tensor.numpy())


def test_a_window_that_is_not_finite_is_refused_before_it_is_padded() -> None:
    window = replace(StreamWindow.empty(SMALL), audio=FrameRun(0, np.full((2, 4), np.nan, np.float32)))
    with pytest.raises(InputError, match="audio holds"):
        window.check_finite()
