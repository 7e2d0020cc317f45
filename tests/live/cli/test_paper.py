"""`emi paper`: a table by one command, its figures next to the paper's."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from emi_live.cli.errors import run_app
from emi_live.cli.paper import app
from emi_models.checkpoint import read_header
from emi_models.training.tables import PAPERS, titles
from tests.live.cli.clip_folder import write_folder
from tests.models.data.folders import make_vidmimic
from tests.models.training.papers_folder import paper_settings, write_papers_folder
from tests.models.training.sets import memory_set

DOCS = Path(__file__).parents[3] / "docs" / "papers.md"
SMALL = ("--set", "network.d_model=16", "--set", "network.mlp_hidden=16", "--set", "training.max_epochs=1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("clips"), memory_set(16, 8))


def paper(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        run_app(app, [str(arg) for arg in args], "emi paper")
    return ended.value.code, *capsys.readouterr()


def test_all_tables_are_listed_and_documented(capsys: pytest.CaptureFixture[str]) -> None:
    code, said, _ = paper(capsys)
    assert code == 0
    commands = [line.partition("#")[0].strip() for line in said.splitlines()]
    assert len(commands) == len(titles()) == 18
    page = DOCS.read_text(encoding="utf-8")
    assert all(f"`{command}`" in page for command in commands)


def test_two_rows_of_a_table(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("taemi", "--table", 4, "--data", data, "--out", tmp_path, *SMALL, "--device", "cpu")
    rows = ("--rows", "text", "--rows", "audio")
    code, said, told = paper(capsys, *command, *rows)
    assert code == 0
    assert "2/2 taemi: made" in told
    assert re.findall(r"(paper|yours) +-?\d", said) == ["paper", "yours"] * 2
    assert "0.5500" in said
    assert "clips of a test" in said
    assert "nothing here can be compared" in said
    code, said, told = paper(capsys, *command, *rows, "--resume", "--json")
    assert (code, "epoch" in told) == (0, False)
    made = json.loads(said)
    assert [row["name"] for row in made["rows"]] == ["audio-anchored", "text-anchored"]
    assert made == json.loads((tmp_path / "table-4.json").read_text())
    code, _, told = paper(capsys, *command, *rows)
    assert (code, "--resume" in told) == (2, True)
    code, _, told = paper(capsys, *command, *rows, "--force")
    assert (code, "epoch 1/1" in told) == (0, True)


def test_statistics_and_rows_of_others_need_no_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_vidmimic(tmp_path / "data")
    code, said, _ = paper(capsys, "taemi", "--table", 1, "--data", folder, "--out", tmp_path / "a")
    assert (code, "15:07:03" in said, "0:00:07" in said) == (0, True, True)
    code, said, _ = paper(capsys, "semantic_matters", "--table", 4, "--data", folder, "--out", tmp_path / "b")
    assert (code, "BAH" in said) == (0, True)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("taemi",), "--table"),
        (("taemi", "--table", "9", "--data", "DATA"), "1, 2, 3, 4"),
        (("nobody", "--table", "1", "--data", "DATA"), "two_stage"),
        (("taemi", "--table", "3", "--data", "nowhere"), "nowhere"),
        (("taemi", "--table", "3", "--data", "DATA", "--features", "dinov2"), "dinov2=my_faces"),
        (("taemi", "--table", "3", "--data", "DATA", "--set", "training.epochs=1"), "training.epochs"),
        (("taemi", "--table", "3", "--data", "DATA", "--rows", "nonsense"), "nonsense"),
    ],
)
def test_bad_use_is_one_line_and_exit_code_2(
    args: tuple[str, ...], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(data) if arg == "DATA" else arg for arg in args]
    code, said, told = paper(capsys, *given, "--out", tmp_path)
    assert (code, said) == (2, "")
    assert message in told.splitlines()[-1]


def test_a_training_that_fails_is_told_and_counts(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ("--rows", "text", "--device", "cpu", "--set", "network.d_model=15")
    code, said, _ = paper(capsys, "taemi", "--table", 4, "--data", data, "--out", tmp_path, *rows)
    assert (code, "not made" in said, "d_model" in said) == (1, True, True)


def as_options(settings: Mapping[str, Any], path: str = "") -> list[str]:
    """Nested settings as `--set` options."""
    found: list[str] = []
    for name, value in settings.items():
        key = f"{path}{name}"
        found += as_options(value, key + ".") if isinstance(value, dict) else ["--set", f"{key}={value}"]
    return found


# Of tables whose rows differ by the folder of features alone, some.
SOME = {
    ("two_stage", 3): ["DINOv2 face", "linear", "wav2vec2, LSTM", "mean", "BiLSTM", "GTE"],
    ("semantic_matters", 2): ["GTE-Base", "ViT-Huge", "Audeering"],
}
VALIDATED = {"train", "4:1"}  # a run on train+valid has no valid score


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_papers_folder(tmp_path_factory.mktemp("papers") / "data")


def test_two_rows_of_the_official_layout_by_their_command(
    official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = as_options(paper_settings("dual_stage"))
    rows = ("--rows", "Wav2Vec2.0", "--json", "--device", "cpu")
    code, said, told = paper(
        capsys, "dual_stage", "--table", 2, "--data", official, "--out", tmp_path, *small, *rows
    )
    assert (code, "audio: made" in told) == (0, True)
    baseline, ours = json.loads(said)["rows"]
    assert (baseline["yours"], baseline["paper"], "baseline" in baseline["why"]) == ([None], [0.24], True)
    assert (ours["paper"], ours["why"]) == ([0.2734], "")
    assert ours["yours"][0] is not None


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("system", PAPERS)
def test_every_table_by_its_command(
    system: str,
    official: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A picture of each training would take longer than the training; test_train.py has one drawn.
    monkeypatch.setattr("emi_models.training.fit.draw_learning", lambda *_: None)
    given = ("--data", official, "--out", tmp_path, "--resume", "--device", "cpu", "--json")
    small = as_options(paper_settings(system))
    for table in PAPERS[system].tables:
        rows = [word for row in SOME.get((system, table.number), ()) for word in ("--rows", row)]
        code, said, told = paper(capsys, system, "--table", table.number, *given, *small, *rows)
        assert code == 0, told
        found = {row["name"]: row for row in json.loads(said)["rows"]}
        assert rows or len(found) == len(table.rows)
        for row in table.rows:
            if row.name not in found:
                continue
            made = found[row.name]
            assert made["paper"] == list(row.published)
            if table.statistics or row.run is None:
                assert table.statistics or made["why"]
                continue
            assert made["why"] == ""
            measured = [value for value in made["yours"] if value is not None]
            assert len(measured) >= (row.run.use in VALIDATED), made
            assert all(math.isfinite(value) for value in measured)
        if (system, table.number) == ("semantic_matters", 3):
            weights = found["audio+vision+text"]["yours"][1:]
            assert sum(weights) == pytest.approx(1.0)
    if system == "two_stage":
        config = read_header(tmp_path / "runs" / "f4" / "checkpoint.safetensors").config
        assert (config["motion_dim"], config["motion_mask"]) == (23, True)
