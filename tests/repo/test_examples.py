"""The programs in examples/, and the code of the pages about extending and messages, run."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from emi_models import EMOTIONS

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
FAST = "speech.backend=none"  # the recogniser takes most of the time to load


def run(*command: str | Path, model_dir: Path | None = None) -> str:
    environment = {**os.environ} if model_dir is None else {**os.environ, "EMI_MODEL_DIR": str(model_dir)}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def published(*options: str) -> Iterator[str]:
    """The demo, publishing; gives the address with the port that was chosen."""
    program = Path(sys.executable).with_name("emi-live")
    command = [str(program), "--demo", "--no-ui", "--publish", "tcp://127.0.0.1:*", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as server:
        assert server.stderr is not None
        try:
            yield next(line.split()[-1] for line in server.stderr if "estimates on" in line)
        finally:
            server.terminate()
            server.stderr.read()


def code_of(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def short(client: str, address: str) -> str:
    """A page's client of this address, ended after three messages."""
    return client.replace("tcp://127.0.0.1:5561", address).replace("while True:", "for _ in range(3):")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith('"""')
    assert len(text.splitlines()) < 90
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert f"]({path.name})" in listed


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "clip", "settings", "pattern"),
    [
        ("laptop", "face/pyfeat_single_face.mp4", ("source.input={}",), r"joy +0\.\d\d █+\nvision +live"),
        ("microphone", "speech/LJ001-0002.wav", ("source.input={}",), r"2\.0 s  \w+ 0\.\d\d"),
        ("robot_loop", "face/pyfeat_single_face.mp4", ("{}",), r"tick \d+: joy 0\.\d\d, 0\.\d\d s ago"),
        ("asyncio_app", "face/pyfeat_single_face.mp4", ("{}",), r"1\.2 s: joy 0\.\d\d from vision"),
    ],
)
def test_a_program_shows_a_clip(
    assets: Path, name: str, clip: str, settings: tuple[str, ...], pattern: str
) -> None:
    """A clip in place of the devices, as a user may have it too."""
    given = [setting.format(assets / clip) for setting in settings]
    output = run(EXAMPLES / f"{name}.py", *given, FAST, model_dir=assets / "mediapipe")
    assert re.search(pattern, output), output


@pytest.mark.slow
@pytest.mark.assets
def test_a_folder_has_a_table_for_each_clip_and_names_the_bad_one(assets: Path, tmp_path: Path) -> None:
    shutil.copy(assets / "face/pyfeat_single_face.mp4", tmp_path / "a.mp4")
    (tmp_path / "b.wav").write_bytes(b"no sound")
    output = run(EXAMPLES / "clips.py", tmp_path, FAST, model_dir=assets / "mediapipe")
    assert output.count("a.mp4: ") == len(EMOTIONS)
    assert "b.wav: left out" in output
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()))
    assert max(float(row["joy"]) for row in rows) > 0.4  # he smiles
    assert not (tmp_path / "b.csv").exists()


@pytest.mark.slow
@pytest.mark.assets
def test_markers_of_a_study_land_in_its_recording(assets: Path, tmp_path: Path) -> None:
    clip = f"source.input={assets / 'av/face_and_speech.mp4'}"
    session = tmp_path / "session.mcap"
    output = run(EXAMPLES / "study.py", session, clip, "mode=live", FAST, model_dir=assets / "mediapipe")
    found = re.findall(r"(\d\.\d) s  (fixation cross|picture 1|picture 2) +joy 0\.\d+", output)
    assert [label for _, label in found] == ["fixation cross", "picture 1", "picture 2"]
    assert [float(t) for t, _ in found] == sorted(float(t) for t, _ in found)


@pytest.mark.slow
@pytest.mark.assets
def test_the_model_of_the_bot_is_told_once_how_the_caller_seems(assets: Path) -> None:
    """With the voice activity detection and the turns of pipecat itself."""
    clip = assets / "speech/LJ001-0002.wav"
    output = run(EXAMPLES / "pipecat_bot.py", clip, FAST, model_dir=assets / "mediapipe")
    system, told = map(ast.literal_eval, output.splitlines())
    assert system["role"] == "system"
    assert re.fullmatch(r"The user seems: .+ \(from voice\)", told["content"])


