"""The program on real devices: a microphone on a sound server, a camera on a network that is cut off."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.live.end_to_end.support import HOP_S, PROGRAM, emi_live, environment
from tests.support.pulse import PulseServer
from tests.support.stream import StreamServer
from tests.support.webcam import jpeg, web_camera

pytestmark = [pytest.mark.assets, pytest.mark.slow]

SPOKEN = "and so my fellow americans ask not what your country can do for you"


@contextmanager
def running(assets: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    """The program, which is stopped at the end."""
    options = ["--no-ui", "--json", "-", "--offline", *args]
    program = subprocess.Popen(
        [PROGRAM, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(assets),
    )
    try:
        yield program
    finally:
        program.terminate()
        program.communicate(timeout=20)


def lines_until(
    stream: IO[str] | None, reached: Callable[[dict[str, Any]], bool], most: int
) -> list[dict[str, Any]]:
    """Estimates up to the first that has reached something."""
    assert stream is not None
    seen = []
    for _ in range(most):
        text = stream.readline()
        assert text, "the program ended"
        seen.append(json.loads(text))
        if reached(seen[-1]):
            return seen
    raise AssertionError(f"not reached in {most} estimates; the last: {seen[-1]}")


@pytest.mark.alone
def test_a_microphone_gives_prosody_and_words(
    assets: Path, whisper_base: Path, pulse: PulseServer, tmp_path: Path
) -> None:
    speech = tmp_path / "speech.wav"  # paplay does not play the 24-bit FLAC right
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", assets / "speech/jfk.flac", "-sample_fmt", "s16", speech], check=True
    )

    def state(line: dict[str, Any]) -> str:
        return str(line["modalities"]["audio"]["state"])

    settings = ("window.text_dropout_s=12", f"models.directory={whisper_base.parent}")
    options = [part for setting in settings for part in ("--set", setting)]
    with running(assets, "--mic", "default", *options) as program:
        quiet = lines_until(program.stdout, lambda line: line["t"] >= 1.5, most=20)
        assert state(quiet[-1]) == "missing"
        assert quiet[-1]["modalities"]["audio"]["reason"] == "silence"
        assert quiet[-1]["modalities"]["vision"]["reason"] == "no source"
        pulse.play(speech)
        spoken = lines_until(program.stdout, lambda line: line["t"] >= quiet[-1]["t"] + 13, most=90)
    assert "live" in {state(line) for line in spoken}
    texts = [str(line["modalities"]["text"]["committed"]).lower() for line in spoken]
    heard = set(re.findall(r"[a-z]+", " ".join(texts)))
    assert heard >= set(SPOKEN.split()), heard
    assert max(line["modalities"]["audio"]["frames"] for line in spoken) > 140  # of 150: 3 s


def test_a_camera_that_is_cut_off_comes_back(assets: Path, face_stream: StreamServer) -> None:
    def vision(line: dict[str, Any]) -> str:
        return str(line["modalities"]["vision"]["state"])

    # The server takes one client, once: a stall while models load on a busy machine must not cost it.
    patient = ("--set", "camera.read_timeout_s=20")
    with running(assets, "--camera", face_stream.url, "--mic", "none", *patient) as program:
        seen = lines_until(program.stdout, lambda line: vision(line) == "live" and line["t"] >= 2, most=60)
        face_stream.stop()
        lost = lines_until(program.stdout, lambda line: vision(line) == "failed", most=40)
        assert "trying again" in lost[-1]["modalities"]["vision"]["reason"]
        face_stream.start()
        back = lines_until(program.stdout, lambda line: vision(line) == "live", most=60)
    times = [line["t"] for line in (*seen, *lost, *back)]
    assert all(abs(after - before - HOP_S) < 1e-6 for before, after in itertools.pairwise(times))


@pytest.mark.assets
def test_a_camera_that_stays_away_ends_with_exit_1_and_the_reason(assets: Path) -> None:
    with web_camera(lambda index: jpeg(index) if index < 150 and server.connections == 1 else None) as server:
        run = emi_live(assets, "--camera", server.url(), "--mic", "none", "--duration", "8", backend="none")
    assert run.exit_code == 1
    assert len(run.lines) >= 30  # estimates went on
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("error: the camera was gone at the end: lost")
