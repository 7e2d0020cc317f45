from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from emi_models.data.feature_files import WAV2VEC2, FrameRate, as_frames, read_frames
from emi_models.errors import DataError
from tests.models.data.pickles import write_pickle

if TYPE_CHECKING:
    from pathlib import Path

    from emi_models.data.unpickle import Plain

VALUES = np.arange(6, dtype=np.float64).reshape(3, 2)


def test_every_format_gives_the_same(tmp_path: Path) -> None:
    write_pickle(tmp_path / "a.pkl", VALUES)
    write_pickle(tmp_path / "b.pkl", VALUES.tolist())
    write_pickle(tmp_path / "c.pkl", [VALUES, np.zeros((3, 8))])
    write_pickle(tmp_path / "d.pkl", torch.from_numpy(VALUES))
    write_pickle(tmp_path / "e.pkl", list(VALUES))
    torch.save(torch.from_numpy(VALUES), tmp_path / "f.pt")
    np.save(tmp_path / "g.npy", VALUES.astype(np.int16))
    save_file({"x": torch.from_numpy(VALUES).bfloat16()}, tmp_path / "h.safetensors")
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 8
    for path in paths:
        frames = read_frames(path)
        assert frames.values.dtype == np.float32, path
        assert np.array_equal(frames.values, VALUES), path
        assert frames.index.tolist() == [0, 1, 2]
        assert (frames.total, frames.dropped) == (3, 0)


@pytest.mark.parametrize(
    ("value", "shape", "total"),
    [
        (np.zeros((0, 7)), (0, 7), 0),
        (np.zeros(0), (0, 1), 0),
        ([], (0, 1), 0),
        (np.zeros((5, 0)), (0, 1), 5),
        (np.zeros(7), (1, 7), 1),
        (np.zeros((1, 7)), (1, 7), 1),
        ([np.zeros(7), np.zeros(7)], (2, 7), 2),
        ((np.zeros((2, 7)), np.zeros((2, 3))), (2, 7), 2),
    ],
)
def test_few_frames_are_frames(value: Plain, shape: tuple[int, int], total: int) -> None:
    frames = as_frames(value, "x.pkl")
    assert frames.values.shape == shape
    assert frames.index.shape == shape[:1]
    assert frames.total == total


def test_frames_that_are_not_finite_are_dropped_and_counted_and_the_others_keep_their_places() -> None:
    values = np.ones((5, 2))
    values[1, 0], values[2, 1], values[4, 0] = np.nan, np.inf, 1e300  # the last is infinite as float32
    frames = as_frames(values, "x.pkl")
    assert frames.index.tolist() == [0, 3]
    assert (frames.total, frames.dropped) == (5, 3)
    assert np.isfinite(frames.values).all()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "NoneType"),
        ("text", "a str"),
        (np.array(["a"]), "<U1"),
        (np.zeros(2, np.complex64), "not numbers"),
        ({"a": np.zeros(2)}, "a dict"),
        (3.0, "shape ()"),
        (np.zeros((2, 3, 4)), "has shape (2, 3, 4)"),
        (np.zeros((1, 65537)), "has shape (1, 65537)"),
        ([[1.0, 2.0], [3.0]], "different lengths"),
    ],
)
def test_what_is_no_frames_is_refused(value: Plain, words: str) -> None:
    with pytest.raises(DataError) as caught:
        as_frames(value, "x.pkl")
    assert str(caught.value).startswith("x.pkl ")
    assert words in str(caught.value)


def test_damaged_files_are_refused_in_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "object.npy", np.array([None]))
    save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "two.safetensors")
    for name in ("bad.npy", "bad.safetensors", "bad.pkl", "bad.pt"):
        (tmp_path / name).write_bytes(b"nonsense")
    (tmp_path / "empty.npy").write_bytes(b"")
    for path in (*tmp_path.iterdir(), tmp_path / "none.npy", tmp_path / "none.safetensors"):
        with pytest.raises(DataError) as caught:
            read_frames(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def test_files_have_a_limit(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((100, 100)))
    with pytest.raises(DataError, match="larger"):
        read_frames(tmp_path / "x.npy", max_bytes=1000)


RATES = st.one_of(st.just(WAV2VEC2), st.floats(0.5, 200).map(FrameRate.of))


def test_wav2vec2s_frames_are_those_of_its_convolutions() -> None:
    assert WAV2VEC2.stamps(np.array([0, 1, 598])).tolist() == [25_000_000, 45_000_000, 11_985_000_000]
    assert WAV2VEC2.count(12_000_000_000) == 599 == (12 * 16_000 - 400) // 320 + 1
    assert [WAV2VEC2.length_ns(frames) for frames in (0, 1, 2, 599)] == [
        0,
        25_000_000,
        45_000_000,
        11_985_000_000,
    ]


def test_pictures_last_until_the_next_would_come() -> None:
    rate = FrameRate.of(6.0)
    assert rate.stamps(np.array([0, 1, 6])).tolist() == [0, 166_666_667, 1_000_000_000]
    assert [rate.length_ns(frames) for frames in (0, 1, 6)] == [0, 166_666_667, 1_000_000_000]
    assert rate.count(12_000_000_000) == 73  # the one at 12 s is known at 12 s


@given(rate=RATES, until_ns=st.integers(0, 20_000_000_000))
def test_as_many_are_counted_as_have_stamps_by_then(rate: FrameRate, until_ns: int) -> None:
    count = rate.count(until_ns)
    stamps = rate.stamps(np.arange(count + 1))
    assert count == 0 or stamps[count - 1] <= until_ns
    assert stamps[count] > until_ns
    assert (np.diff(stamps) > 0).all()
