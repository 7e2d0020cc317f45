from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from emi_models.data.batches import ClipWindows, collate
from emi_models.data.clip import Clip, FeatureTrack
from emi_models.errors import DataError
from emi_models.inputs import FusionInputs
from emi_models.networks.taemi import Taemi, TaemiConfig
from tests.models.data.folders import SHAPES, make_clip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from emi_models import Modality
    from emi_models.data.clip import ClipSet
    from emi_models.inputs import FusionShapes

S = 1_000_000_000


class ClipsInMemory:
    """A `ClipSet` of made clips that counts how often each is read; a rating of None is no rating."""

    encoders: Mapping[Modality, str] = {"vision": "a", "audio": "b", "text": "c"}
    description = "made clips"
    licence = "CC0"

    def __init__(self, clips: list[Clip], ratings: list[float | None] | None = None) -> None:
        self.clips = {clip.id: clip for clip in clips}
        self.ratings = ratings or [0.5] * len(clips)
        self.read: list[str] = []

    @property
    def shapes(self) -> FusionShapes:
        return SHAPES

    def ids(self, split: str) -> tuple[str, ...]:
        return tuple(self.clips) if split == "train" else ()

    def targets(self, split: str) -> NDArray[np.float32]:
        rows = [[np.nan if rating is None else rating] * 6 for rating in self.ratings if self.ids(split)]
        return np.array(rows, np.float32).reshape(-1, 6)

    def load(self, clip_id: str) -> Clip:
        self.read.append(clip_id)
        return self.clips[clip_id]


def some_clips(*seconds: float) -> ClipsInMemory:
    return ClipsInMemory([make_clip(f"{place:05d}", length, place) for place, length in enumerate(seconds)])


def ends(windows: ClipWindows) -> list[int]:
    """By how many voice frames each window has, 50 a second."""
    return [int(windows[place][0].audio_mask.sum()) for place in range(len(windows))]


def test_a_window_is_the_first_twelve_seconds_without_padding() -> None:
    clips: ClipSet = some_clips(3.0, 20.0)
    windows = ClipWindows(clips, "train")
    short, targets = windows[0]
    assert short.vision.shape == (1, 90, 3)
    assert short.audio.shape == (1, 150, 4)
    assert short.vision_mask.all()
    assert targets.tolist() == [0.5] * 6
    long = windows[1][0]
    assert long.vision.shape == (1, 360, 3)
    assert long.audio.shape == (1, 599, 4)
    clip = make_clip("x", 20.0, 1)
    assert torch.equal(
        long.audio[0], torch.from_numpy(clip.audio.values[2:601])
    )  # up to 12 s, the newest 599
    assert torch.equal(long.text[0], torch.from_numpy(clip.text.values[11]))


def test_a_window_without_frames_has_one_that_is_masked() -> None:
    clip = replace(
        make_clip("x", 0.01, words=False),
        vision=FeatureTrack.empty(3),
        audio=FeatureTrack.empty(4),
        duration_ns=0,
    )
    window, _ = ClipWindows(ClipsInMemory([clip]), "train")[0]
    assert window.vision.shape == (1, 1, 3)
    assert not window.vision_mask.any()
    assert not window.vision_present.any()
    assert not window.text_present.any()


def test_less_of_a_clip_may_be_shown() -> None:
    assert ends(ClipWindows(some_clips(3.0, 20.0, 0.5), "train", until_s=1.0)) == [51, 51, 25]
    spans: dict[Modality, float] = {"audio": 0.5}
    window = ClipWindows(some_clips(3.0), "train", spans_s=spans)[0][0]
    assert window.audio.shape[1] == int(window.audio_mask.sum()) == 25
    assert window.vision.shape[1] == 90


