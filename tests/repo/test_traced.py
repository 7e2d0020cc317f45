"""Nothing leaves the machine, and nothing is written but in our own folders: each command, under strace.

The commands run in a network namespace that has loopback and nothing else, with an empty home and without
`CI`, with which some libraries send nothing; without a UTF-8 locale too, since it costs no more. Culprits
run next to them, which the same reader has to catch.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from emi_models import EMOTIONS
from tests.live.cli.clip_folder import write_folder
from tests.models.training.sets import memory_set
from tests.support.strace_output import CALLS, RAY_FAULT, Report, read_trace

CLIP: Final = "av/face_and_speech.mp4"
CLIP_S: Final = 2
PEER: Final = Path(__file__).parents[1] / "support" / "rtc_peer.py"
BOT: Final = Path(__file__).parents[2] / "examples/pipecat_bot.py"
PORT: Final = 8090  # of the camera: the namespace is ours
LIMIT_S: Final = 240  # against hanging; all together take about half a minute
STRACE: Final = ("strace", "-f", "-yy", "--seccomp-bpf", "-e", f"trace={CALLS}", "-o")
RECORDED: Final = ("--no-ui", "--offline", "--json")
QUICK_TRAINING: Final = ("--set", "training.max_epochs=1", "--set", "network.d_model=16")

# Onnxruntime's look-up came 9 s after its import: the show goes on for longer than that.
LONG: Final = "11"
COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "help": ("emi", "--help"),
    "models": ("emi", "models", "list"),
    "privacy": ("emi", "privacy", "--camera", "0", "--publish", "tcp://127.0.0.1:5561"),
    "demo": (
        *("emi-live", "--demo", "--duration", LONG, "--publish", "tcp://127.0.0.1:5561"),
        *(*RECORDED, "out/demo.jsonl", "--picture", "out/demo.svg"),
    ),
    "input": (
        *("emi-live", "--input", "Küche/ä.mp4", "--set", "speech.backend=pocketsphinx"),
        *(*RECORDED, "out/input.jsonl"),
    ),
    "camera": (
        *("emi-live", "--camera", f"http://127.0.0.1:{PORT}/cam.mjpg", "--mic", "none", "--duration", "2"),
        *(*RECORDED, "out/camera.jsonl", "--set", "speech.backend=none", "--set", "face.backend=mediapipe"),
    ),
    "peers": (
        *("emi-live", "--demo", "--duration", "4", "--no-ui", "--offline", "--metrics", "9464"),
        *("--to", "osc:127.0.0.1:9", "--to", "mqtt:", "--to", "psi:tcp://127.0.0.1:9001"),
        *("--to", "foxglove:8766", "--to", "rerun:out/demo.rrd", "--to", "rerun:"),
    ),
    # pipecat itself, with its own voice activity detection and its model of turns.
    "agent": ("python", str(BOT), "clips/a.mp4", "speech.backend=none"),
    "serve": (
        *("/usr/bin/timeout", "--preserve-status", "--signal", "INT", "20"),
        *(str(Path(sys.executable).with_name("emi")), "serve", "--offline"),
        *("--set", "speech.backend=none"),
    ),
    "extract": (
        *("emi", "extract", "--videos", "clips", "--labels", "ratings.csv", "--out", "out/features"),
        *("--without", "text", "--workers", "1", "--offline"),
    ),
    "score": (
        *("emi", "score", "clips", "--out", "out/scores", "--without", "text", "--workers", "1", "--offline"),
        *("-f", "csv", "-f", "parquet", "-f", "png", "-f", "textgrid", "-f", "elan", "--overlay"),
    ),
    "cluster": (
        *("emi", "extract", "--videos", "clips", "--out", "out/on_ray", "--without", "text"),
        *("--without", "vision", "--workers", "1", "--offline", "--cluster", "auto"),
    ),
    "train": ("emi", "train", "--system", "taemi", "--data", "features", "--out", "out/run", *QUICK_TRAINING),
    "bench": (
        *("emi", "bench", "fusion", "--engine", "onnxruntime-cpu-1t", "--network", "compact", "--batch", "1"),
        *("--n", "10", "--gap-s", "0", "--budget-s", "1", "--parity-windows", "2", "--no-streams"),
        *("--json", "out/bench.json"),
    ),
}
# These two bind ports that others can reach, and say so (docs/decisions/0039). The message of DDS to the
# group 239.255.0.1 is 16 bytes at random, by which it finds out whether multicast works on loopback.
OPEN: Final = (
    "emi-live",
    "--demo",
    "--duration",
    "3",
    "--no-ui",
    "--offline",
    "--to",
    "lsl:",
    "--to",
    "ros2:",
)
OPEN_FAULT: Final = re.compile(
    r"bind to 0\.0\.0\.0 port (0|165\d\d|166\d\d|74\d\d)|sendmsg to 239\.255\.0\.1 .*"
)
CULPRITS: Final[Mapping[str, tuple[str, ...]]] = {
    "looks_up": ("python", "-c", "import socket; socket.gethostbyname('emi-live.example')"),
    "reaches": ("python", "-c", "import socket; socket.create_connection(('192.0.2.1', 443))"),
    "writes": ("python", "-c", "import pathlib; pathlib.Path.home().joinpath('note').write_bytes(b'')"),
    "phones_home": ("python", "-c", "import onnxruntime"),  # as it is, without any package of ours
}
NO_FAULT: Final = re.compile(r"(?!)")
LANES: Final = (
    ("help", "models", "privacy", "input", "camera", "peers", "open"),
    ("demo", "serve"),
    ("cluster",),
    ("extract", "score", "train", "bench"),
    ("agent", *CULPRITS),
)


@dataclass(frozen=True)
class Traced:
    """What became of one command."""

    exit_code: int
    report: Report
    output: str


@dataclass(frozen=True)
class TracedRuns:
    """All commands, and the folder that they ran in."""

    folder: Path
    runs: Mapping[str, Traced]


def namespace() -> list[str]:
    """A command that runs another one without a network; the test is skipped, or fails on CI, without it."""
    for command in (["unshare", "-rn"], ["unshare", "-n"]):
        probe = [*command, *STRACE, os.devnull, "ip", "link", "set", "lo", "up"]
        try:
            tried = subprocess.run(probe, capture_output=True, encoding="utf-8", check=False, timeout=60)
            why = tried.stderr.strip()
        except OSError as error:
            why = str(error)
        else:
            if tried.returncode == 0:
                return command
    message = f"tracing needs Linux with unshare, ip and strace, all allowed to work here: {why}"
    if os.environ.get("EMI_REQUIRE_DEVICES"):
        pytest.fail(message)
    pytest.skip(message)


def script(folder: Path, short: Path) -> str:
    """The lanes of commands, side by side, each command under a strace of its own."""
    bin_ = Path(sys.executable).parent
    camera = shlex.join(
        [
            *("ffmpeg", "-loglevel", "quiet", "-re", "-stream_loop", "-1", "-i", "clips/a.mp4", "-an"),
            *("-c:v", "mjpeg", "-q:v", "4", "-pix_fmt", "yuvj420p", "-f", "mpjpeg", "-listen", "1"),
            f"http://127.0.0.1:{PORT}/cam.mjpg",
        ]
    )
    lines = ["ip link set lo up", f"{camera} </dev/null & camera=$!"]
    lanes = []
    for number, lane in enumerate(LANES):
        lines.append(f"lane{number}() {{")
        for name in lane:
            program, *args = {**COMMANDS, **CULPRITS, "open": OPEN}[name]
            traced = shlex.join([*STRACE, f"{folder}/{name}.trace", str(bin_ / program), *args])
            apart = (
                "env HOME=$PWD/culprit TMPDIR=$PWD/culprit XDG_CACHE_HOME=$PWD/culprit "
                if name in CULPRITS
                else ""
            )
            if name == "cluster":  # a socket of Ray's needs a short path
                apart = f"env TMPDIR={short} "
            if name == "serve":  # by a client that is not traced
                peer = shlex.join([sys.executable, str(PEER), "http://127.0.0.1:8765"])
                lines.append(f"{peer} >peer.out 2>&1 </dev/null &")
            lines.append(f"{apart}{traced} >{name}.out 2>&1 </dev/null; echo $? >{name}.rc")
        lines += ["}", f"lane{number} & pid{number}=$!"]
        lanes.append(f"$pid{number}")
    return "\n".join([*lines, f"wait {' '.join(lanes)}", "kill $camera", "wait"])


@pytest.fixture(scope="module")
def traced(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> TracedRuns:
    """Every command's exit code, output and trace; they run once for all tests."""
    unshare = namespace()
    if shutil.which("ffmpeg") is None:
        pytest.skip("the camera of this test is ffmpeg: sudo apt install ffmpeg")
    folder = tmp_path_factory.mktemp("traced")
    for name in ("clips", "out", "home", "tmp", "run", "culprit"):
        (folder / name).mkdir(mode=0o700)
    cut = ["ffmpeg", "-loglevel", "error", "-t", str(CLIP_S), "-i", str(assets / CLIP), "-c", "copy"]
    subprocess.run([*cut, str(folder / "clips/a.mp4")], check=True)
    (folder / "Küche").mkdir()
    shutil.copy(folder / "clips/a.mp4", folder / "Küche/ä.mp4")
    ratings = f"id,split,{','.join(EMOTIONS)}\na,train,0.1,0.2,0.3,0.4,0.5,0.6\n"
    (folder / "ratings.csv").write_text(ratings, encoding="utf-8")
    write_folder(folder / "features", memory_set(6, 2))
    environ = {
        "PATH": os.environ["PATH"],
        **{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        "HOME": str(folder / "home"),
        "XDG_CACHE_HOME": str(folder / "home/.cache"),
        "XDG_CONFIG_HOME": str(folder / "home/.config"),
        "XDG_DATA_HOME": str(folder / "home/.local/share"),
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "TMPDIR": str(folder / "tmp"),
        "EMI_MODEL_DIR": str(assets / "mediapipe"),
        "OMP_NUM_THREADS": "1",  # as every test (tests/conftest.py)
    }
    with tempfile.TemporaryDirectory(prefix="emi-") as name:
        short = Path(name)
        command = [*unshare, "bash", "-c", script(folder, short)]
        subprocess.run(command, cwd=folder, env=environ, check=True, timeout=LIMIT_S)
        assert list(short.iterdir()) == []
    allowed = [folder / "out", folder / "home/.cache/emi-live", folder / "tmp", folder / "run", short]
    found = {}
    for name in (*COMMANDS, *CULPRITS, "open"):
        with (folder / f"{name}.trace").open(encoding="utf-8", errors="replace") as lines:
            report = read_trace(lines, cwd=folder, allowed=allowed)
        output = (folder / f"{name}.out").read_text(encoding="utf-8", errors="replace")
        found[name] = Traced(int((folder / f"{name}.rc").read_text(encoding="ascii")), report, output)
    return TracedRuns(folder, found)


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_reaches_nobody_and_writes_in_its_own_folders_alone(traced: TracedRuns, name: str) -> None:
    run = traced.runs[name]
    assert run.exit_code == 0, run.output
    assert run.report.calls > 0
    known = RAY_FAULT if name == "cluster" else NO_FAULT
    assert [fault for fault in run.report.faults if not known.fullmatch(fault)] == []


@pytest.mark.assets
@pytest.mark.slow
def test_the_server_was_used_by_webrtc(traced: TracedRuns) -> None:
    assert "an estimate has come" in (traced.folder / "peer.out").read_text(encoding="utf-8")


@pytest.mark.assets
@pytest.mark.slow
def test_lsl_and_dds_bind_what_they_say_and_reach_nobody(traced: TracedRuns) -> None:
    run = traced.runs["open"]
    assert run.exit_code == 0, run.output
    assert run.output.count("open to others") == 2
    assert [fault for fault in run.report.faults if not OPEN_FAULT.fullmatch(fault)] == []
    assert run.report.faults  # the day they bind to loopback, the words have to change


@pytest.mark.assets
@pytest.mark.slow
def test_what_is_left_is_our_cache_and_what_was_asked_for(traced: TracedRuns) -> None:
    home = {path for path in (traced.folder / "home").rglob("*") if path.is_file()}
    ours = {path for path in home if path.is_relative_to(traced.folder / "home/.cache/emi-live")}
    assert home == ours
    assert [path for name in ("tmp", "run") for path in (traced.folder / name).rglob("*")] == []
    assert {path.name for path in (traced.folder / "out").iterdir()} == {
        *("demo.jsonl", "demo.svg", "demo.rrd", "input.jsonl", "camera.jsonl", "features", "run", "scores"),
        *("bench.json", "on_ray"),
    }


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [("looks_up", "looked_up"), ("reaches", "reached"), ("writes", "wrote"), ("phones_home", "wrote")],
)
def test_a_culprit_is_caught(traced: TracedRuns, name: str, kind: str) -> None:
    assert getattr(traced.runs[name].report, kind), traced.runs[name].output
