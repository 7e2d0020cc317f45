"""Predictions, scores of videos and tables of BAH, on a made-up folder with its words alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emi_models.data.bah import read_bah
from emi_models.data.bah_chunks import BahChunks, ChunkSpans
from emi_models.errors import DataError, TrainingError
from emi_models.marked import MARK
from emi_models.training.bah import BAH_TABLES, BahRow, make_bah_table, predict_bah
from emi_models.training.config import TrainConfig
from emi_models.training.evaluate import Scores, video_logits
from emi_models.training.fit import fit
from tests.models.data.bah_folder import HZ, write_bah

SMALL = TrainConfig.model_validate(
    {
        "training": {"max_epochs": 3, "batch_size": 8, "learning_rate": 0.02},
        "network": {"fusion_hidden": 8, "modalities": ["text"]},
    }
)


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Whether the word at the mark is one of those that are said with ambivalence, and noise."""
    present = [text.partition(MARK)[2].split()[0] for text in texts]
    random = np.random.default_rng(0).normal(size=(len(texts), 3))
    hits = [[word in ("maybe", "should", "but", "not", "so", "sure", "am")] for word in present]
    return np.hstack([np.array(hits), random]).astype(np.float32)


def clips(folder: Path, text_s: float = 20.0, *, unlabelled: bool = False, every: int = 8) -> BahChunks:
    spans = ChunkSpans(window="causal", text_s=text_s)
    return BahChunks(
        read_bah(folder),
        None,
        embed,
        text_encoder="made-up",
        text_dim=4,
        spans=spans,
        every=every,
        unlabelled=unlabelled,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bah")
    write_bah(folder, {"train": 6, "val": 4, "test": 2})
    return folder


def test_the_time_of_a_word_decides_which_frames_learn_it(folder: Path) -> None:
    """In a video with ambivalence, the frames of its second half have the words of hesitation."""
    first = clips(folder, every=1).load(f"{read_bah(folder)[0].id}#{HZ}")
    later = clips(folder, every=1).load(f"{read_bah(folder)[0].id}#{4 * HZ - 2}")
    assert (first.text.values[0, 0], later.text.values[0, 0]) == (0, 1)


def test_frames_and_videos_are_predicted_labelled_or_not(folder: Path, tmp_path: Path) -> None:
    run = fit("semantic_matters", clips(folder), tmp_path / "run", SMALL)
    found = predict_bah([run.checkpoint, run.checkpoint], clips(folder, unlabelled=True), "test")
    once = predict_bah([run.checkpoint], clips(folder, unlabelled=True), "test")
    assert torch.allclose(found.logits, once.logits)
    assert found.scores is None
    rows = list(csv.DictReader(io.StringIO(found.csv())))
    assert [int(row["frame"]) for row in rows[:3]] == [0, 8, 16]
    assert {row["ambivalence"] for row in rows} <= {"0", "1"}
    assert len(found.csv("video").splitlines()) == 3
    with pytest.raises(TrainingError, match="level"):
        found.csv("day")
    valid = predict_bah([run.checkpoint], clips(folder), "valid").scores
    assert valid is not None
    assert valid.weighted_f1 == pytest.approx(run.score)
    with pytest.raises(TrainingError, match="split"):
        predict_bah([run.checkpoint], clips(folder), "test")  # no frame of it is labelled


def test_one_frame_alone_does_not_make_a_video() -> None:
    logits = torch.full((48, 1), -4.0)
    logits[10] = 9.0
    ids = [f"a#{k}" for k in range(24)] + [f"b#{k}" for k in range(24)]
    assert float(video_logits(ids, logits)["a"]) < 0
    logits[24:40] = 9.0
    found = video_logits(ids, logits)
    assert (list(found), float(found["b"]) > 0) == (["a", "b"], True)


def test_scores_are_those_of_the_definitions() -> None:
    logits, truth = torch.tensor([[2.0], [1.0], [-1.0], [-2.0]]), torch.tensor([[1.0], [0.0], [1.0], [0.0]])
    scores = Scores.of(logits, truth, "bah")
    assert scores.macro_f1 == scores.weighted_f1 == pytest.approx(0.5)
    assert scores.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert Scores.of(logits, torch.zeros(4, 1), "bah").average_precision == 0


def test_a_table_is_made_row_by_row_or_says_why_not(folder: Path, tmp_path: Path) -> None:
    def opened(row: BahRow) -> BahChunks:
        if row.text_encoder:
            raise DataError(f"there is no {row.text_encoder}")
        return clips(folder, row.text_s, every=24)

    two = ("5 seconds", "35 seconds")
    made = make_bah_table(6, opened, tmp_path, SMALL, rows=two)
    assert [(one.row.name, one.row.valid) for one in made] == [("5 seconds", 0.703), ("35 seconds", 0.716)]
    assert all(one.valid is not None and one.test is None and not one.why for one in made)
    again = make_bah_table(6, lambda row: clips(folder, row.text_s, every=24), tmp_path, SMALL, rows=two)
    assert again == made
    assert all("there is no" in one.why for one in make_bah_table(5, opened, tmp_path, SMALL))
    rows = make_bah_table(4, opened, tmp_path, SMALL, rows=("baseline", "vision"))
    assert [bool(one.why) for one in rows] == [True, True]  # another team's; no faces here
    assert set(BAH_TABLES) == {4, 5, 6}
    with pytest.raises(TrainingError, match="table 3"):
        make_bah_table(3, opened, tmp_path)