def test_unrated_clips_are_left_out() -> None:
    clips = ClipsInMemory([make_clip(name) for name in "abc"], [0.1, None, 0.3])
    windows = ClipWindows(clips, "train")
    assert windows.ids == ("a", "c")
    assert windows[1][1].tolist() == pytest.approx([0.3] * 6)
    with pytest.raises(DataError, match="none is rated"):
        ClipWindows(ClipsInMemory([make_clip("a")], [None]), "train")
    with pytest.raises(DataError, match="0 clips"):
        ClipWindows(clips, "valid")


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan")])
def test_a_share_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(DataError, match=f"prefixes is {value}"):
        ClipWindows(some_clips(1.0), "train", prefixes=value)


@pytest.mark.parametrize("value", [0, 13, float("nan")])
def test_an_end_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(DataError, match=f"until_s is {value}"):
        ClipWindows(some_clips(1.0), "train", until_s=value)


def test_prefixes_hang_on_seed_epoch_and_index_alone() -> None:
    clips = some_clips(*[8.0] * 40)
    windows = ClipWindows(clips, "train", prefixes=1.0, seed=1)
    first = ends(windows)
    assert ends(windows) == first == ends(ClipWindows(clips, "train", prefixes=1.0, seed=1))
    backwards = [int(windows[place][0].audio_mask.sum()) for place in reversed(range(40))]
    assert backwards == first[::-1]
    windows.set_epoch(1)
    assert ends(windows) != first
    windows.set_epoch(0)
    assert ends(windows) == first
    assert ends(ClipWindows(clips, "train", prefixes=1.0, seed=2)) != first


def test_the_share_of_prefixes_is_as_asked_and_their_ends_are_even() -> None:
    clips = some_clips(*[9.0] * 400)
    cut = [end for end in ends(ClipWindows(clips, "train", prefixes=0.3)) if end < 450]
    assert 90 < len(cut) < 150
    everything = ends(ClipWindows(clips, "train", prefixes=1.0))
    assert min(everything) >= 50
    thirds = np.histogram(everything, [50, 183, 317, 451])[0]
    assert thirds.min() > 100
    assert ends(ClipWindows(clips, "train")) == [450] * 400


@settings(deadline=None, max_examples=50)
@given(
    seconds=st.floats(0.02, 30),
    epoch=st.integers(0, 100),
    index=st.integers(0, 2),
    seed=st.integers(0, 2**31 - 1),
)
def test_a_prefix_is_what_the_clip_shows_by_then(seconds: float, epoch: int, index: int, seed: int) -> None:
    clips = some_clips(seconds, seconds, seconds)
    windows = ClipWindows(clips, "train", prefixes=1.0, seed=seed)
    windows.set_epoch(epoch)
    window, _ = windows[index]
    clip = clips.load(f"{index:05d}")
    shown = int(window.audio_mask.sum())
    whole = min(clip.duration_ns, 12 * S)
    assert shown <= min(599, int(seconds * 50) + 1)
    if seconds < 1.0:
        assert shown == len(clip.audio.t_ns)
    elif whole < 12 * S:
        assert shown >= 50  # at least a second of voice
        last_ns = int(clip.audio.t_ns[shown - 1])
        assert torch.equal(window.audio[0], torch.from_numpy(clip.audio.values[:shown]))
        # no word, and no face, from after the window's end: one voice frame lasts 20 ms
        assert int(window.vision_mask.sum()) <= (clip.vision.t_ns < last_ns + 20_000_000).sum()
        if window.text_present.item():
            known = int((clip.text.t_ns < last_ns + 20_000_000).sum())
            assert torch.equal(window.text[0], torch.from_numpy(clip.text.values[known - 1]))


def test_clips_are_kept_in_memory_until_it_is_full() -> None:
    clips = some_clips(4.0, 4.0, 4.0)
    size = sum(
        t.values.nbytes + t.t_ns.nbytes for c in [clips.clips["00000"]] for t in (c.vision, c.audio, c.text)
    )
    windows = ClipWindows(clips, "train", cache_bytes=2 * size)
    for _ in range(3):
        for place in range(3):
            windows[place]
    assert clips.read == ["00000", "00001", "00002", "00002", "00002"]
    clips.read.clear()
    none = ClipWindows(clips, "train", cache_bytes=0)
    none[0], none[0]
    assert clips.read == ["00000"] * 2


