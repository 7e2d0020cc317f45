"""A sound server of our own with one null sink, whose monitor is the default microphone.

It uses a socket of its own, so a desktop's sound is left alone. With EMI_REQUIRE_DEVICES=1 its absence is a
failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

SINK = "emi_test"
NEEDED = ("pulseaudio", "pactl", "paplay")
START_S = 10.0


class PulseServer:
    """PulseAudio as a child process; PortAudio of this process sees it as `pulse` and `default`."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "native"
        self._environment = os.environ | {
            "XDG_RUNTIME_DIR": str(folder),
            "XDG_CONFIG_HOME": str(folder),
            "PULSE_SERVER": f"unix:{self._socket}",
        }
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What PULSE_SERVER must be."""
        return self._environment["PULSE_SERVER"]

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self._socket.unlink(missing_ok=True)
        command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]
        command += ["--disallow-exit", "--log-level=error", "--log-target=null"]
        command += ["-L", f"module-native-protocol-unix auth-anonymous=1 socket={self._socket}"]
        command += ["-L", f"module-null-sink sink_name={SINK} rate=48000"]
        self._server = subprocess.Popen(
            command, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        pause = threading.Event()
        for _ in range(round(START_S / 0.1)):
            if self._control("info") == 0:
                return
            pause.wait(0.1)
        self.stop()
        pytest.fail(f"PulseAudio did not answer within {START_S:g} s")

    def stop(self) -> None:
        """Kill the server, as a crash would."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def play(self, sound: Path) -> None:
        """Play a sound file into the sink, to its end."""
        subprocess.run(
            ["paplay", f"--device={SINK}", str(sound)], check=True, env=self._environment, timeout=120
        )

    def _control(self, *arguments: str) -> int:
        return subprocess.run(
            ["pactl", *arguments], env=self._environment, capture_output=True, timeout=10
        ).returncode


def missing() -> str | None:
    """Why there can be no sound server here; None if there can."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent:
        packages = "pulseaudio pulseaudio-utils libasound2-plugins"
        return f"{', '.join(absent)} not installed: sudo apt install {packages}"
    return None


@pytest.fixture
def pulse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulseServer]:
    """A running sound server that PortAudio has seen."""
    reason = missing()
    if reason is not None and os.environ.get("EMI_REQUIRE_DEVICES") == "1":
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    server = PulseServer(tmp_path_factory.mktemp("pulse"))
    previous = os.environ.get("PULSE_SERVER")
    os.environ["PULSE_SERVER"] = server.address
    server.start()
    try:
        import sounddevice

        sounddevice._terminate()  # PortAudio lists devices once, and may have done so without the server
        sounddevice._initialize()
        yield server
    finally:
        server.stop()
        if previous is None:
            del os.environ["PULSE_SERVER"]
        else:
            os.environ["PULSE_SERVER"] = previous
