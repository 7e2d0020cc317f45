"""The base of emi-live is enough for the default bundle; what needs an extra says which, in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emi_models.checkpoint import packaged_checkpoint
from tests.live.end_to_end.support import environment, first_seconds

ROOT = Path(__file__).parents[3]

# What an environment without extras does not have.
TORCH = ("torch", "torchaudio", "transformers", "lightning", "torchmetrics", "onnx", "onnxscript")
PEERS = ("pylsl", "pythonosc", "paho", "cyclonedds", "foxglove", "prometheus_client")
ABSENT = (*TORCH, *PEERS, "mediapipe", "matplotlib")
NO_WORDS = ("--set", "speech.backend=none")  # which take the longest to load

pytestmark = pytest.mark.slow


def without(
    assets: Path, *command: str | Path, absent: tuple[str, ...] = ABSENT
) -> subprocess.CompletedProcess[str]:
    """Run a program, or a file of Python, with these packages out of reach."""
    return subprocess.run(
        [sys.executable, "-m", "tests.support.absent", ",".join(absent), *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        cwd=ROOT,
        env=environment(assets),
    )


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.assets
def test_a_clip_gives_the_same_estimates(assets: Path, tmp_path: Path) -> None:
    clip, runs = first_seconds(assets / "av/face_and_speech.mp4", 3.4, tmp_path), []
    for name, absent in (("base", ABSENT), ("everything", ("no_such_package",))):
        out = tmp_path / f"{name}.jsonl"
        options = ("--mode", "exact", "--no-ui", "--offline", "--duration", "3", "--json", out)
        done = without(assets, "emi-live", "--input", clip, *options, absent=absent)
        assert done.returncode == 0, done.stderr
        runs.append(read(out))
    base, everything = runs
    assert len(base) == len(everything) > 10
    for one, other in zip(base, everything, strict=True):
        assert one["intensities"] == pytest.approx(other["intensities"], abs=1e-5)
        assert one["modalities"] == other["modalities"]
    assert any(line["modalities"]["vision"]["used"] for line in base)  # type: ignore[index]  # JSON


@pytest.mark.assets
def test_the_demo_runs(assets: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo.jsonl"
    done = without(assets, "emi-live", "--demo", "--no-ui", "--offline", "--duration", "3", "--json", out)
    assert done.returncode == 0, done.stderr
    assert {line["engine"] for line in read(out)} == {"onnxruntime-cpu"}


@pytest.mark.assets
def test_a_program_embeds_it(assets: Path) -> None:
    done = without(assets, ROOT / "examples/robot_loop.py", "speech.backend=none")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no face") > 10


@pytest.mark.assets
def test_the_doctor_finds_no_fault_in_what_is_absent(assets: Path) -> None:
    checks = json.loads(without(assets, "emi", "doctor", "--quick", "--json").stdout)["checks"]
    state = {check["about"]: check["state"] for check in checks}
    assert (state["versions"], state["engines"]) == ("ok", "ok")
    (engines,) = (check for check in checks if check["about"] == "engines")
    assert engines["facts"]["here"] == ["onnxruntime"]


@pytest.mark.assets
@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("train", ("emi", "train", "--system", "taemi", "--data", "CORPUS", "--out", "runs")),
        ("train", ("emi", "eval", "--checkpoint", "OWN", "--data", "CORPUS")),
        ("gpu", ("emi-live", "--input", "CLIP", "--checkpoint", "OWN", *NO_WORDS)),
        (
            "gpu",
            ("emi-live", "--input", "CLIP", "--engine", "torch", "--set", "fusion.strict=true", *NO_WORDS),
        ),
        ("taemi", ("emi-live", "--input", "CLIP", "--config", "taemi", "--checkpoint", "OWN", *NO_WORDS)),
        ("gpu", ("emi", "bench", "fusion", "--quick")),
        ("lsl", ("emi-live", "--demo", "--no-ui", "--to", "lsl:")),
        ("osc", ("emi", "watch", "osc:9000")),
        ("mqtt", ("emi", "privacy", "--demo", "--to", "mqtt:")),
        ("ros2", ("emi-live", "--demo", "--no-ui", "--to", "ros2:")),
        ("foxglove", ("emi-live", "--demo", "--no-ui", "--to", "foxglove:")),
        ("metrics", ("emi-live", "--demo", "--no-ui", "--metrics", "9464")),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:2]),
)
def test_one_line_names_the_extra(
    assets: Path, tmp_path: Path, extra: str, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where exports would be found
    places = {
        "CORPUS": tmp_path,
        "CLIP": assets / "face/pyfeat_single_face.mp4",
        "OWN": tmp_path / "own.safetensors",  # without an ONNX next to it
    }
    shutil.copy(packaged_checkpoint("compact"), places["OWN"])
    (tmp_path / "manifest.csv").write_text("", encoding="utf-8")
    done = without(assets, *(places.get(word, word) for word in command))
    assert done.returncode in (1, 2)
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    assert f"emi-live[{extra}]" in line
    assert "Traceback" not in done.stderr


@pytest.mark.assets
def test_a_program_that_records_is_told_the_extra(assets: Path, tmp_path: Path) -> None:
    clip = f"source.input={assets / 'face/pyfeat_single_face.mp4'}"
    done = without(assets, ROOT / "examples/study.py", tmp_path / "s.mcap", clip, absent=("mcap",))
    assert done.returncode == 1
    assert "emi-live[record]" in done.stderr.splitlines()[-1]
