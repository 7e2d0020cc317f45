"""Damaged and lying files through the whole program: the exit code and the last line say what happened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.live.end_to_end.support import emi_live

pytestmark = [pytest.mark.assets, pytest.mark.slow]
FILES = 20


def test_a_stream_that_breaks_down_gives_exit_1_and_the_last_line(assets: Path) -> None:
    run = emi_live(assets, "--input", assets / "faults/mutated_segfault.mp4", backend="none")
    assert run.exit_code == 1
    assert len(run.lines) >= 5
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "its sound could be read to" in last


def test_a_track_that_is_not_there_is_bad_use(assets: Path) -> None:
    clip = assets / "faults/default_track_second.mkv"
    run = emi_live(assets, "--input", clip, "--audio-track", "fr", backend="none")
    assert run.exit_code == 2
    assert "has no audio track fr; give the number or language of one of these: 1 (aac" in run.stderr


def test_damaged_files_neither_hang_nor_kill_the_program(assets: Path, tmp_path: Path) -> None:
    """Some of the files of `tools/fuzz_media.py`; the models are loaded once."""
    tool = ROOT / "tools" / "fuzz_media.py"
    out = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, tool, "--n", str(FILES), "--seed", "11", "--fast", "--limit", "120", "--out", out],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env={**os.environ, "EMI_TEST_ASSETS": str(assets), "EMI_MODEL_DIR": str(assets / "mediapipe")},
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"{FILES} files, seed 11, fast mode: {FILES} good" in done.stdout


def test_a_file_that_is_cut_off_is_said_once(assets: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.mkv", tmp_path / "cut.mkv"
    clip = assets / "av/face_and_speech.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-i", clip, "-c", "copy", whole], check=True)
    cut.write_bytes(whole.read_bytes()[:150_000])
    run = emi_live(assets, "--input", cut, backend="none")
    assert run.exit_code == 0
    assert run.stderr.count("cut off") == 1
