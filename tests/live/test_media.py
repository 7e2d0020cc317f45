"""What programmers hold is taken, or refused at the call in one sentence of ours."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from emi_live.errors import ConfigurationError
from emi_live.media import frame_of, rate_of, sound_of, stamp_of

# Red, green and blue differ, and so do the pixels: a swapped axis or channel shows.
RGB = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3) * 2
BGR = RGB[:, :, ::-1]
ALPHA = np.full((5, 7, 1), 9, np.uint8)
GRAY = RGB[:, :, 0]
TONE = np.linspace(-0.5, 0.5, 160, dtype=np.float32)


@pytest.mark.parametrize(
    ("held", "pixel_format"),
    [
        pytest.param(RGB, None, id="rgb"),
        pytest.param(RGB, "rgb24", id="said to be rgb"),
        pytest.param(BGR.copy(), "bgr24", id="bgr"),
        pytest.param(BGR, "bgr24", id="not contiguous"),
        pytest.param(np.asfortranarray(RGB), None, id="in Fortran's order"),
        pytest.param(np.concatenate((RGB, ALPHA), 2), "rgba", id="rgba"),
        pytest.param(np.concatenate((BGR, ALPHA), 2), "bgra", id="bgra"),
        pytest.param((RGB / 255).astype(np.float32), None, id="float32"),
        pytest.param(RGB / 255, None, id="float64"),
        pytest.param(RGB.tolist(), None, id="a list"),
        pytest.param(Image.fromarray(RGB), None, id="PIL"),
        pytest.param(Image.fromarray(RGB).convert("RGBA"), None, id="PIL with alpha"),
        pytest.param(torch.from_numpy(RGB), None, id="tensor, channels last"),
        pytest.param(torch.from_numpy(RGB).permute(2, 0, 1), None, id="tensor, channels first"),
        pytest.param(torch.from_numpy(RGB / 255).permute(2, 0, 1).requires_grad_(), None, id="with gradient"),
        pytest.param(av.VideoFrame.from_ndarray(RGB.copy(), format="rgb24"), None, id="av, rgb24"),
        pytest.param(av.VideoFrame.from_ndarray(BGR.copy(), format="bgr24"), None, id="av, bgr24"),
    ],
)
def test_every_kind_of_colour_frame_comes_out_the_same(held: Any, pixel_format: Any) -> None:
    picture, t_ns = frame_of(held, pixel_format)
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous
    assert t_ns is None
    np.testing.assert_array_equal(picture, RGB)


@pytest.mark.parametrize("held", [GRAY, GRAY[:, :, None], GRAY / 255, Image.fromarray(GRAY), GRAY.tolist()])
def test_a_grey_frame_is_grey_in_all_channels(held: Any) -> None:
    np.testing.assert_array_equal(frame_of(held)[0], np.repeat(GRAY[:, :, None], 3, axis=2))


@pytest.mark.parametrize("pixels", ["yuv420p", "gray", "rgba", "nv12", "yuv444p"])
def test_a_pyav_frame_is_taken_in_any_format_with_its_time(pixels: str) -> None:
    frame = av.VideoFrame.from_ndarray(np.full((6, 9, 3), 128, np.uint8), format="rgb24").reformat(
        format=pixels
    )
    frame.pts, frame.time_base = 45_000, Fraction(1, 90_000)
    picture, t_ns = frame_of(frame)
    assert picture.shape == (6, 9, 3)
    assert np.abs(picture.astype(int) - 128).max() <= 6
    assert t_ns == 500_000_000


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (None, "cannot be made of NoneType"),  # what cv2.imread gives for a file that is not there
        ("face.jpg", "cannot be made of str"),
        (7, "cannot be made of int"),
        ({"rgb": RGB}, "cannot be made of dict"),
        (np.zeros((0, 6, 3), np.uint8), r"shape \(0, 6, 3\)"),
        (np.zeros(12, np.uint8), r"shape \(12,\)"),
        (np.zeros((1, 5, 7, 3), np.uint8), r"shape \(1, 5, 7, 3\)"),
        (np.zeros((5, 7, 4), np.uint8), "rgba"),
        (np.zeros((5, 7, 2), np.uint8), "the format"),
        (np.zeros((5, 7, 3), bool), "bool"),
        (np.zeros((5, 7, 3), np.uint16), "uint16"),
        (np.full((5, 7, 3), 255.0), "255 to 255"),
        (np.full((5, 7, 3), np.nan), "nan"),
        (np.zeros((5, 7, 3), np.complex64), "complex64"),
        ([[1, 2], [3]], "array"),
        ([["a", "b"]], "list"),
        ([[300, 2]], "int64"),
        (np.zeros((32_768, 1, 3), np.uint8), "1 x 32768 pixels"),
        (np.zeros((1, 40_000), np.uint8), "40000 x 1 pixels"),
        (av.VideoFrame(32_768, 2, "rgb24"), "32768 x 2 pixels"),
        (object(), "object"),
    ],
)
def test_what_is_no_frame_is_refused_in_one_sentence(held: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refused:
        frame_of(held)
    assert "\n" not in str(refused.value)


def test_a_format_that_is_not_known_is_refused_with_the_list() -> None:
    with pytest.raises(ConfigurationError, match="rgba"):
        frame_of(RGB, "yuv420p")  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize(
    ("pcm", "more"),
    [
        (TONE, {}),
        (TONE.astype(np.float16), {}),
        (TONE.tolist(), {}),
        (torch.from_numpy(TONE), {}),
        (torch.from_numpy(TONE).bfloat16(), {}),
        (np.rint(TONE * 127).astype(np.int8), {}),
        (np.rint(TONE * 127 + 128).astype(np.uint8), {}),
        (TONE[None], {"layout": "channels_first"}),
        (np.repeat(TONE, 2)[None], {"layout": "interleaved", "channels": 2}),
        (np.stack((TONE, TONE)), {"layout": "channels_first"}),
        (np.stack((TONE, TONE), 1), {}),
    ],
)
def test_every_kind_of_sound_comes_out_the_same(pcm: Any, more: dict[str, Any]) -> None:
    samples, rate_hz, _ = sound_of(pcm, **more)
    assert rate_hz == 16_000
    assert len(samples) == 160
    mono = samples if samples.ndim == 1 else samples.mean(axis=1)
    np.testing.assert_allclose(mono.astype(np.float32), TONE, atol=0.01)


def av_sound(samples: NDArray[Any], sample_format: str, layout: str, rate_hz: int = 48_000) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(samples, format=sample_format, layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate_hz, 24_000, Fraction(1, rate_hz)
    return frame


@pytest.mark.parametrize(
    "frame",
    [
        av_sound(np.repeat(np.rint(TONE * 2**15).astype(np.int16), 2)[None], "s16", "stereo"),  # aiortc's
        av_sound(np.rint(TONE * 2**15).astype(np.int16)[None], "s16", "mono"),
        av_sound(np.stack((TONE, TONE)), "fltp", "stereo"),
        av_sound(np.rint(TONE * 127 + 128).astype(np.uint8)[None], "u8", "mono"),
        av_sound(TONE.astype(np.float64)[None], "dbl", "mono"),
        av_sound(np.tile(TONE, (6, 1)), "fltp", "5.1"),
        av_sound(np.tile(TONE, (16, 1)).T.reshape(1, -1).copy(), "flt", "hexadecagonal"),
    ],
    ids=["packed stereo", "mono", "planar stereo", "u8", "double", "6 planes", "16 channels"],
)
def test_a_pyav_block_is_taken_in_any_layout_with_its_time_and_rate(frame: av.AudioFrame) -> None:
    samples, rate_hz, t_ns = sound_of(frame)
    assert (rate_hz, t_ns, len(samples)) == (48_000, 500_000_000, 160)
    scale = 2.0**15 if samples.dtype == np.int16 else 1.0
    for channel in samples.T:
        np.testing.assert_allclose(channel / scale, TONE, atol=0.01)


@pytest.mark.parametrize(("count", "layout"), [(8, "7.1"), (16, "hexadecagonal")])
def test_more_planes_than_pyav_counts_are_packed_first(count: int, layout: str) -> None:
    packed = av_sound(np.tile(TONE, (count, 1)).T.reshape(1, -1).copy(), "flt", layout)
    [planar] = av.AudioResampler(format="fltp", layout=layout).resample(packed)
    samples, _, _ = sound_of(planar)
    assert samples.shape == (160, count)
    np.testing.assert_allclose(samples[:, count - 1], TONE, atol=1e-6)


@pytest.mark.parametrize(
    ("pcm", "more", "says"),
    [
        (np.zeros((1, 1920), np.int16), {}, "1920 channels"),
        (np.zeros((2, 1600), np.int16), {}, "channels_first"),
        (np.zeros((100, 65), np.float32), {}, "65 channels"),
        (np.zeros((4, 6), np.float32), {}, "6 channels"),
        (np.zeros((1600, 2), np.float32), {"layout": "channels_first"}, "1600 channels"),
        (np.zeros(7, np.float32), {"layout": "interleaved", "channels": 2}, "channels=N"),
        (np.zeros(8, np.float32), {"layout": "interleaved"}, "channels=N"),
        (np.zeros(8, np.float32), {"layout": "planar"}, "channels_last"),
        (np.zeros((2, 2, 2), np.float32), {}, r"shape \(2, 2, 2\)"),
        (np.float32(0.5), {}, "float32"),
        (np.zeros(8, bool), {}, "bool"),
        (np.zeros(8, np.int64), {}, "int64"),
        (np.zeros(8, np.uint16), {}, "uint16"),
        (np.zeros(8, np.complex64), {}, "complex64"),
        (b"\0\0", {}, "bytes"),
        (None, {}, "cannot be made of NoneType"),
        ([[0.0], [0.0, 1.0]], {}, "array"),
        (np.zeros(8, np.float32), {"rate_hz": 44_100.5}, "44100.5"),
        (np.zeros(8, np.float32), {"rate_hz": "fast"}, "fast"),
        (av_sound(TONE[None], "flt", "mono"), {"rate_hz": 16_000}, "48000 Hz"),
    ],
)
def test_what_is_no_sound_is_refused_in_one_sentence(pcm: Any, more: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refused:
        sound_of(pcm, **more)
    assert "\n" not in str(refused.value)


def test_whole_numbers_of_any_library_are_stamps_and_rates() -> None:
    assert stamp_of(np.int64(5)) == stamp_of(5) == stamp_of(torch.tensor(5)) == 5
    assert type(stamp_of(np.int64(5))) is int
    assert stamp_of(None) is None
    assert rate_of(44_100.0) == rate_of(np.float32(44_100)) == rate_of(np.int32(44_100)) == 44_100


@pytest.mark.parametrize("t_ns", [1.5, 2.0, float("nan"), np.float64(3), True, np.True_, "now", [1]])
def test_what_is_no_whole_number_is_no_stamp(t_ns: Any) -> None:
    with pytest.raises(ConfigurationError, match="nanoseconds"):
        stamp_of(t_ns)


@pytest.mark.parametrize("t_ns", [2**63, -(2**63), 10**30])
def test_a_stamp_that_would_overflow_is_refused(t_ns: int) -> None:
    with pytest.raises(ConfigurationError, match="out of range"):
        stamp_of(t_ns)


@pytest.mark.parametrize("rate_hz", [0, -1, 0.0, float("nan"), float("inf"), True, None])
def test_what_is_no_rate_is_refused(rate_hz: Any) -> None:
    with pytest.raises(ConfigurationError, match="rate_hz"):
        rate_of(rate_hz)