def test_lengths_are_the_windows() -> None:
    clips = some_clips(3.0, 20.0, 0.5)
    assert ClipWindows(clips, "train").lengths_s().tolist() == [3.0, 12.0, 0.5]
    assert len(clips.read) == 3

    class Timed(ClipsInMemory):
        def durations_s(self, split: str) -> tuple[float, ...]:
            return (1.0, 2.0, 3.0) if split == "train" else ()

    timed = Timed([make_clip(name) for name in "abc"], [0.1, None, 0.3])
    assert ClipWindows(timed, "train", until_s=2.5).lengths_s().tolist() == [1.0, 2.5]
    assert timed.read == []


@st.composite
def rows(draw: st.DrawFn) -> tuple[FusionInputs, torch.Tensor]:
    """A row of any lengths, with holes in its masks, padding, and rubbish behind them."""
    lengths = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    masks = [torch.tensor([draw(st.lists(st.booleans(), min_size=n, max_size=n))]) for n in lengths]
    seed = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    window = FusionInputs(
        vision=torch.randn(1, lengths[0], 3, generator=seed),
        vision_mask=masks[0],
        vision_present=torch.tensor([draw(st.booleans())]),
        audio=torch.randn(1, lengths[1], 4, generator=seed),
        audio_mask=masks[1],
        audio_present=torch.tensor([draw(st.booleans())]),
        text=torch.randn(1, 5, generator=seed),
        text_present=torch.tensor([draw(st.booleans())]),
    )
    return window, torch.rand(6, generator=seed)


@settings(deadline=None)
@given(batch=st.lists(rows(), min_size=1, max_size=5))
def test_a_batch_has_every_row_and_no_needless_frame(batch: list[tuple[FusionInputs, torch.Tensor]]) -> None:
    together, targets = collate(batch)
    assert targets.shape == (len(batch), 6)
    for modality in ("vision", "audio"):
        values, mask = getattr(together, modality), getattr(together, f"{modality}_mask")
        assert values.shape[:2] == mask.shape
        assert mask.shape[1] == 1 or mask[:, -1].any()
        for place, (window, _) in enumerate(batch):
            own = getattr(window, f"{modality}_mask")[0]
            assert torch.equal(values[place][mask[place]], getattr(window, modality)[0][own])
            assert torch.equal(mask[place].nonzero(), own.nonzero())
            ended = int(own.nonzero().max()) + 1 if own.any() else 0
            assert not values[place, ended:].any()
        assert torch.equal(
            getattr(together, f"{modality}_present"),
            torch.cat([getattr(window, f"{modality}_present") for window, _ in batch]),
        )
    for place, (window, rating) in enumerate(batch):
        assert torch.equal(together.text[place], window.text[0])
        assert together.text_present[place] == window.text_present[0]
        assert torch.equal(targets[place], rating)


def test_a_prediction_does_not_hang_on_batch_mates_or_padding() -> None:
    clips = some_clips(0.3, 2.0, 14.0, 7.0)
    windows = ClipWindows(clips, "train")
    torch.manual_seed(0)
    network = Taemi(TaemiConfig(shapes=SHAPES, d_model=16, mlp_hidden=16)).eval()
    rows = [windows[place] for place in range(4)]
    padded = [clip.window(SHAPES, min(clip.duration_ns, 12 * S)) for clip in clips.clips.values()]
    with torch.no_grad():
        together = network(collate(rows)[0])
        alone = torch.cat([network(collate([row])[0]) for row in rows])
        whole = network(FusionInputs.stack(padded))
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together, whole, atol=1e-5)


@pytest.mark.slow
def test_processes_that_read_see_the_epoch_change() -> None:
    windows = ClipWindows(some_clips(*[6.0] * 8), "train", prefixes=1.0, seed=4)
    loader = DataLoader(
        windows,
        batch_size=4,
        collate_fn=collate,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context="forkserver",
    )
    for epoch in (0, 1):
        windows.set_epoch(epoch)
        read = torch.cat([window.audio_mask.sum(dim=1) for window, _ in loader]).tolist()
        assert read == ends(windows)
