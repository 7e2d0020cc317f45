"""`emi predict`: the challenge's file from a folder and one or several checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from emi_live.cli.errors import run_app
from emi_live.cli.evaluate import predict_app as app
from emi_models.training.fit import fit
from tests.live.cli.clip_folder import write_folder
from tests.models.training.sets import MemorySet, memory_set, random_clips, unrated
from tests.models.training.small import small

HEADER = "Filename,Admiration,Amusement,Determination,Empathic Pain,Excitement,Joy"
CLIPS = memory_set(16, 8)
CLIPS = MemorySet(splits={**CLIPS.splits, "test": [unrated(c) for c in random_clips(4, prefix="test")]})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("clips"), CLIPS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    return fit("taemi", CLIPS, run, small("taemi", max_epochs=1, threads=1)).checkpoint


def predict(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        run_app(app, [*map(str, args), "--device", "cpu"], "emi predict")
    return ended.value.code, *capsys.readouterr()


def test_a_file_for_the_challenge(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "predictions.csv"
    twice = ("--checkpoint", checkpoint, "--checkpoint", checkpoint, "--data", data)
    code, said, told = predict(capsys, *twice, "--out", out)
    assert (code, said) == (0, f"wrote 4 clips to {out}\n")
    assert "mean of 2 checkpoints" in told
    lines = out.read_text().splitlines()
    assert lines[0] == HEADER
    assert [line.partition(",")[0] for line in lines[1:]] == [f"test00{k}" for k in range(4)]
    code, said, _ = predict(capsys, "--checkpoint", checkpoint, "--data", data, "--out", "-")
    assert (code, said) == (0, out.read_text())
    code, _, told = predict(capsys, *twice, "--out", out)
    assert (code, "--force" in told) == (2, True)


def test_a_rated_split_shows_its_score(
    data: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("--checkpoint", checkpoint, "--data", data, "--out", "-", "--split", "valid")
    code, _, told = predict(capsys, *args)
    assert code == 0
    assert "on the 8 rated clips" in told


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--split", "evaluation"), "'evaluation'"),
        (("--out", "/nowhere/p.csv"), "/nowhere/p.csv"),
        (("--checkpoint", "nothing.safetensors"), "nothing.safetensors"),
        (("--data", "nowhere"), "nowhere"),
        (("--vision", "faces"), "vision"),
    ],
)
def test_bad_use_is_one_line_and_exit_code_2(
    args: tuple[str, ...], message: str, data: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said, told = predict(capsys, "--checkpoint", checkpoint, "--data", data, "--out", "-", *args)
    assert (code, said) == (2, "")
    assert message in told.splitlines()[-1]
