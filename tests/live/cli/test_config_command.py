import json
from pathlib import Path

import pytest

from emi_live.cli.config import app
from emi_live.cli.errors import run_app


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run_app(app, args, "emi config")
    return int(ended.value.code or 0)


def test_show_tells_value_default_and_origin(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "--config", "robot", "--set", "window.hop_s=0.3", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["window.hop_s"] == {"name": "window.hop_s", "value": 0.3, "default": 0.2, "from": "--set"}
    assert rows["bus.transport"]["from"] == "--config robot"
    assert rows["fusion.engine"]["from"] == "default"


def test_show_prints_no_secret(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    preset = tmp_path / "keys.toml"
    preset.write_text(
        '[bus]\ncurve_secret_key = "s3cret"\n[source]\ncamera = "rtsp://me:pa55@host/x"\n', encoding="utf-8"
    )
    for extra in ([], ["--json"]):
        assert run("show", "--config", str(preset), *extra) == 0
        out = capsys.readouterr().out
        assert "hidden" in out
        assert "s3cret" not in out
        assert "pa55" not in out


def test_show_fits_eighty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("show", "--config", "robot") == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_explain_says_what_a_setting_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", "window.hop_s") == 0
    out = capsys.readouterr().out
    assert "default: 0.2" in out
    assert "Seconds" in out


def test_a_section_is_listed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "rings", "--json") == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == [
        "rings.audio_s",
        "rings.video_frames",
    ]


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("explain", "window.hopp_s"), "window.hop_s"),
        (("list", "windows"), "window"),
        (("show", "--set", "window.hopp_s=1"), "window.hop_s"),
    ],
)
def test_a_wrong_name_is_one_line(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...], word: str
) -> None:
    assert run(*args) == 2
    said = capsys.readouterr().err
    assert word in said
    assert said.count("\n") == 1


def test_a_value_of_a_preset_cannot_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    preset = tmp_path / "evil.toml"
    preset.write_text('[speech]\nmodel = "a\\u001b[31mb"\n', encoding="utf-8")
    assert run("show", "--config", str(preset)) == 0
    out = capsys.readouterr().out
    assert "a\\x1b[31mb" in out
    assert "\x1b" not in out
