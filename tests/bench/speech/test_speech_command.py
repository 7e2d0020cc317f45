"""`emi bench speech` as one types it: bad use at once, and a short clip from sound to JSON and page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from emi_bench.cli import app
from emi_bench.report import main as report
from emi_live.cli.errors import run_app

SPHINX = ["--backend", "pocketsphinx", "--set", "models.offline=true"]


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run_app(app, ["speech", *args], "emi bench")
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--clock", "wall"], "wall"),
        (["--clips", "/nowhere"], "/nowhere"),
        (["--backend", "siri"], "speech.backend"),
        (["--backend", "none"], "speech.backend=none"),
        (["--backend", "pocketsphinx", "--model", "tiny.en"], "PocketSphinx"),
        (["--nonstop"], "--minutes"),
        (["--minutes", "1"], "--minutes"),
        (["--json", "/nowhere/report.json"], "/nowhere"),
        (["--face-clip", "/nowhere.mp4"], "--face-clip"),
        (["--set", "speech.speed=3"], "speech.speed"),
        (["--model", "/nowhere/model", "--set", "models.offline=true"], "/nowhere/model"),
    ],
)
def test_bad_use_is_one_line_at_once(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*args) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_without_the_test_media_real_clips_say_where_they_were_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMI_TEST_ASSETS", str(tmp_path))
    assert run("--clips", "real") == 2
    assert "set EMI_TEST_ASSETS" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.assets
def test_a_short_clip_is_measured_whole_and_makes_a_page(
    assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pocketsphinx")
    for suffix in (".wav", ".txt", ".json"):
        shutil.copyfile(assets / f"speech/librivox_sense_0880{suffix}", tmp_path / f"man{suffix}")
    path = tmp_path / "speech.json"
    assert run("--clips", str(tmp_path), *SPHINX, "--json", "-") == 0
    path.write_text(capsys.readouterr().out)
    found = json.loads(path.read_text())
    check_schema(found)
    (clip,) = found["clips"]
    assert (clip["name"], clip["kind"], clip["words"], clip["times"]) == ("man", "yours", 8, "given")
    unaware, aware = clip["heard"]
    assert (unaware["clock"], aware["clock"]) == ("unaware", "aware")
    for heard in (unaware, aware):
        assert heard["committed"] == len(heard["text"].split())
        assert 0 < heard["errors"]["rate"] < 1  # some words, and not all of them
        right = heard["errors"]["words"] - heard["errors"]["substitutions"] - heard["errors"]["deletions"]
        assert len(heard["commit_ms"]) == len(heard["first_seen_ms"]) == right
        assert all(
            seen <= done for seen, done in zip(heard["first_seen_ms"], heard["commit_ms"], strict=True)
        )
        assert heard["broken"] == 0
        assert heard["calls"] > 0
        assert heard["counters"]["speech.utterances"] >= 1
    assert unaware["lag_ms"]["max"] == 0.0
    assert aware["lag_ms"]["max"] > 0.0
    assert 0 < clip["offline"]["errors"]["rate"] < 1
    assert report([str(path), "--out", str(tmp_path / "page")]) == 0
    text = (tmp_path / "page.md").read_text()
    assert "## Speech: pocketsphinx en-us" in text
    assert "| man | given |" in text
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def check_schema(found: dict[str, Any]) -> None:
    assert (found["bench"], found["schema"]) == ("speech", 1)
    assert set(found) == {
        "bench", "schema", "machine", "load_before", "recognizer", "settings", "normalisation", "tail_s",
        "clips", "pooled", "conditions", "face",
    }  # fmt: skip
    assert {"jiwer", "pocketsphinx"} <= set(found["machine"]["packages"])
    assert found["settings"]["backend"] == "pocketsphinx"
    for row in found["pooled"]:
        assert row["commit_ms"]["n"] > 0
        assert row["points_lost"] == pytest.approx(100 * (row["errors"]["rate"] - row["offline"]["rate"]))
        assert row["real_time_factor"] > 0


@pytest.mark.slow
def test_sounds_without_words_give_none_and_other_languages_are_counted() -> None:
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("espeakng_loader")
    from emi_bench.speech.conditions import make_condition
    from emi_bench.speech.run import ClipRunner
    from emi_live.config import SpeechConfig
    from emi_models.speech.sphinx import SphinxRecognizer

    listener = ClipRunner(SphinxRecognizer(), SpeechConfig())
    heard = {
        name: listener.report(make_condition(name, 5.0), ["unaware"], offline=False)
        for name in ("silence", "pink", "music", "german")
    }
    committed = [report.heard[0].committed for report in heard.values()]
    assert committed[:3] == [0, 0, 0]
    assert committed[3] == heard["german"].heard[0].counters["speech.words"] > 0
    assert heard["german"].heard[0].errors.rate is None
    assert all(report.offline is None for report in heard.values())
