"""Every table of the papers, from a folder in Hume-Vidmimic2's layout, at toy size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from emi_models import EMOTIONS
from emi_models.checkpoint import read_header
from emi_models.data.clip import OFFICIAL_HEADER
from emi_models.data.dataset import open_clips
from emi_models.data.summary import kolmogorov_smirnov
from emi_models.errors import TrainingError
from emi_models.training.config import TrainConfig
from emi_models.training.published import PUBLISHED
from emi_models.training.reproduce import make_table, whose
from emi_models.training.rows import Made, written
from emi_models.training.tables import PAPERS, find_table
from tests.models.training.papers_folder import paper_settings, write_papers_folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_papers_folder(tmp_path_factory.mktemp("papers") / "data")


def make(system: str, number: int, folder: Path, out: Path, **options: Any) -> Made:
    options = {"settings": paper_settings(system), "devices": ["cpu"], **options}
    return make_table(*find_table(system, number), folder, out, **options)


def test_two_rows_next_to_the_papers_figures(folder: Path, tmp_path: Path) -> None:
    made = make("semantic_matters", 1, folder, tmp_path, only=["baseline, vision", "† text"])
    baseline, all_clips = made.rows
    assert (baseline.yours, baseline.row.published) == ((None, None), (None, 0.09))
    assert "baseline" in baseline.why
    assert all_clips.why == ""
    assert all_clips.yours == (None, None)
    assert any("predictions.csv" in note for note in all_clips.notes)
    run = tmp_path / "runs" / "tv-all"
    lines = (run / "predictions.csv").read_text().splitlines()
    assert tuple(lines[0].split(",")) == OFFICIAL_HEADER
    assert [line[:5] for line in lines[1:]] == ["00024", "00025", "00026"]
    header = read_header(run / "checkpoint.safetensors")
    assert (header.modalities, header.notes["use"]) == (("vision", "text"), "train+valid")
    page = (tmp_path / "table-1.md").read_text()
    assert "synthetic" in page
    assert "cannot be compared" not in page or not made.theirs
    assert "0.7060" in page
    assert json.loads((tmp_path / "table-1.json").read_text()) == made.to_json()


def test_what_is_made_is_not_made_again_and_a_run_is_not_lost(folder: Path, tmp_path: Path) -> None:
    first = make("taemi", 3, folder, tmp_path, only=["without MD"])
    assert first.rows[0].yours[0] is not None
    with pytest.raises(TrainingError, match="--resume"):
        make("taemi", 3, folder, tmp_path, only=["without MD"])
    checkpoint = tmp_path / "runs" / "no-dropout" / "checkpoint.safetensors"
    before = checkpoint.stat().st_mtime_ns
    again = make("taemi", 3, folder, tmp_path, only=["without MD"], resume=True)
    assert again.rows == first.rows
    assert checkpoint.stat().st_mtime_ns == before
    other = paper_settings("taemi")
    other["training"]["max_epochs"] = 2
    failed = make("taemi", 3, folder, tmp_path, only=["without MD"], resume=True, settings=other).rows[0]
    assert (failed.failed, failed.yours) == (True, (None,))
    assert "another run" in failed.why


def test_a_row_without_its_features_says_which(folder: Path, tmp_path: Path) -> None:
    row = make("two_stage", 3, folder, tmp_path, only=["GTE, MLP"], features={"gte": "mine"}).rows[0]
    assert not row.failed
    assert "mine" in row.why
    assert "--features gte=" in row.why
    with pytest.raises(TrainingError, match="'nonsense'"):
        make("two_stage", 3, folder, tmp_path, only=["nonsense"], resume=True)


def test_statistics_of_the_data(folder: Path, tmp_path: Path) -> None:
    clips = open_clips(folder)
    parts = make("taemi", 1, folder, tmp_path).rows
    assert [row.yours[1] for row in parts] == [15, 9, 3, 27]
    assert parts[3].yours[0] == pytest.approx(
        sum(sum(clips.durations_s(s)) for s in ("train", "valid", "test"))
    )
    assert written("hours", parts[0].row.published[0]) == "15:07:03"
    train = make("two_stage", 1, folder, tmp_path).rows[0]
    assert train.yours[0] == 15
    means = np.array(train.yours[5:], np.float64)
    assert np.allclose(means, clips.targets("train").mean(axis=0), atol=1e-6)
    shift = make("two_stage", 2, folder, tmp_path).rows
    for column, row in enumerate(shift):
        one, other = clips.targets("train")[:, column], clips.targets("valid")[:, column]
        assert row.row.name == EMOTIONS[column]
        assert row.yours[0] == pytest.approx(100 * (one == 0).mean())
        assert row.yours[2] == pytest.approx(stats.ks_2samp(one, other).statistic)


def test_the_p_value_is_that_of_large_samples() -> None:
    draw = np.random.default_rng(0)
    one, other = draw.random(3000), draw.random(2000) ** 1.05
    expected = stats.ks_2samp(one, other, method="asymp")
    statistic, p = kolmogorov_smirnov(one, other)
    assert statistic == pytest.approx(expected.statistic)
    assert p == pytest.approx(expected.pvalue, rel=0.05)
    assert kolmogorov_smirnov(one, one) == (0.0, 1.0)


def test_only_the_official_clips_are_the_papers(folder: Path) -> None:
    description, theirs = whose(open_clips(folder))
    assert not theirs
    assert "synthetic" in description


def test_dual_stage_aligns_with_words_that_its_network_is_not_shown(folder: Path, tmp_path: Path) -> None:
    row = make("dual_stage", 2, folder, tmp_path, only=["ViT (ours)"]).rows[0]
    assert row.why == ""
    assert row.yours[0] is not None
    run = tmp_path / "runs" / "vision"
    header = read_header(run / "checkpoint.safetensors")
    assert (header.modalities, header.config["align_text"]) == (("vision",), True)
    assert list(json.loads((run / "measures.json").read_text())["stages"]) == ["align", "fusion"]
    gone = make(
        "dual_stage",
        2,
        folder,
        tmp_path,
        only=["ViT (ours)"],
        resume=True,
        features={"bert-base": "a", "gte": "b"},
    )
    assert "text features" in gone.rows[0].why


@pytest.mark.parametrize("system", PAPERS)
def test_each_row_has_figures_and_a_run_or_a_reason(system: str) -> None:
    paper = PAPERS[system]
    runs: dict[str, Any] = {}
    for table in paper.tables:
        for row in table.rows:
            assert len(row.published) == len(table.columns), (table.number, row.name)
            assert any(figure is not None for figure in row.published)
            if table.statistics:
                continue
            assert (row.run is None) == bool(row.why), row.name
            if row.run is not None:
                assert runs.setdefault(row.run.name, row.run) == row.run, row.run.name
                TrainConfig.model_validate(row.run.settings)


def test_tables_agree_with_what_emi_eval_shows() -> None:
    """A figure that is shown as of a table stands in that table."""
    papers = {
        "TAEMI": "taemi",
        "Two-Stage": "two_stage",
        "Dual-Stage": "dual_stage",
        "Semantic": "semantic_matters",
    }
    for row in PUBLISHED:
        system = next(name for start, name in papers.items() if row.source.startswith(start))
        _, table = find_table(system, int(row.source.rpartition("Table ")[2].split()[0].rstrip(",;")))
        figures = {figure for each in table.rows for figure in each.published}
        assert {row.valid, row.test} <= figures | {None}, row


@pytest.mark.slow
def test_a_row_is_the_same_in_a_process_of_its_own(folder: Path, tmp_path: Path) -> None:
    there = make("taemi", 4, folder, tmp_path / "two", only=["audio"], devices=["cpu", "cpu"])
    here = make("taemi", 4, folder, tmp_path / "one", only=["audio"])
    assert there.rows[0].why == ""
    assert there.rows[0].yours == here.rows[0].yours