@pytest.mark.slow
@pytest.mark.assets
def test_a_participant_of_a_room_is_watched(assets: Path) -> None:
    """The tracks, streams and frames of LiveKit's own library, but no server: see docs/connect.md."""
    output = run(
        ROOT / "tests/support/livekit_room.py",
        assets / "face/pyfeat_single_face.mp4",
        model_dir=assets / "mediapipe",
    )
    lines = [json.loads(line) for line in output.splitlines()]
    assert len(lines) == 8
    assert any(line["modalities"]["vision"]["used"] for line in lines)  # it came lying, and was turned
    assert lines[-1]["modalities"]["audio"]["state"] == "missing"
    assert lines[-1]["modalities"]["audio"]["reason"] == "silence"


@pytest.mark.slow
@pytest.mark.assets
def test_the_notebook_runs_and_keeps_a_small_figure(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = EXAMPLES / "notebook.ipynb"
    assert path.stat().st_size < 60_000
    notebook = nbformat.read(path, as_version=4)
    monkeypatch.setenv("EMI_CLIP", str(assets / "face/pyfeat_single_face.mp4"))
    monkeypatch.setenv("EMI_SETTINGS", FAST)
    monkeypatch.setenv("EMI_MODEL_DIR", str(assets / "mediapipe"))
    kept = [[output["output_type"] for output in cell.get("outputs", ())] for cell in notebook.cells]
    done = NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
    shown = [
        [output["output_type"] for output in cell.get("outputs", ()) if output.get("name") != "stderr"]
        for cell in done.cells
    ]
    assert shown == kept  # what the file shows is what it does
    assert "display_data" in {kind for cell in shown for kind in cell}


@pytest.mark.slow
def test_a_sink_of_ones_own_gets_the_estimates(tmp_path: Path) -> None:
    run(EXAMPLES / "own_sink.py", tmp_path / "out.csv")
    header, *rows = csv.reader((tmp_path / "out.csv").read_text().splitlines())
    assert header == ["t_s", *EMOTIONS]
    assert rows
    assert float(rows[-1][0]) >= 3.0  # more if the machine was too slow for the last hop


@pytest.mark.slow
def test_a_published_stream_is_read_by_the_example_and_the_client_of_the_page() -> None:
    with published() as address:
        shown = run(EXAMPLES / "read_stream.py", address, "--count", "3")
        read = run("-c", short(code_of("messages.md")[1], address))
    assert len(shown.splitlines()) == len(read.splitlines()) == 3


@pytest.mark.slow
def test_a_stream_with_keys_is_read_likewise(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    subprocess.run(
        [Path(sys.executable).with_name("emi"), "keys", "--output", keys], check=True, capture_output=True
    )
    with published("--config", str(keys)) as address:
        shown = run(EXAMPLES / "read_stream.py", address, "--keys", keys, "--count", "3")
        client = short(code_of("messages.md")[2], address)
        read = run("-c", client.replace("keys.toml", str(keys)))
    assert len(shown.splitlines()) == len(read.splitlines()) == 3


def test_an_estimate_becomes_json_in_python_as_the_page_about_messages_says() -> None:
    lines = run("-c", code_of("messages.md")[0]).splitlines()
    assert {json.loads(line)["schema"] for line in lines} == {1}


@pytest.mark.slow
@pytest.mark.assets
def test_packets_are_read_as_the_page_about_messages_says(assets: Path) -> None:
    output = run("-c", code_of("messages.md")[3], model_dir=assets / "mediapipe")
    assert "estimate 0 " in output


@pytest.mark.slow
def test_the_code_about_extending_runs() -> None:
    """One block after the other in one process: they share the loading of libraries."""
    blocks = code_of("extending.md")
    assert len(blocks) == 4
    output = run("-c", "\n".join([*blocks, *code_of("connect.md")[1:]]))
    assert "estimates to lines" in output
    assert "['start']" in output
    assert "frame 4: (120, 160, 3), 4 overwritten" in output
    assert output.count("tracked: live missing") == 3
    assert "alert: joy" in output
    assert "sink: " in output
