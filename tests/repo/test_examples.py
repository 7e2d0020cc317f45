"""The programs in examples/, and the code of the pages about extending and messages, run."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

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
    assert len(text.splitlines()) < 50


@pytest.mark.slow
@pytest.mark.assets
def test_pictures_and_sound_are_pushed(assets: Path) -> None:
    output = run(EXAMPLES / "embed.py", FAST, model_dir=assets / "mediapipe")
    assert output.count("joy 0.") == 10


@pytest.mark.slow
@pytest.mark.assets
def test_a_file_is_scored(assets: Path) -> None:
    clip = assets / "face" / "pyfeat_single_face.mp4"
    output = run(EXAMPLES / "score_file.py", clip, FAST, "window.hop_s=0.5", model_dir=assets / "mediapipe")
    assert output.count("mean 0.") == len(EMOTIONS)


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
    output = run("-c", "\n".join([*blocks, code_of("connect.md")[1]]))
    assert "estimates to lines" in output
    assert "['start']" in output
    assert "frame 4: (120, 160, 3), 4 overwritten" in output
    assert output.count("tracked: live missing") == 3
    assert "alert: joy" in output
    assert "sink: " in output
