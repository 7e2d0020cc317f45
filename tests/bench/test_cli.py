from __future__ import annotations

import json
from pathlib import Path

import pytest

from emi_bench.cli import app
from emi_live.cli.errors import run_app

NOWHERE = "/nowhere/report.json"


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["live"], 2, "--flash-beep"),
        (["live", "--camera", "0", "--flash-beep"], 2, "--input"),
        (["live", "--camera", "0"], 2, "--duration"),
        (["live", "--flash-beep", "--mic", "default"], 2, "--mic"),
        (["live", "--flash-beep", "--set", "source.input=a.mp4"], 2, "source"),
        (["live", "--flash-beep", "--json", NOWHERE], 2, "/nowhere"),
        (["live", "--flash-beep", "--duration", "0.5"], 2, "--duration"),
        (["live", "--flash-beep", "--duration", "3"], 1, "--duration"),
        (["live", "--input", "/nowhere/clip.mp4"], 2, "clip.mp4"),
        (["bus", "--transport", "pigeon"], 2, "pigeon"),
        (["face", "--input", "/nowhere/clip.mp4"], 2, "clip.mp4"),
        (["face", "--input", "clip.mp4", "--backend", "dlib"], 2, "dlib"),
        (["bus", "--json", NOWHERE], 2, "/nowhere"),
        (["serve", "--input", __file__, "--recognizers", "1"], 2, "--replicas 1"),
        (["serve", "--input", __file__, "--networks", "1"], 2, "--replicas 1"),
    ],
)
def test_bad_use_is_one_line_at_once(
    args: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_app(app, args, "emi bench")
    assert ended.value.code == code
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_the_bus_is_measured_and_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bus.json"
    args = ["bus", "--transport", "ipc", "--n", "100", "--flood", "0.1", "--json", str(path)]
    with pytest.raises(SystemExit) as ended:
        run_app(app, args, "emi bench")
    assert ended.value.code == 0
    report = json.loads(path.read_text())
    assert (report["bench"], report["schema"]) == ("bus", 1)
    assert {hop["transport"] for hop in report["hops"]} == {"ipc"}
    assert [hop["gap_ms"] > 0 for hop in report["hops"]] == [False] * 6 + [True]
    assert report["floods"][0]["received"] > 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
