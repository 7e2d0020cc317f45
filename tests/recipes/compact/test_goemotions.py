"""GoEmotions as training data: reading, mapping, spoken form, Pearson's correlation."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr

from emi_models import EMOTIONS
from recipes.compact.goemotions import (
    MAPPING,
    DataError,
    cut_short,
    mean_pearson,
    pearson,
    read_split,
    spoken,
)

LABELS = (
    *("admiration", "amusement", "desire", "optimism", "sadness", "grief"),
    *("remorse", "caring", "excitement", "joy", "neutral"),
)


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311  # repeatable, not secret


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "labels.txt").write_text("\n".join(LABELS) + "\n")
    (tmp_path / "dev.tsv").write_text("I hope so\t3,2\tid1\nTake care, sorry\t7\tid2\nmeh\x85 ok\t10\tid3\n")
    return tmp_path


def test_labels_become_intensities(folder: Path) -> None:
    dev = read_split(folder, "dev")
    assert dev.texts == ("I hope so", "Take care, sorry", "meh\x85 ok")
    assert dev.targets.dtype == np.float32
    assert dict(zip(EMOTIONS, dev.targets[0], strict=True))["determination"] == 1.0
    assert dict(zip(EMOTIONS, dev.targets[1], strict=True))["empathic_pain"] == 0.5
    assert not dev.targets[2].any()


def test_every_emotion_is_mapped_within_its_range() -> None:
    assert tuple(MAPPING) == EMOTIONS
    assert all(0 < weight <= 1 for labels in MAPPING.values() for weight in labels.values())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("no tabs", "dev.tsv:1 is not text, label numbers and id"),
        ("text\tjoy\tid", "dev.tsv:1 is not text, label numbers and id"),
        ("text\t99\tid", "dev.tsv:1 has label 99"),
        ("", "is empty"),
    ],
)
def test_damaged_files_are_refused_with_their_line(folder: Path, line: str, words: str) -> None:
    (folder / "dev.tsv").write_text(line)
    with pytest.raises(DataError, match=words):
        read_split(folder, "dev")


def test_missing_files_and_foreign_labels_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"train\.tsv cannot be read"):
        read_split(folder, "train")
    (folder / "labels.txt").write_text("joy\nanger\n")
    with pytest.raises(DataError, match="lacks admiration, amusement"):
        read_split(folder, "dev")


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("That's SO funny!!! \N{FACE WITH TEARS OF JOY} lol", "that's so funny lol"),
        ("'Quoted' & \N{RIGHT SINGLE QUOTATION MARK}tis", "quoted and tis"),
        ("see https://x.yz/a?b /s", "see"),
        ("[RELIGION] is 100% ok", "religion is 100 ok"),
        ("", ""),
    ],
)
def test_spoken_text_has_only_what_a_recogniser_writes(text: str, heard: str) -> None:
    assert spoken(text, seeded(0)) == heard


def test_a_name_is_spoken_and_the_same_seed_gives_the_same_one() -> None:
    once, again = (spoken("Thanks, [NAME]!", seeded(3)) for _ in range(2))
    assert once == again
    assert once.split()[0] == "thanks"
    assert "name" not in once


@given(st.text(max_size=80), st.integers(0, 100))
def test_a_cut_is_a_beginning(text: str, seed: int) -> None:
    words = text.split()
    cut = cut_short(text, seeded(seed)).split()
    assert cut == words[: len(cut)]
    assert len(cut) >= min(3, len(words))


def test_pearson_is_scipys_and_a_constant_scores_nothing() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((50, 6), dtype=np.float32)
    predicted = truth + rng.random((50, 6), dtype=np.float32)
    expected = [pearsonr(predicted[:, i], truth[:, i]).statistic for i in range(6)]
    assert np.allclose(pearson(predicted, truth), expected, atol=1e-6)
    assert mean_pearson(predicted, truth) == pytest.approx(np.mean(expected), abs=1e-6)
    assert pearson(np.ones_like(truth), truth).tolist() == [0.0] * 6
