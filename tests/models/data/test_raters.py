"""Clips that count by how many people rated them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emi_models.data.raters import Weighed, read_raters, weights_by_raters
from emi_models.data.synth import SynthConfig, SynthCorpus, write_corpus
from emi_models.errors import DataError


def test_four_raters_count_twice_as_much_as_one(tmp_path: Path) -> None:
    path = tmp_path / "raters.csv"
    path.write_text("id,country,raters\n1,at,4\n00002.mp4,at,1\n3,nz,9\n")
    raters = read_raters(path)
    assert raters == {"00001": 4, "00002": 1, "00003": 9}
    weights = weights_by_raters(["00001", "00002", "00003"], raters)
    assert np.allclose(weights, [1.0, 0.5, 1.5])
    with pytest.raises(DataError, match="00004"):
        weights_by_raters(["00001", "00004"], raters)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("id\n1\n", "'raters'"),
        ("id,raters\n1,0\n", "'0'"),
        ("id,raters\n1,2.5\n", "'2.5'"),
        ("id,raters\n1,3\n00001,3\n", "again"),
        ("id,raters\n1\n", "1 cells"),
    ],
)
def test_what_is_no_number_of_raters_is_refused_with_its_line(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "raters.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=word):
        read_raters(path)


def test_each_clip_is_shown_by_its_weight_rounded_down_or_up() -> None:
    weights = weights_by_raters([f"{i:05d}" for i in range(50)], {f"{i:05d}": 1 + i % 9 for i in range(50)})
    shown = np.zeros(50)
    for seed in range(200):
        order = list(Weighed(weights, seed))
        assert len(order) == len(Weighed(weights, seed)) == 50
        assert order == list(Weighed(weights, seed))
        counts = np.bincount(order, minlength=50)
        assert (counts >= np.floor(weights - 1e-9)).all()
        assert (counts <= np.ceil(weights + 1e-9)).all()
        shown += counts
    assert np.allclose(shown / 200, weights, atol=0.1)


def test_a_corpus_with_raters_says_how_many_and_has_their_shares(tmp_path: Path) -> None:
    corpus = SynthCorpus(SynthConfig(clips=30, raters=True))
    write_corpus(corpus, tmp_path / "data", lambda done: None)
    raters = read_raters(tmp_path / "data" / "raters.csv")
    assert len(raters) == 30
    assert 1 <= min(raters.values()) < max(raters.values()) <= 9
    for clip_id, row in zip(corpus.ids("train"), corpus.targets("train"), strict=True):
        assert np.allclose(row * raters[clip_id], np.round(row * raters[clip_id]), atol=1e-5)
    assert SynthCorpus(SynthConfig(clips=30)).load("00003").text.values.tolist() == (
        corpus.load("00003").text.values.tolist()
    )  # what people say of a clip leaves the clip as it is
