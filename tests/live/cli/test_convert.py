from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from emi_live.cli.errors import run_app
from emi_live.cli.prepare import convert_app as app
from emi_models.data.dataset import ClipWriter
from tests.models.data.folders import INFO, make_clip, make_vidmimic, vectors, write_split
from tests.models.data.pickles import Calls, write_pickle

if TYPE_CHECKING:
    from pathlib import Path


class Convert:
    """`emi convert` in this process: its exit code, output and errors."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            run_app(app, [str(arg) for arg in args], "emi convert")
        said = self.capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err


@pytest.fixture
def convert(capsys: pytest.CaptureFixture[str]) -> Convert:
    return Convert(capsys)


def test_it_says_what_there_is(convert: Convert, tmp_path: Path) -> None:
    code, out, err = convert(make_vidmimic(tmp_path), "--cache", tmp_path / "cache")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "3 clips: 2 train, 1 valid, 0 test",
        "vision: vit, 3 clips, 48 frames of 3 values, 0 clips without",
        "audio: wav2vec2, 3 clips, 400 frames of 4 values, 0 clips without",
        "text: gte, 3 clips, 3 frames of 5 values, 0 clips without",
    ]
    assert (tmp_path / "cache" / "vit" / "00000.safetensors").is_file()
    assert convert(tmp_path, "--cache", tmp_path / "cache") == (0, out, "")


def test_what_is_left_out_is_listed_and_no_failure(
    convert: Convert, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_vidmimic(tmp_path)
    write_split(folder, "valid", {str(number): [0.5] * 6 for number in range(2, 40)})
    for number in range(3, 40):
        write_pickle(folder / "vit" / f"{number:05d}.pkl", Calls(print, number))
    values = vectors(12, 3)
    values[7] = np.nan
    write_pickle(folder / "vit" / "00000.pkl", values)
    code, out, err = convert(folder, "--text", "none")
    assert code == 0
    assert "vision: vit, 3 clips, 47 frames of 3 values, 37 clips without" in out
    assert "text" not in out
    lines = err.splitlines()
    assert lines[0] == "1 frames of vit are NaN or infinite somewhere, and left out"
    assert len([line for line in lines if line.startswith("left out: 000")]) == 20
    assert "left out: 00003.pkl is refused: it asks for builtins.print" in lines[1]
    assert lines[-1] == "… and 17 more are left out; --json lists them all"
    assert caplog.records == []  # it is said once
    metadata = json.loads(convert(folder, "--text", "none", "--json")[1])
    assert len(metadata["modalities"]["vision"]["refused"]) == 37
    assert metadata["modalities"]["vision"]["dropped_frames"] == 1
    assert metadata["clips"] == {"train": 2, "valid": 38, "test": 0}


def test_a_rate_of_faces_that_is_not_the_assumed_one_is_said(convert: Convert, tmp_path: Path) -> None:
    folder = make_vidmimic(tmp_path)
    write_pickle(folder / "vit" / "00001.pkl", vectors(52, 3))  # in 5 s of voice
    assert "a second of voice has 8.2 faces, but 6 are assumed" in convert(folder)[2]
    (folder / "dataset.json").write_text('{"vision_hz": 8}')
    assert convert(folder)[2] == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "has neither manifest.csv, which `emi extract` writes, nor train_split.csv"),
        (("--vision", "dino"), "has neither manifest.csv"),
    ],
)
def test_bad_use_is_one_line(convert: Convert, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    code, out, err = convert(tmp_path, *options)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert words in err
    assert err.count("\n") == 1


def test_our_own_layout_needs_no_conversion(convert: Convert, tmp_path: Path) -> None:
    writer = ClipWriter(tmp_path, INFO)
    writer.write(make_clip("x"))
    writer.write_manifest()
    code, _, err = convert(tmp_path)
    assert code == 2
    assert "already has emi-live's own layout" in err
    code, _, err = convert(tmp_path, "--vision", "vit")
    assert code == 2
    assert "vision is for the other layout" in err
