"""Clips on Ray: what is lost with an actor and with a driver, and that the features are those of the pool."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from emi_live.cluster.ray_start import check_address, log_warning
from emi_live.errors import ConfigurationError
from emi_models.data import open_clips
from emi_models.data.clip import Clip

pytest.importorskip("ray")
TASKS = "tests.live.cluster.tasks"
ACTORS = 2


@pytest.fixture(scope="module")
def head() -> Iterator[dict[str, str]]:
    """A head of Ray in a process of its own; the environment in which others can join it."""
    command = [sys.executable, "-m", TASKS, "head"]
    # The workers of a cluster have the environment of their machine, not that of who joins it.
    environ = {**os.environ, "EMI_MODEL_DIR": str(Path(os.environ.get("EMI_TEST_ASSETS", "")) / "mediapipe")}
    with subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address, token = process.stdout.readline().split()
        yield {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "EMI_TEST_HEAD": address}
        process.stdin.close()


def driver(head: dict[str, str], folder: Path, pause_s: float = 0.0) -> subprocess.Popen[str]:
    where = [str(folder / name) for name in ("videos", "out", "log")]
    return subprocess.Popen(
        [sys.executable, "-m", TASKS, head["EMI_TEST_HEAD"], *where, str(pause_s)],
        env=head,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return process.communicate(timeout=120)
    finally:
        process.kill()


def write_videos(folder: Path, *names: str) -> None:
    (folder / "videos").mkdir()
    for size, name in enumerate(names, start=1):
        (folder / "videos" / f"{name}.mp4").write_bytes(b"x" * size)


def test_an_address_is_auto_or_host_and_port() -> None:
    check_address("auto")
    check_address("10.0.0.1:6379")
    for wrong in ("10.0.0.1", "", ":6379", "ray://10.0.0.1:x"):
        with pytest.raises(ConfigurationError, match="HOST:PORT"):
            check_address(wrong)


def test_warnings_of_ray_are_logged_in_one_line_each_and_expected_ones_for_debug_alone(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    many = "WARNING: 8 PYTHON worker processes have been started on node: f0, which is 2x the maximum"
    log_warning({"lines": [many, "A worker died.\n\nWhy: " + 300 * "it was killed "], "pid": "raylet"})
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in said] == ["DEBUG", "WARNING"]
    assert said[1][1].startswith("Ray: A worker died. Why: it was")
    assert all(len(text) <= 210 and "\n" not in text for _, text in said)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_an_actor_that_dies_loses_nothing_and_a_clip_that_kills_is_refused(
    head: dict[str, str], tmp_path: Path
) -> None:
    write_videos(tmp_path, "a", "b", "die", "once", "refuse")
    output, errors = finish(driver(head, tmp_path))
    lines = set(output.splitlines())
    assert {"ready 0 5", "wrote a", "wrote b", "wrote once", "refused refuse.mp4: it is bad"} <= lines, errors
    assert "refused die.mp4: the actor died on it, twice" in lines
    clips = open_clips(tmp_path / "out")
    assert clips.ids("train") == ("a", "b", "once")
    assert [clips.load(name).vision.values.item() for name in ("a", "b", "once")] == [1.0, 2.0, 4.0]
    assert clips.transcript("once") == "words of once"
    assert [path.name for path in (tmp_path / "out/shards").iterdir()] == ["part-000000.parquet"]
    assert list((tmp_path / "out/features").iterdir()) == []


@pytest.mark.slow
def test_a_killed_driver_loses_at_most_the_clip_under_way_in_each_actor(
    head: dict[str, str], tmp_path: Path
) -> None:
    names = [f"clip{number}" for number in range(10)]
    write_videos(tmp_path, *names)
    process = driver(head, tmp_path, pause_s=0.3)
    assert process.stdout is not None
    written = 0
    while written < 3:
        line = process.stdout.readline()
        assert line, "it ended before it was killed"
        written += line.startswith("wrote")
    process.kill()
    process.communicate()
    begun = (tmp_path / "log").read_text(encoding="utf-8").split()
    output, errors = finish(driver(head, tmp_path))
    assert output.count("wrote") >= 1, errors
    assert open_clips(tmp_path / "out").ids("train") == tuple(names)
    twice = [name for name in names if (tmp_path / "log").read_text(encoding="utf-8").split().count(name) > 1]
    assert len(twice) <= ACTORS, (begun, twice)
    assert set(twice) <= set(begun)


@pytest.mark.assets
@pytest.mark.slow
def test_one_process_two_processes_and_two_actors_give_the_same_features(
    head: dict[str, str], assets: Path, tmp_path: Path
) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the clips are cut by ffmpeg: sudo apt install ffmpeg")
    (tmp_path / "videos").mkdir()
    for number in range(2):
        cut = ["ffmpeg", "-loglevel", "error", "-ss", str(number), "-t", "1", "-i"]
        source = str(assets / "av/face_and_speech.mp4")
        subprocess.run([*cut, source, str(tmp_path / f"videos/{number}.mp4")], check=True)
    emi = str(Path(sys.executable).with_name("emi"))
    common = [emi, "extract", "--videos", "videos", "--without", "text", "--offline"]
    environ = {**head, "EMI_MODEL_DIR": str(assets / "mediapipe")}
    ways = {
        "one": ["--workers", "1"],
        "two": ["--workers", "2"],
        "actors": ["--workers", "2", "--cluster", head["EMI_TEST_HEAD"]],
    }
    found: dict[str, list[Clip]] = {}
    for name, options in ways.items():
        command = [*common, *options, "--out", name]
        run = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, check=False)
        assert run.returncode == 0, run.stderr
        clips = open_clips(tmp_path / name)
        found[name] = [clips.load(clip_id) for clip_id in ("00000", "00001")]
    for other in (found["two"], found["actors"]):
        for ours, theirs in zip(found["one"], other, strict=True):
            assert len(ours.vision.t_ns) > 0
            assert len(ours.audio.t_ns) > 0
            for modality in ("vision", "audio"):
                one, two = getattr(ours, modality), getattr(theirs, modality)
                assert one.t_ns.tobytes() == two.t_ns.tobytes()
                assert one.values.tobytes() == two.values.tobytes()


@pytest.mark.parametrize("name", ["extract", "score"])
def test_a_wrong_address_is_one_line(name: str, tmp_path: Path) -> None:
    write_videos(tmp_path, "a")
    where = ["--videos", "videos"] if name == "extract" else ["videos"]
    emi = str(Path(sys.executable).with_name("emi"))
    command = [emi, name, *where, "--out", "out", "--cluster", "nowhere", "--offline", "--without", "text"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert run.returncode != 0
    assert "HOST:PORT" in run.stderr
    assert "Traceback" not in run.stderr
