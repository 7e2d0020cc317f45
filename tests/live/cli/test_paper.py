"""`emi paper`: a table by one command, its figures next to the paper's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from emi_live.cli.errors import run_app
from emi_live.cli.paper import app
from emi_models.training.tables import titles
from tests.live.cli.clip_folder import write_folder
from tests.models.data.folders import make_vidmimic
from tests.models.training.sets import memory_set

DOCS = Path(__file__).parents[3] / "docs" / "papers.md"
SMALL = ("--set", "network.d_model=16", "--set", "network.mlp_hidden=16", "--set", "training.max_epochs=1")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
