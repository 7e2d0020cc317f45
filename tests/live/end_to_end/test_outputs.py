"""Where estimates go: a reader that is slow, absent or gone, a disk that is full, and signals."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from emi_live import Estimate, LiveConfig, LiveEngine
from emi_live.errors import ConfigurationError, LiveError, StageError
from emi_live.health import Health
from emi_live.sinks.view import PictureSink
from tests.live.end_to_end.support import PROGRAM, environment

if TYPE_CHECKING:
    from emi_live.sinks import Sink

RATE_HZ = 16_000
LENGTH_S = 2.0
LINES = 100  # of LENGTH_S at a hop of 20 ms


class SlowSink:
    """Takes 30 ms for each of the last estimates: far more in all than `close` waits for a sink."""

    name = "slow"
    finished = False

    def __init__(self, error: Exception | None = None) -> None:
        self.taken = 0
        self.closed = False
        self._error = error

    def open(self) -> None: ...

    def write(self, estimate: Estimate) -> None:
        self.taken += 1
        if self._error is None and self.taken > LINES - 70:
            threading.Event().wait(0.03)

    def idle(self) -> None: ...

    def close(self) -> None:
        if not self.closed and self._error is not None:
            self.closed = True
            raise self._error
        self.closed = True


def pushed(sink: Sink) -> tuple[LiveEngine, Iterator[Estimate]]:
    config = {
        "mode": "exact",
        "window": {"hop_s": LENGTH_S / LINES},
        "speech": {"backend": "none"},
        "face": {"enabled": False},
    }
    engine = LiveEngine(LiveConfig.model_validate(config), sinks=[sink])
    return engine, run(engine)


def run(engine: LiveEngine) -> Iterator[Estimate]:
    with engine as live:
        live.end_video()
        sound = np.random.default_rng(0).normal(0, 0.1, round(LENGTH_S * RATE_HZ)).astype(np.float32)
        live.push_audio(sound, 0, RATE_HZ)
        live.end()
        yield from live.estimates()


@pytest.mark.slow
def test_exact_mode_ends_when_the_slowest_sink_has_the_last_estimate() -> None:
    sink = SlowSink()
    _, estimates = pushed(sink)
    assert sum(1 for _ in estimates) == LINES
    assert sink.taken == LINES
    assert sink.closed


@pytest.mark.parametrize("error", [LiveError("the disk is full"), OSError("the disk is full")])
def test_a_sink_that_fails_as_it_closes_fails_the_run(error: Exception) -> None:
    _, estimates = pushed(SlowSink(error))
    with pytest.raises(LiveError, match="disk") as caught:
        list(estimates)
    assert isinstance(caught.value, StageError) == isinstance(error, OSError)


def test_a_picture_that_cannot_be_written_is_found_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "folder.svg").mkdir()
    for path in ("/proc/view.svg", tmp_path / "folder.svg", tmp_path / "missing" / "view.svg"):
        with pytest.raises(ConfigurationError, match="--picture"):
            PictureSink(Path(path), Health())
    PictureSink(tmp_path / "view.svg", Health())
    assert not (tmp_path / "view.svg").exists()  # until there is something to see


@pytest.fixture(scope="module")
def wave(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from scipy.io import wavfile

    path = tmp_path_factory.mktemp("sound") / "noise.wav"
    noise = np.random.default_rng(0).normal(0, 3000, round(LENGTH_S * RATE_HZ))
    wavfile.write(path, RATE_HZ, noise.astype(np.int16))
    return path


def command(wave: Path, *args: str | Path) -> list[str]:
    fixed = ("--input", wave, "--no-ui", "--offline", "--set", "speech.backend=none", "--set")
    return [PROGRAM, *map(str, (*fixed, f"window.hop_s={LENGTH_S / LINES}", *args))]


@contextmanager
def started(assets: Path, arguments: list[str], **how: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # type: ignore[call-overload]
        arguments, stderr=subprocess.PIPE, env=environment(assets), **how
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_pipe_that_is_read_slowly_gets_every_line(assets: Path, wave: Path) -> None:
    reader, writer = os.pipe()
    with started(assets, command(wave, "--json", "-"), stdout=writer) as process:
        os.close(writer)
        got = os.read(reader, 1)
        assert process.stderr is not None
        # The pipe holds all but the last lines. Nothing is read until the engine has nothing more to do.
        threading.Event().wait(3.0)
        while chunk := os.read(reader, 65536):
            got += chunk
        os.close(reader)
        assert process.wait(60) == 0
    assert [json.loads(line)["seq"] for line in got.splitlines()] == list(range(LINES))


@pytest.mark.slow
def test_outputs_that_fail_end_with_one_line_and_a_code(assets: Path, wave: Path, tmp_path: Path) -> None:
    def tiny_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    def closed_output() -> None:
        os.close(1)

    picture, lines = tmp_path / "view.svg", tmp_path / "out.jsonl"
    for arguments, before, code, words in (
        (("--json", lines), tiny_files, 1, "File too large; choose another"),
        (("--picture", picture), tiny_files, 1, "File too large; choose another"),
        (("--json", "-"), closed_output, 2, "standard output is closed"),
    ):
        done = subprocess.run(
            command(wave, *arguments),
            capture_output=True,
            text=True,
            env=environment(assets),
            preexec_fn=before,  # no thread of this process holds a lock that it needs
            check=False,
            timeout=120,
        )
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert (done.returncode, len(errors)) == (code, 1), done.stderr
        assert words in errors[0]
        assert "Traceback" not in done.stderr


def test_a_pipe_without_a_reader_is_said_and_a_signal_ends_the_wait(
    assets: Path, wave: Path, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with started(assets, command(wave, "--json", pipe)) as process:
        assert process.stderr is not None
        assert b"waiting for a reader of" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
        assert process.stderr.read() == b""


@pytest.mark.slow
def test_a_hang_up_ends_a_run_with_its_summary(assets: Path, wave: Path) -> None:
    reader, writer = os.pipe()
    with started(assets, command(wave, "--json", "-"), stdout=writer) as process:
        os.close(writer)
        lines = b""
        while lines.count(b"\n") < 5:  # it runs
            lines += os.read(reader, 1 << 12)
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 130
        assert process.stderr is not None
        said = process.stderr.read().decode()
    os.close(reader)
    assert re.search(r"^\d+ estimates", said, re.MULTILINE)
    assert "Traceback" not in said
