"""What cannot be watched is refused in one line with the right exit code; what is merely odd is watched."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.live.end_to_end.support import emi_live

pytestmark = [pytest.mark.assets, pytest.mark.slow]


def refused(assets: Path, *args: str | Path) -> tuple[int, str]:
    run = emi_live(assets, *args)
    assert not run.lines
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("error: ")
    return run.exit_code, lines[0]


def ffmpeg(*args: str | Path) -> None:
    subprocess.run(["ffmpeg", "-y", "-v", "error", *map(str, args)], check=True)


def test_a_folder_a_missing_file_and_two_sources_are_bad_use(assets: Path, tmp_path: Path) -> None:
    assert refused(assets, "--input", tmp_path)[0] == 2
    assert refused(assets, "--input", tmp_path / "absent.mp4")[0] == 2
    assert refused(assets, "--input", "a.mp4", "--demo")[0] == 2
    assert refused(assets)[0] == 2
    assert refused(assets, "--demo", "--set", "window.hops=1")[0] == 2
    assert refused(assets, "--demo", "--checkpoint", assets / "MANIFEST.tsv")[0] == 2
    assert refused(assets, "--demo", "--frobnicate")[0] == 2


def test_a_file_without_media_is_no_source(assets: Path, tmp_path: Path) -> None:
    empty, text = tmp_path / "empty.mp4", tmp_path / "text.mp4"
    empty.touch()
    text.write_text("this is not a film\n" * 100)
    assert refused(assets, "--input", empty)[0] == 3
    assert refused(assets, "--input", text)[0] == 3


def test_a_camera_and_a_microphone_that_do_not_exist_are_no_source(assets: Path) -> None:
    code, line = refused(assets, "--camera", "/dev/video-none")
    assert code == 3
    assert "/dev/video-none" in line
    code, line = refused(assets, "--mic", "no such microphone", "--mode", "live")
    assert code == 3
    assert "microphone" in line


def test_one_picture_gets_one_estimate(assets: Path, tmp_path: Path) -> None:
    clip = tmp_path / "one.mp4"
    ffmpeg("-i", assets / "face/pyfeat_single_face.mp4", "-frames:v", "1", "-an", clip)
    run = emi_live(assets, "--input", clip, backend="none")
    assert run.exit_code == 0, run.stderr
    assert [line["t"] for line in run.lines] == [0.2]
    assert run.lines[0]["modalities"]["vision"]["frames"] == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [("telephone.wav", ("-ar", "8000", "-ac", "1")), ("cinema.mkv", ("-ac", "6", "-c:a", "ac3"))],
)
def test_any_rate_and_layout_of_sound_is_heard(
    assets: Path, tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    ffmpeg("-i", assets / "speech/english_one_two_three.wav", *options, tmp_path / name)
    run = emi_live(assets, "--input", tmp_path / name, backend="none")
    assert run.exit_code == 0, run.stderr
    assert "live" in {state for _, state in run.states("audio")}
    assert run.lines[-1]["modalities"]["audio"]["frames"] > 100
