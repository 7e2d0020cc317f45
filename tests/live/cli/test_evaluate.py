from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from emi_live.cli.errors import run_app
from emi_live.cli.evaluate import eval_app as app
from emi_models import EMOTIONS
from emi_models.training.fit import fit
from tests.live.cli.clip_folder import write_folder
from tests.models.training.sets import ENCODERS, MemorySet, memory_set, random_clips
from tests.models.training.small import small

CLIPS = memory_set(24, 10)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("clips"), CLIPS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(
        "taemi", CLIPS, tmp_path_factory.mktemp("run"), small("taemi", max_epochs=1, threads=1)
    ).checkpoint


def evaluate(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        run_app(app, [str(arg) for arg in args], "emi eval")
    return ended.value.code, *capsys.readouterr()


def test_tables_for_a_person(data: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = evaluate(capsys, "--checkpoint", checkpoint, "--data", data, "--device", "cpu")
    assert (code, err) == (0, "")
    assert out.startswith("taemi on ")
    assert "; valid; n = 10 clips" in out.splitlines()[0]
    assert "Pearson against seconds shown" in out
    assert "The papers' tables are not shown" in out


def test_json_alone_on_standard_output(
    data: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = evaluate(
        capsys, "--checkpoint", checkpoint, "--data", data, "--json", "-", "--split", "train"
    )
    assert code == 0
    metadata = json.loads(out)
    assert (metadata["system"], metadata["split"], metadata["n"]) == ("taemi", "train", 24)
    assert list(metadata["whole"]["pearson"]) == ["mean", *EMOTIONS]
    assert err.startswith("taemi on ")


def test_json_and_the_curve_in_files(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("--json", tmp_path / "e.json", "--figure", tmp_path / "heard.png")
    code, out, _ = evaluate(capsys, "--checkpoint", checkpoint, "--data", data, *files)
    assert code == 0
    assert out.startswith("taemi on ")
    assert len(json.loads((tmp_path / "e.json").read_text())["prefixes"]) == 5
    assert (tmp_path / "heard.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("--split", "test"),
            "0 rated clips",
        ),
        (("--device", "tpu"), "'tpu'"),
        (("--json", "/nowhere/e.json"), "/nowhere/e.json"),
        (("--checkpoint", "nothing.safetensors"), "nothing.safetensors"),
        (("--data", "nowhere"), "nowhere"),
        (("--nope",), "--nope"),
    ],
)
def test_bad_use_is_one_line_and_exit_code_2(
    args: tuple[str, ...], message: str, data: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = evaluate(capsys, "--checkpoint", checkpoint, "--data", data, *args)
    assert code == 2
    assert err.splitlines()[-1].startswith("error: ")
    assert message in err


def test_clips_of_another_encoder(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(CLIPS, encoders={**ENCODERS, "text": "another/sentence@2"})
    folder = write_folder(tmp_path, other)
    code, _, err = evaluate(capsys, "--checkpoint", checkpoint, "--data", folder)
    assert code == 2
    assert "test/text@1" in err
    assert "another/sentence@2" in err


def test_a_folder_without_a_valid_split_gets_one_and_says_so(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path, MemorySet(splits={"train": random_clips(20)}))
    code, out, _ = evaluate(capsys, "--checkpoint", checkpoint, "--data", folder)
    assert code == 0
    assert "valid: 4 of 20 train clips, drawn with seed 0; people may be in both; n = 4 clips" in out


def test_help_shows_how(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = evaluate(capsys, "--help")
    assert (code, err) == (0, "")
    assert out.lstrip().startswith("Usage: emi eval")
    assert "--json - | jq .whole" in out


def test_what_a_data_set_says_of_itself_cannot_steer_the_terminal(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path, replace(CLIPS, description="clips \x1b]0;owned\x07 [red]of us"))
    code, out, err = evaluate(capsys, "--checkpoint", checkpoint, "--data", folder)
    assert (code, err) == (0, "")
    assert "clips \\x1b]0;owned\\x07 [red]of us" in out
    assert "\x1b" not in out
