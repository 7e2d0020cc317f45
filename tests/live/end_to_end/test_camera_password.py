"""A camera's password reaches no output of the program: view, picture, lines, log, traces, errors."""

from __future__ import annotations

import os
import pty
import subprocess
import threading
from pathlib import Path

import pytest

from emi_live.cli.errors import run_app
from emi_live.cli.live import app
from tests.live.end_to_end.support import PROGRAM, environment
from tests.support.webcam import jpeg, web_camera

TYPED = "hunter2pw"  # what nobody else should see
QUICK = ("--mic", "none", "--offline", "--debug", "--set", "speech.backend=none")


def drain(terminal: int, into: bytearray) -> None:
    try:
        while piece := os.read(terminal, 65_536):
            into += piece
    except OSError:  # EIO: the program has closed its end
        pass


@pytest.mark.slow
@pytest.mark.assets
def test_no_output_of_a_run_holds_the_password(assets: Path, tmp_path: Path) -> None:
    def parts(index: int) -> bytes | None:
        return jpeg(index) if index < 60 else None  # then it is lost, and said so

    lines, picture, screen = tmp_path / "out.jsonl", tmp_path / "view.svg", bytearray()
    with web_camera(parts, user=f"me:x@{TYPED}") as server:
        address = server.url(f"cam.mjpg?user=me&pwd={TYPED}", user=f"me:x@{TYPED}")
        command = [PROGRAM, "--camera", address, *QUICK, "--duration", "4"]
        command += ["--json", str(lines), "--picture", str(picture)]
        ours, theirs = pty.openpty()
        reader = threading.Thread(target=drain, args=(ours, screen))
        reader.start()
        program = subprocess.Popen(
            command,
            stdout=theirs,
            stderr=subprocess.PIPE,
            env={**environment(assets), "TERM": "xterm", "COLUMNS": "160", "LINES": "40"},
        )
        os.close(theirs)
        _, errors = program.communicate(timeout=120)
        reader.join(10.0)
        os.close(ours)
        host = f"127.0.0.1:{server.server_address[1]}"
    assert program.returncode in (0, 1), errors.decode()  # 1: it was gone at the very end
    assert host in screen.decode("utf-8", "replace")  # the view does say what it watches
    assert host in picture.read_text(encoding="utf-8")
    assert "trying again" in errors.decode()
    assert lines.read_text(encoding="utf-8").count("\n") >= 15
    for output in (bytes(screen), errors, lines.read_bytes(), picture.read_bytes()):
        assert TYPED.encode() not in output


@pytest.mark.parametrize(
    "arguments",
    [
        ("--camera", f"http://me:{TYPED}@127.0.0.1:9/cam?token={TYPED}"),
        ("--camera", f"http:/me:{TYPED}@127.0.0.1:9/cam"),
        ("--camera", f"me:{TYPED}@127.0.0.1/cam"),
        ("--camera", f"nosuch://me:{TYPED}@127.0.0.1/cam"),
        ("--input", f"https://me:{TYPED}@127.0.0.1/clip.mp4?key={TYPED}"),
        ("--demo", "--camera", f"http://me:{TYPED}@127.0.0.1:9/cam"),
        ("--set", f"source.cam=rtsp://me:{TYPED}@127.0.0.1/"),
        ("--set", f"camera.fps=rtsp://me:{TYPED}@127.0.0.1/"),
        ("--set", f"rtsp://me:{TYPED}@127.0.0.1/"),
        ("--config", f"rtsp://me:{TYPED}@127.0.0.1/"),
        (f"--rtsp://me:{TYPED}@127.0.0.1/",),
    ],
)
def test_no_error_holds_the_password(capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_app(app, [*arguments, *QUICK], "emi-live")
    assert ended.value.code in (2, 3)
    output = capfd.readouterr()
    assert output.err.splitlines()[-1].startswith("error: ")
    assert TYPED not in output.err + output.out
