"""The whole benchmark on a checkpoint small enough for a test, where little else is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.main import get_command

from emi_bench.cli import app
from emi_bench.fusion.__main__ import main, options
from emi_bench.fusion.networks import SyntheticStream, open_networks
from emi_bench.fusion.settings import ENGINES, FusionSettings, SettingsError, choose_engines
from emi_models.inputs import FusionShapes
from emi_models.networks.taemi import TaemiConfig
from tests.engine.conftest import write_checkpoint

SHAPES = FusionShapes(vision_frames=12, vision_dim=10, audio_frames=20, audio_dim=9, text_dim=16)
FEW = ["--n", "10", "--parity-windows", "8", "--gap-s", "0.001", "--batch", "1", "--batch", "3",
       "--torch-threads", "1"]  # fmt: skip

# What a bare GPU machine has not: importing any of it is an error there.
BARE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from emi_bench.fusion.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
ABSENT = ("zmq", "cv2", "mediapipe", "pydantic", "rich", "typer", "sounddevice", "av", "onnx", "onnxruntime",
          "transformers", "psutil", "emi_live", "matplotlib")  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TaemiConfig(shapes=SHAPES, d_model=32, heads=4, mlp_hidden=32)
    return write_checkpoint(tmp_path_factory.mktemp("small") / "small.safetensors", config)


@pytest.fixture(scope="module")
def report(small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run where there is nothing but PyTorch and numpy."""
    path = tmp_path_factory.mktemp("report") / "fusion.json"
    command = [sys.executable, "-c", BARE.format(absent=set(ABSENT)), "--checkpoint", str(small), *FEW]
    engines = ["torch-cpu-bf16", "onnxruntime-cpu-1t", "incremental-cpu", "torch-compile-cuda-bf16"]
    chosen = [word for engine in engines for word in ("--engine", engine)]
    done = subprocess.run(
        [*command, *chosen, "--json", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(path.read_text())
    return {**found, "page": done.stdout}


@pytest.mark.slow
def test_it_runs_with_torch_and_numpy_alone_and_says_what_could_not_be_measured(
    report: dict[str, Any],
) -> None:
    assert (report["bench"], report["schema"]) == ("fusion", 1)
    gone = {each["engine"]: each["reason"] for each in report["unavailable"]}
    assert "onnx" in gone["onnxruntime-cpu-1t"]
    if not torch.cuda.is_available():
        assert "no NVIDIA GPU" in gone["torch-compile-cuda-bf16"]
    page = " ".join(report["page"].split())  # without the line breaks of a narrow terminal
    assert all(f"- {engine}: {' '.join(reason.split())}" in page for engine, reason in gone.items())


@pytest.mark.slow
def test_every_case_has_every_engine_that_can_run_and_its_ratio_to_eager(report: dict[str, Any]) -> None:
    found = {
        (row["case"]["task"], row["case"]["batch"], row["case"]["gap_s"] > 0, row["engine"]): row
        for row in report["results"]
        if row["device"] == "cpu"
    }
    windows = {("windows", *key) for key in ((1, False), (1, True), (3, False))}
    streams = {("stream", 1, False), ("stream", 1, True), ("contributions", 1, False)}
    both = {"torch-cpu", "torch-cpu-bf16"}
    assert set(found) == {(*case, engine) for case in windows for engine in both} | {
        (*case, engine) for case in streams for engine in {*both, "incremental-cpu"}
    }
    for (task, batch, sparse, _), row in found.items():
        assert row["wall_ms"]["n"] == row["n_asked"] == 10
        assert (
            row["wall_ms"]["min"]
            <= row["wall_ms"]["median"]
            <= row["wall_ms"]["p99"]
            <= row["wall_ms"]["max"]
        )
        assert row["device_ms"] is None
        assert row["windows_per_s"] == pytest.approx(1e3 * batch / row["wall_ms"]["mean"])
        eager = found[task, batch, sparse, "torch-cpu"]["wall_ms"]["median"]
        assert row["x_eager"] == pytest.approx(row["wall_ms"]["median"] / eager)
        assert (row["floor_ms"] is None) == (task != "windows")
    one, three = (found["windows", batch, False, "torch-cpu"]["floor_ms"] for batch in (1, 3))
    assert one < three <= 3.001 * one


@pytest.mark.slow
def test_each_engine_is_compared_with_the_oracle(report: dict[str, Any]) -> None:
    parity = {(row["engine"], row["task"]): row for row in report["parity"]}
    assert parity["torch-cpu", "windows"]["worst"] == 0.0
    assert 0.0 < parity["torch-cpu-bf16", "windows"]["worst"] <= 5e-3
    assert parity["incremental-cpu", "stream"]["worst"] <= 1e-5
    assert all(row["windows"] >= 8 for row in parity.values())


@pytest.mark.slow
def test_the_page_shows_what_was_found(report: dict[str, Any]) -> None:
    page = report["page"]
    for line in (
        "Small, batch 3, back to back",
        "Small, hop by hop, after 1 ms idle",
        "Floor: ",
    ):
        assert line in page
    assert report["machine"]["processor"] in page


def test_a_stream_brings_new_frames_and_keeps_the_others(small: Path, tmp_path: Path) -> None:
    (subject,) = open_networks(FusionSettings(checkpoint=small), tmp_path)
    source = SyntheticStream(subject)
    before, after = source.window(400), source.window(401)  # on both sides of where the content repeats
    assert (after.audio.start - before.audio.start, after.vision.start - before.vision.start) == (10, 6)
    assert (before.audio.values[10:] == after.audio.values[:-10]).all()
    before.check(SHAPES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n", "1"], "--n"),
        (["--batch", "0"], "--batch"),
        (["--gap-s", "nan"], "nan"),
        (["--network", "bert"], "bert"),
        (["--engine", "magic"], "magic"),
        (["--checkpoint", "no-such-file"], "no-such-file"),
        (["--json", "no/such/folder/file.json"], "no/such/folder"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is said where no GPU is")
def test_a_gpu_that_is_asked_for_and_absent_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cuda"]) == 2
    assert capsys.readouterr().err.startswith("error: there is no GPU that PyTorch can use here; see what")


def test_engines_have_names_of_their_own_and_are_measured_with_what_they_are_compared_with() -> None:
    assert len({engine.name for engine in ENGINES}) == len(ENGINES)
    chosen = choose_engines(FusionSettings(engines=("tensorrt-cuda-fp16", "onnxruntime-cpu-1t")), ("cpu",))
    assert [engine.name for engine in chosen] == [
        "torch-cpu", "onnxruntime-cpu-1t", "torch-cuda-fp32", "tensorrt-cuda-fp16"
    ]  # fmt: skip
    assert "torch-compile-cpu" not in [
        e.name for e in choose_engines(FusionSettings(quick=True), ("cpu", "cuda"))
    ]
    with pytest.raises(SettingsError, match="together"):
        FusionSettings(networks=("taemi",), checkpoint=Path("net.safetensors")).checked()


def test_both_programs_have_the_same_options() -> None:
    """One without typer, for a bare machine, and `emi bench fusion`."""
    bare = {option for action in options()._actions for option in action.option_strings}
    command = get_command(app).commands["fusion"]  # type: ignore[attr-defined]
    typed = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    assert bare - {"-h", "--help"} == typed - {"--streams", "--help", "-h"}
