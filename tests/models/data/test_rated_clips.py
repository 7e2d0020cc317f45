"""Which clips train and which validate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from emi_models.data.batches import ClipWindows, check_task, rated_clips, rated_part
from emi_models.errors import TrainingError
from emi_models.targets import Target
from tests.models.networks.zoo import config
from tests.models.training.sets import MemorySet, Named, memory_set, random_clips, unrated


def test_a_set_with_both_splits_is_taken_as_it_is_but_for_unrated_clips() -> None:
    clips = memory_set(6, 4)
    train = [*clips.splits["train"]]
    train[2] = unrated(train[2])
    rated = rated_clips(replace(clips, splits={**clips.splits, "train": train}), 0.2, 0)
    assert rated.ids("train") == tuple(c.id for c in train if c.targets is not None)
    assert rated.ids("valid") == clips.ids("valid")
    assert rated.ids("test") == ()
    assert np.array_equal(rated.targets("valid"), clips.targets("valid"))
    assert not rated.drawn
    assert rated.validation == "the set's own valid split, 4 rated clips"


@given(st.integers(4, 40), st.floats(0.05, 0.5), st.integers(0, 50))
def test_without_a_valid_split_a_share_of_train_is_drawn(count: int, share: float, seed: int) -> None:
    clips = MemorySet(splits={"train": random_clips(count)})
    rated = rated_clips(clips, share, seed)
    train, valid = rated.ids("train"), rated.ids("valid")
    assert sorted(train + valid) == sorted(clips.ids("train"))
    assert len(valid) == max(2, round(share * count))
    assert rated_clips(clips, share, seed).ids("valid") == valid
    assert rated.drawn
    assert f"{len(valid)} of {count} train clips, drawn with seed {seed}" in rated.validation
    for split, ids in (("train", train), ("valid", valid)):
        own = [clips.load(clip_id).targets for clip_id in ids]
        assert np.array_equal(rated.targets(split), np.array(own))


def test_the_draw_hangs_on_its_seed() -> None:
    clips = MemorySet(splits={"train": random_clips(40)})
    assert len({rated_clips(clips, 0.2, seed).ids("valid") for seed in range(5)}) > 1


@pytest.mark.parametrize(
    ("train", "valid", "message"),
    [
        (0, 0, "^0 rated clips"),
        (3, 0, "1 rated clips to train"),
        (1, 4, "1 rated clips to train"),
        (4, 1, "1 rated clips to validate"),
    ],
)
def test_too_few_clips_are_said_with_their_numbers(train: int, valid: int, message: str) -> None:
    splits = {"train": random_clips(train), "valid": random_clips(valid, prefix="v")}
    with pytest.raises(TrainingError, match=message) as caught:
        rated_clips(MemorySet(splits=splits), 0.2, 0)
    assert f"(train has {train} clips, valid {valid})" in str(caught.value)


def test_clips_without_any_rating_are_refused() -> None:
    clips = [unrated(clip) for clip in random_clips(8)]
    with pytest.raises(TrainingError, match="valid 0"):
        rated_clips(MemorySet(splits={"train": clips}), 0.2, 0)


def test_a_task_wants_its_own_ratings() -> None:
    clips = MemorySet(splits={})
    answers = Named(splits={}, task="bah", rated=(Target("ambivalence"),))
    two = Named(splits={}, rated=(Target("arousal"), Target("valence")))
    check_task(config("taemi"), clips)
    check_task(config("semantic_matters"), clips)
    check_task(config("semantic_matters", task="bah"), answers)
    check_task(config("taemi", targets=2), two)
    for network, foreign, word in (
        (config("taemi"), answers, "bah"),
        (config("semantic_matters", task="bah"), clips, "emi"),
        (config("taemi"), two, "arousal"),
    ):
        with pytest.raises(TrainingError, match=word):
            check_task(network, foreign)


def test_a_clip_with_any_rating_takes_part() -> None:
    partly, none = np.full(6, np.nan, np.float32), np.full(6, np.nan, np.float32)
    partly[2] = 0.5
    clips = [replace(clip, targets=t) for clip, t in zip(random_clips(3), (partly, none, None), strict=True)]
    assert rated_part(MemorySet(splits={"train": clips}), "train")[0] == (clips[0].id,)
    windows = ClipWindows(MemorySet(splits={"train": clips}), "train")
    assert windows.ids == (clips[0].id,)
    assert windows[0][1].isfinite().tolist() == [False, False, True, False, False, False]


@given(st.integers(2, 40), st.integers(14, 40), st.integers(0, 9))
def test_four_to_one_moves_drawn_valid_clips_to_train(train: int, valid: int, seed: int) -> None:
    clips = memory_set(train, valid)
    rated = rated_clips(clips, 0.2, seed, "4:1")
    left = round((train + valid) / 5)
    assert len(rated.ids("valid")) == left
    assert set(rated.ids("valid")) <= set(clips.ids("valid"))
    assert sorted(rated.ids("train") + rated.ids("valid")) == sorted(clips.ids("train") + clips.ids("valid"))
    for split in ("train", "valid"):
        own = [clips.load(clip_id).targets for clip_id in rated.ids(split)]
        assert np.array_equal(rated.targets(split), np.array(own))


def test_four_to_one_of_the_official_counts_is_the_papers() -> None:
    parts = {"train": np.zeros((8072, 6), np.float32), "valid": np.zeros((4588, 6), np.float32)}

    class Counted(MemorySet):
        def ids(self, split: str) -> tuple[str, ...]:
            return tuple(f"{split}{number}" for number in range(len(parts[split])))

        def targets(self, split: str) -> NDArray[np.float32]:
            return parts[split]

    rated = rated_clips(Counted(splits={}), 0.2, 0, "4:1")
    assert (len(rated.ids("train")), len(rated.ids("valid"))) == (10_128, 2_532)


def test_four_to_one_wants_a_valid_split_of_a_fifth() -> None:
    with pytest.raises(TrainingError, match="4:1"):
        rated_clips(memory_set(40, 4), 0.2, 0, "4:1")


def test_train_and_valid_together_leave_none_to_validate() -> None:
    clips = memory_set(6, 4)
    rated = rated_clips(clips, 0.2, 0, "train+valid")
    assert rated.ids("train") == clips.ids("train") + clips.ids("valid")
    assert rated.ids("valid") == ()
    assert rated.targets("train").shape == (10, 6)
    assert rated.validation.startswith("none")
    alone = rated_clips(MemorySet(splits={"train": random_clips(6)}), 0.2, 0, "train+valid")
    assert len(alone.ids("train")) == 6
