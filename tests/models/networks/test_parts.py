"""Sequences with holes: packing, flipping, last frames, segments; and attention under a mask."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emi_models.networks.base import (
    Attention,
    flipped,
    last_frame,
    learned,
    masked_mean,
    packed,
    segment_means,
)

masks = st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=3).map(torch.tensor)


def numbered(mask: torch.Tensor) -> torch.Tensor:
    """Frames (B, T, 1) that are their own index, NaN where the mask is False."""
    index = torch.arange(mask.shape[1], dtype=torch.float32).expand(mask.shape)
    return torch.where(mask, index, float("nan"))[:, :, None]


def rows(mask: torch.Tensor) -> list[list[float]]:
    return [[float(i) for i in range(len(row)) if row[i]] for row in mask]


@given(masks)
def test_packing_keeps_the_order_and_leaves_zeros_behind(mask: torch.Tensor) -> None:
    x, front = packed(numbered(mask), mask)
    for values, where, kept in zip(x.squeeze(2), front, rows(mask), strict=True):
        assert values.tolist() == kept + [0.0] * (7 - len(kept))
        assert where.tolist() == [True] * len(kept) + [False] * (7 - len(kept))


@given(masks)
def test_flipping_turns_the_frames_round_and_twice_is_none(mask: torch.Tensor) -> None:
    x, front = packed(numbered(mask), mask)
    for values, kept in zip(flipped(x, front).squeeze(2), rows(mask), strict=True):
        assert values.tolist() == kept[::-1] + [0.0] * (7 - len(kept))
    assert torch.equal(flipped(flipped(x, front), front), x)


@given(masks)
def test_the_last_frame_is_the_last_that_is_present_or_zeros(mask: torch.Tensor) -> None:
    expected = [kept[-1] if kept else 0.0 for kept in rows(mask)]
    assert last_frame(*packed(numbered(mask), mask)).squeeze(1).tolist() == expected


@given(masks, st.integers(1, 9))
def test_segments_are_equally_long_and_none_is_empty(mask: torch.Tensor, segments: int) -> None:
    means = segment_means(numbered(mask), mask, segments).squeeze(2)
    assert torch.allclose(means.mean(dim=1), masked_mean(numbered(mask), mask).squeeze(1), atol=1e-5)
    for got, kept in zip(means, rows(mask), strict=True):
        # Each frame as `segments` copies of itself: then every segment is as many copies as there are frames.
        copies = torch.tensor(kept).repeat_interleave(segments)
        expected = copies.view(segments, len(kept)).mean(dim=1) if kept else torch.zeros(segments)
        assert torch.allclose(got, expected, atol=1e-5)


def test_segments_are_exact_in_half_precision_over_long_sequences() -> None:
    mask = torch.ones(1, 6000, dtype=torch.bool)
    x = torch.arange(4).repeat_interleave(1500)[None, :, None].to(torch.bfloat16)
    assert segment_means(x, mask, 4).squeeze().tolist() == [0.0, 1.0, 2.0, 3.0]


@given(masks)
def test_the_mean_is_of_the_present_frames_and_zero_without(mask: torch.Tensor) -> None:
    expected = [sum(kept) / len(kept) if kept else 0.0 for kept in rows(mask)]
    assert masked_mean(numbered(mask), mask).squeeze(1).tolist() == pytest.approx(expected)


def test_attention_reads_what_the_mask_shows_and_without_one_everything() -> None:
    torch.manual_seed(0)
    attention, queries, frames = Attention(8, 2, 0.0).eval(), torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    everything = attention(queries, frames)
    assert torch.allclose(
        attention(queries, frames, torch.ones(2, 5, dtype=torch.bool)), everything, atol=1e-6
    )
    some = torch.tensor([[True, True, False, False, False]] * 2)
    assert torch.allclose(attention(queries, frames, some), attention(queries, frames[:, :2]), atol=1e-6)


def test_learned_vectors_start_small_and_cost_nothing_on_the_meta_device() -> None:
    torch.manual_seed(0)
    assert 0.018 < learned(100, 100).std().item() < 0.022
    with torch.device("meta"):
        assert learned(3).is_meta
