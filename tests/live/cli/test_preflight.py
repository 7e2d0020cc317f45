"""What cannot work is told of before torch, OpenCV, MediaPipe or transformers are loaded."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emi_live.cli.errors import run_app
from emi_live.cli.live import app
from emi_live.cli.options import check_before_loading, check_new_file, check_out_folder, check_writable
from emi_live.config import load_config
from emi_live.errors import ConfigurationError, SourceError
from emi_models.errors import CheckpointError

# Runs each command in this one process, and tells how it ended and which heavy libraries are loaded by then.
SCRIPT = """
import contextlib, io, json, sys
from importlib.metadata import entry_points
from emi_live.cli.emi import GROUP, run_emi
from emi_live.cli.errors import run_app
from emi_live.cli.live import app
for program, *args in json.loads(sys.argv[1]):
    said = io.StringIO()
    code = None
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            if program == "emi":
                run_emi(args, entry_points(group=GROUP))
            run_app(app, args, program, once=True)
        except SystemExit as ended:
            code = ended.code
    heavy = {"torch", "cv2", "mediapipe", "transformers", "onnxruntime", "lightning"} & set(sys.modules)
    print(json.dumps({"args": args, "code": code, "said": said.getvalue(), "heavy": sorted(heavy)}))
"""


def run_all(commands: list[list[str]]) -> list[dict[str, Any]]:
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=os.environ | {"COLUMNS": "200"},
    ).stdout
    return [json.loads(line) for line in out.splitlines()]


def test_every_error_comes_in_one_line_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    kept, wrong, data = tmp_path / "kept.jsonl", tmp_path / "wrong.safetensors", tmp_path / "data"
    kept.write_text("{}\n")
    wrong.write_text("this is no checkpoint")
    data.mkdir()
    (data / "manifest.csv").write_text("id\n")
    absent, nowhere = str(tmp_path / "absent"), str(tmp_path / "no" / "folder.json")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        wanted: list[tuple[list[str], int, str]] = [
            (["emi-live", "--input", absent], 2, absent),
            (["emi-live", absent], 2, absent),
            (["emi-live", str(tmp_path)], 2, "is a folder"),
            (["emi-live", "a.mp4", "b.mp4"], 2, "b.mp4"),
            (["emi-live", "a.mp4", "--input", "b.mp4"], 2, "two files"),
            (["emi-live", "--input", "a.mp4", "--input", "b.mp4"], 2, "--input is given 2 times"),
            (["emi-live", "http://host/clip.mp4"], 2, "--camera http://host/clip.mp4"),
            (["emi-live", "0"], 2, "--camera 0"),
            (["emi-live", "--camera", "77"], 3, "/dev/video77"),
            (["emi-live", "--demo", "--json", nowhere], 2, "there is no folder"),
            (["emi-live", "--demo", "--json", str(tmp_path)], 2, "it is a folder"),
            (["emi-live", "--demo", "--json", str(kept)], 2, "--append to add to it, or --force"),
            (["emi-live", "--demo", "--picture", "view.png"], 2, ".svg"),
            (["emi-live", "--demo", "--publish", "nonsense"], 2, "not an address"),
            (["emi-live", "--demo", "--publish", busy], 2, "cannot be bound"),
            (["emi-live", "--demo", "--checkpoint", absent], 2, absent),
            (["emi-live", "--demo", "--checkpoint", str(wrong)], 2, str(wrong)),
            (["emi-live", "--demo", "--config", "nonesuch"], 2, "presets:"),
            (["emi-live", "--demo", "--set", "window.hops=1"], 2, "known here"),
            (["emi-live", "--demo", "--engine", "nonesuch"], 2, "fusion.engine"),
            (["emi-live", "--mic", "no such microphone"], 3, "microphone"),
            (["emi", "extract", "--videos", absent, "--out", str(tmp_path / "out")], 2, absent),
            (["emi", "train", "--system", "nonesuch", "--data", str(data), "--out", absent], 2, "dual_stage"),
            (["emi", "train", "--system", "taemi", "--data", absent, "--out", absent], 2, absent),
            (["emi", "train", "--system", "taemi", "--data", str(data), "--out", str(kept)], 2, "is a file"),
            (["emi", "eval", "--checkpoint", str(wrong), "--data", str(data)], 2, str(wrong)),
            (["emi", "compile", "--engine", "tensorrt-rtx", "--checkpoint", absent], 0, ""),
            (["emi", "bench", "live", "--input", absent], 2, absent),
            (["emi", "bench", "live", "--input", str(kept), "--json", nowhere], 2, "there is no folder"),
            (["emi", "bench", "fusion", "--engine", "nonesuch"], 2, "onnxruntime-cpu-1t"),
            (["emi", "bench", "fusion", "--checkpoint", absent], 2, absent),
            (["emi", "bench", "bus", "--json", nowhere], 2, "there is no folder"),
            (["emi", "bench", "systems", "--data", absent], 2, absent),
        ]
        found = run_all([command for command, _, _ in wanted])
    for (command, code, word), ended in zip(wanted, found, strict=True):
        if command[1] == "compile":  # 1 where the library is not installed, 2 where it is
            assert ended["code"] in (1, 2), ended
        else:
            assert ended["code"] == code, ended
        assert ended["said"].startswith("error: "), ended
        assert ended["said"].count("\n") == 1, ended
        assert word in ended["said"], ended
        assert ended["heavy"] == [], ended
    assert kept.read_text() == "{}\n"


def test_a_file_is_emptied_only_when_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    check_new_file("--json", path, False, "--force")  # none is there
    path.touch()
    check_new_file("--json", path, False, "--force")  # nothing is in it
    path.write_text("x")
    with pytest.raises(ConfigurationError, match="--force"):
        check_new_file("--json", path, False, "--force")
    check_new_file("--json", path, True, "--force")
    os.mkfifo(tmp_path / "pipe")
    for harmless in ("-", "/dev/null", tmp_path / "pipe"):
        check_new_file("--json", harmless, False, "--force")
        check_writable("--json", harmless)


def test_append_adds_and_force_replaces(tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    kept.write_text("{}\n")
    for name in ("append", "force"):
        output = {"json_path": str(kept), name: True}
        check_before_loading(load_config(overrides={"output": output}))
    with pytest.raises(ConfigurationError, match="exists"):
        check_before_loading(load_config(overrides={"output": {"json_path": str(kept)}}))


def test_a_folder_to_be_made_may_not_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_out_folder("--out", tmp_path / "a" / "b")
    with pytest.raises(ConfigurationError, match="is a file"):
        check_out_folder("--out", tmp_path / "file" / "b")


def test_a_checkpoint_of_another_bundle_is_refused_by_its_header(tmp_path: Path) -> None:
    from emi_models.checkpoint import packaged_checkpoint

    mine = packaged_checkpoint("compact")
    check_before_loading(load_config(overrides={"fusion": {"checkpoint": mine}}))
    copy = tmp_path / "other.safetensors"
    copy.write_bytes(mine.read_bytes().replace(b"prosody", b"prosodi"))
    with pytest.raises(CheckpointError):
        check_before_loading(load_config(overrides={"fusion": {"checkpoint": copy}}))


def test_an_absent_device_is_no_source(tmp_path: Path) -> None:
    for where in (77, "77", str(tmp_path / "video0")):
        with pytest.raises(SourceError, match="there is no"):
            check_before_loading(load_config(overrides={"source": {"camera": where}}))
    check_before_loading(load_config(overrides={"source": {"camera": "rtsp://host/stream"}}))


def test_strict_refuses_an_engine_that_is_not_installed() -> None:
    from emi_engine.load import runtime_missing

    assert runtime_missing("torch") is None
    assert runtime_missing("onnxruntime") is None
    if (reason := runtime_missing("tensorrt")) is None:
        pytest.skip("TensorRT is installed here")
    config = load_config(overrides={"fusion": {"engine": "tensorrt", "strict": True}})
    with pytest.raises(ConfigurationError) as refused:
        check_before_loading(config)
    assert reason in str(refused.value)


def test_what_is_given_twice_is_no_silent_choice(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_app(app, ["--mode", "live", "--mode", "exact", "--demo"], "emi-live", once=True)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --mode")
    assert error.count("\n") == 1
