from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from emi_live.cli.errors import run_app
from emi_live.cli.evaluate import eval_app
from emi_live.cli.train import train_app as app
from emi_models import MODALITIES
from emi_models.checkpoint import read_header
from emi_models.data import open_clips
from emi_models.data.clip import Clip, FeatureTrack
from emi_models.encoders import COMPACT_ENCODERS
from emi_models.errors import TrainingError
from emi_models.inputs import FusionShapes
from emi_models.training.config import TrainConfig
from emi_models.training.evaluate import evaluate_checkpoint
from emi_models.training.fit import fit
from emi_models.training.predict import predict_split
from tests.live.cli.clip_folder import write_folder
from tests.models.training.sets import MemorySet, memory_set, random_clips, unrated

SMALL = (
    *("--set", "network.d_model=16", "--set", "network.mlp_hidden=16", "--set", "training.batch_size=8"),
    *("--set", "training.threads=1", "--device", "cpu"),
)
COMMAND = (
    sys.executable,
    "-c",
    "from emi_live.cli.errors import run_app; from emi_live.cli.train import train_app as app; ",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("clips"), memory_set(24, 8))


def train(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        run_app(app, [str(arg) for arg in args], "emi train")
    return ended.value.code, *capsys.readouterr()


def test_one_command_from_a_folder_to_a_checkpoint(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs" / "taemi"
    settings = (*SMALL, "--set", "training.max_epochs=2", "--seed", 4)
    code, said, told = train(capsys, "--system", "taemi", "--data", data, "--out", out, *settings)
    assert (code, said) == (0, f"saved {out}/checkpoint.safetensors\n")
    lines = told.splitlines()
    assert lines[0].endswith("parameters on vision, audio, text; cpu, 32-true, frozen encoders")
    assert "clips are few: network.dropout=0.3 " in lines[2]
    assert lines[3].startswith("fusion: epoch 1/2  valid Pearson ")
    assert f"try: emi eval --checkpoint {out}/checkpoint.safetensors --data {data}" in lines
    header = read_header(out / "checkpoint.safetensors")
    assert header.config["d_model"] == 16
    assert "seed 4" in header.created_by
    assert (out / "curves.png").is_file()


@pytest.mark.slow
def test_what_was_trained_on_compact_features_runs_without_pytorch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = FusionShapes(vision_frames=6, vision_dim=58, audio_frames=9, audio_dim=73, text_dim=384)
    clips = {split: random_clips(8, shapes=shapes, prefix=split) for split in ("train", "valid")}
    data = write_folder(
        tmp_path / "clips",
        MemorySet(splits=clips, shapes=shapes, encoders={m: COMPACT_ENCODERS[m] for m in MODALITIES}),
    )
    out = tmp_path / "run"
    settings = (*SMALL, "--set", "training.max_epochs=1")
    code, said, _ = train(capsys, "--system", "taemi", "--data", data, "--out", out, *settings)
    assert (code, said.split(", ")[0]) == (0, f"saved {out}/checkpoint.safetensors and checkpoint.onnx")
    program = f"""
import sys
from pathlib import Path
sys.modules["torch"] = None
from emi_engine import load_engine
from emi_models.inputs import StreamWindow
with load_engine(Path({str(out / "checkpoint.safetensors")!r}), "auto") as engine:
    print(engine.name, engine.session().infer(StreamWindow.empty(engine.shapes)).shape)
"""
    run = subprocess.run([*COMMAND[:2], program], capture_output=True, text=True, check=False)
    assert run.stdout == "onnxruntime-cpu (1, 6)\n", run.stderr


@pytest.fixture(scope="module")
def compact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips whose vision and audio have the widths and encoders of `compact`, and values as faces have."""
    shapes = FusionShapes(vision_frames=100, vision_dim=58, audio_frames=20, audio_dim=68, text_dim=384)
    random = np.random.default_rng(0)
    splits = {}
    for split, count in (("train", 6), ("valid", 4)):
        splits[split] = [
            Clip(
                f"{split}{number}",
                FeatureTrack(np.arange(100) * 100_000_000, random.random((100, 58), np.float32) * 0.3),
                FeatureTrack.empty(68),
                FeatureTrack.empty(384),
                10_000_000_000,
                random.random(6, np.float32),
            )
            for number in range(count)
        ]
    encoders = {m: COMPACT_ENCODERS[m] for m in MODALITIES}
    clips = MemorySet(splits=splits, shapes=shapes, encoders=encoders)
    return write_folder(tmp_path_factory.mktemp("compact"), clips)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["running", "calibrate"])
def test_a_baseline_changes_what_is_learned_and_is_kept_for_the_scores(
    mode: str, compact: Path, tmp_path: Path
) -> None:
    config = TrainConfig.model_validate(
        {
            "training": {"max_epochs": 1, "threads": 1, "device": "cpu", "recipe": "paper"},
            "network": {"d_model": 16, "mlp_hidden": 16, "modalities": ["vision"]},
        }
    )
    plain = fit("taemi", open_clips(compact), tmp_path / "off", config).checkpoint
    own = fit("taemi", open_clips(compact, baseline=mode), tmp_path / "own", config).checkpoint
    assert read_header(own).notes["baseline"] == mode
    assert "baseline" not in read_header(plain).notes
    before, after = load_file(plain), load_file(own)
    assert any(not torch.equal(before[name], after[name]) for name in before)

    with pytest.raises(SystemExit) as ended:  # the checkpoint says how the clips are opened
        run_app(eval_app, ["--checkpoint", str(own), "--data", str(compact), "--json", str(tmp_path / "e")])
    assert ended.value.code == 0
    scored = json.loads((tmp_path / "e").read_text(encoding="utf-8"))
    made = evaluate_checkpoint(own, open_clips(compact, baseline=mode), "valid")
    assert scored == json.loads(json.dumps(made.to_json()))
    with pytest.raises(
        TrainingError, match=f"trained with --baseline {mode}, these clips are opened with off"
    ):
        evaluate_checkpoint(own, open_clips(compact), "valid")
    with pytest.raises(TrainingError, match="trained with --baseline off"):  # a mean of two baselines
        predict_split([own, plain], open_clips(compact, baseline=mode), "valid")
    with pytest.raises(TrainingError, match=r"holds another run: .*baseline"):
        fit("taemi", open_clips(compact), tmp_path / "own", config, resume=True)


def test_a_baseline_of_another_name_is_bad_use(
    compact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = train(
        capsys, "--system", "taemi", "--data", compact, "--out", tmp_path, "--baseline", "mean"
    )
    assert (code, told) == (2, "error: no baseline is called 'mean'; there are: off, running, calibrate\n")


def test_a_stage_may_have_settings_of_its_own(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = ("shared=8", "d_model=8", "heads=2", "layers=1", "tcn_layers=1", "segments=2")
    settings = ("training.max_epochs=1", "training.stages.align.max_epochs=2", "training.threads=1")
    sets = [word for n in (*(f"network.{n}" for n in network), *settings) for word in ("--set", n)]
    code, _, told = train(capsys, "--system", "dual_stage", "--data", data, "--out", tmp_path / "run", *sets)
    assert code == 0
    assert "align: epoch 2/2" in told
    assert "fusion: epoch 1/1" in told


def test_a_run_is_not_overwritten(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = (
        "--system",
        "taemi",
        "--data",
        data,
        "--out",
        tmp_path,
        *SMALL,
        "--set",
        "training.max_epochs=1",
    )
    assert train(capsys, *command)[0] == 0
    code, _, err = train(capsys, *command)
    assert code == 2
    assert err.endswith("--resume goes on with it, --force throws it away, or name another --out\n")
    assert train(capsys, *command, "--resume")[0] == 0
    assert train(capsys, *command, "--force")[0] == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("--system", "temi"),
            "no system is called 'temi'; there are: taemi, two_stage, dual_stage, semantic_m",
        ),
        (
            ("--set", "training.max_epoch=1"),
            "did you mean training.max_epochs? known here: max_epochs, pat",
        ),
        (
            ("--set", "training.stages.fusion.epochs=1"),
            "did you mean training.stages.fusion.max_epochs? known",
        ),
        (
            ("--set", "training.max_epochs=0"),
            "training.max_epochs: Input should be greater than or equal to 1",
        ),
        (("--set", "training.max_epochs"), "e.g. --set training.max_epochs=1"),
        (("--set", "network.d_modl=1"), "unknown setting 'network.d_modl'; taemi knows: modalities, d_model"),
        (("--set", "network.heads=3"), "d_model 256 is not a multiple of heads 3"),
        (("--set", "training.stages.align.max_epochs=1"), "the stages here are: fusion"),
        (("--device", "tpu"), "no device is called 'tpu'"),
        (("--set", "training.device=tpu"), "no device is called 'tpu'"),
        (("--vision", "vit"), "vision is for"),
    ],
)
def test_bad_use_is_one_line_and_exit_code_2(
    args: tuple[str, ...], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = train(capsys, "--system", "taemi", "--data", data, "--out", tmp_path / "run", *args)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: ")
    assert message in err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_no_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("--system", "taemi", "--out", tmp_path / "run")
    code, _, err = train(capsys, *command, "--data", tmp_path / "nowhere")
    assert code == 2
    assert f"{tmp_path}/nowhere is not a folder" in err
    code, _, err = train(capsys, *command, "--data", tmp_path)
    assert code == 2
    assert "manifest.csv" in err


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([unrated(clip) for clip in random_clips(6)], "0 rated clips to train on"),
        (random_clips(3), "1 rated clips to train on, at least 2 are needed (train has 3 clips, valid 0)"),
    ],
)
def test_too_few_rated_clips(
    clips: list[object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "clips", MemorySet(splits={"train": clips}))  # type: ignore[dict-item]
    code, _, err = train(capsys, "--system", "taemi", "--data", folder, "--out", tmp_path / "run")
    assert code == 2
    assert message in err.splitlines()[-1]


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_that_gives_what_it_would_have(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cut short"
    settings = (*SMALL, "--set", "training.max_epochs=20", "--set", "training.patience=20", "--seed", "2")
    options = ("--system", "taemi", "--data", str(data), "--out", str(out), *settings)
    with subprocess.Popen(
        [*COMMAND[:2], COMMAND[2] + f"run_app(app, {list(options)!r}, 'emi train')"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("fusion: epoch 2/"):
                process.send_signal(signal.SIGINT)
                break
        told = process.stderr.read()
    assert process.returncode == 130
    command = next(line for line in told.splitlines() if line.startswith("stopped; continue with: "))
    words = shlex.split(command.partition(": ")[2])
    assert words[:2] == ["emi", "train"]
    assert words[-1] == "--resume"
    assert train(capsys, *words[2:])[0] == 0
    whole = tmp_path / "whole"
    assert train(capsys, *("--system", "taemi", "--data", data, "--out", whole), *settings)[0] == 0
    a, b = (load_file(folder / "checkpoint.safetensors") for folder in (out, whole))
    assert all(torch.equal(a[name], b[name]) for name in b)


def in_a_process(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["torch", "lightning", "torchmetrics"])
def test_without_the_extra_one_line_says_what_to_install(missing: str, data: Path, tmp_path: Path) -> None:
    options = ["--system", "taemi", "--data", str(data), "--out", str(tmp_path / "run")]
    done = in_a_process(
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from emi_live.cli.errors import run_app; from emi_live.cli.train import train_app as app\n"
        f"run_app(app, {options!r}, 'emi train')"
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"{missing} is not installed" in line
    assert "emi-live[train]" in line


def test_help_waits_for_nothing_and_live_use_never_loads_lightning() -> None:
    done = in_a_process(
        "import sys, emi_live.cli.train\n"
        "print([name for name in ('torch', 'numpy', 'lightning', 'pydantic') if name in sys.modules])\n"
        "import emi_live.live, emi_live.cli.session, emi_models.checkpoint\n"
        "print([n for n in ('lightning', 'torchmetrics', 'matplotlib') if n in sys.modules])\n"
    )
    assert done.stdout.splitlines() == ["[]", "[]"], done.stderr


@pytest.mark.parametrize("args", [("--help",), ("-h",)])
def test_help_shows_how(args: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = train(capsys, *args)
    assert (code, err) == (0, "")
    assert out.lstrip().startswith("Usage: emi train")
    assert "emi train --system taemi --data features --out runs/taemi" in out
