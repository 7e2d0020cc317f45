"""`emi compile` as it is typed: TensorRT-RTX builds plans without a GPU; and what is said when it cannot."""

from __future__ import annotations

import json
import signal
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from rich.console import Console

from emi_engine import EngineError
from emi_engine.tensorrt.plans import Manifest, Plan
from emi_live.cli.compile import app, building, tell_plan
from emi_live.cli.errors import run_app
from emi_models.checkpoint import content_hash
from emi_models.networks.taemi import TaemiConfig
from tests.engine.conftest import write_checkpoint
from tests.models.networks.zoo import SMALL

pytest.importorskip("tensorrt_rtx_bindings", reason="the extra tensorrt-rtx has wheels for Linux x86-64 only")


class Compile:
    """`emi compile --engine tensorrt-rtx` in this process: its exit code, output and errors."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *args: object, engine: str = "tensorrt-rtx") -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            run_app(app, ["--engine", engine, *map(str, args)], "emi compile")
        said = self.capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all, so that each network is exported once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def emi_compile(capsys: pytest.CaptureFixture[str], cache: Path, monkeypatch: pytest.MonkeyPatch) -> Compile:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return Compile(capsys)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TaemiConfig(shapes=SMALL, d_model=16, mlp_hidden=16)
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small.safetensors", config)


@pytest.mark.slow
def test_a_plan_is_built_found_again_refused_and_built_anew(
    emi_compile: Compile, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "small.plan"
    asked = ("--checkpoint", checkpoint, "--out", out)
    code, said, complained = emi_compile(*asked, "--target", "sm89", "--target", "SM86")
    assert (code, complained) == (0, "")
    lines = said.splitlines()
    assert lines[0].startswith(f"{out} was built in ")
    assert lines[1].startswith(f"  fp16, batch 1, checkpoint {content_hash(checkpoint)[:12]}…, ")
    assert lines[2] == "  runs on sm86, sm89"
    assert lines[3].startswith("  fp16 changes an intensity by ")
    metadata = json.loads(out.with_name("small.plan.json").read_text())
    assert (metadata["precision"], metadata["batch"], metadata["targets"]) == ("fp16", 1, ["sm86", "sm89"])
    first = out.read_bytes()

    code, said, _ = emi_compile(*asked, "--target", "sm89", "--target", "sm86")
    assert (code, out.read_bytes()) == (0, first)
    assert "nothing to do" in said

    code, said, complained = emi_compile(*asked, "--target", "sm120")
    assert (code, said, out.read_bytes()) == (1, "", first)
    assert "refused" in complained
    assert "sm120" in complained
    assert complained.count("\n") == 1

    code, said, _ = emi_compile(*asked, "--target", "sm120", "--force")
    assert code == 0
    assert "  runs on sm120" in said
    assert json.loads(out.with_name("small.plan.json").read_text())["targets"] == ["sm120"]


@pytest.mark.slow
def test_without_out_it_goes_into_the_cache_and_a_damaged_one_is_refused(
    emi_compile: Compile, checkpoint: Path, cache: Path
) -> None:
    assert emi_compile("--checkpoint", checkpoint)[0] == 0
    (plan,) = (cache / "emi-live" / "plans").glob("*.plan")
    assert "exists already" in emi_compile("--checkpoint", checkpoint)[1]
    plan.write_bytes(plan.read_bytes()[:1000])
    code, _, complained = emi_compile("--checkpoint", checkpoint)
    assert code == 1
    assert "--force" in complained
    assert emi_compile("--checkpoint", checkpoint, "--force")[0] == 0
    assert "exists already" in emi_compile("--checkpoint", checkpoint)[1]


def test_bad_use_is_one_line(emi_compile: Compile, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.plan").write_bytes(b"")
    given = ("--checkpoint", checkpoint)
    cases = [
        ((*given, "--target", "sm90"), 2, "cannot build fp16 for sm90; choose from sm75, "),
        (
            (*given, "--precision", "bf16", "--target", "sm75"),
            2,
            "cannot build bf16 for sm75; choose from sm80",
        ),
        ((*given, "--target", "sm89"), 2, "give a file with --out"),
        ((*given, "--batch", "0"), 2, "a batch of 0 windows cannot be built; choose from 1 to 1024"),
        ((*given, "--precision", "int8"), 2, "'int8' is not one of"),
        (("--checkpoint", tmp_path / "gone"), 2, "cannot be found"),
        ((*given, "--out", checkpoint / "x.plan"), 2, "cannot be made: "),
        ((*given, "--out", tmp_path / "empty.plan"), 1, "empty.plan.json cannot be read: No such file"),
    ]
    for args, expected, words in cases:
        code, said, complained = emi_compile(*args)
        assert (code, said) == (expected, ""), args
        assert words in complained
        assert complained.startswith("error: ")
        assert complained.count("\n") == 1


def test_what_cannot_be_built_here_says_what_is_missing(emi_compile: Compile, checkpoint: Path) -> None:
    code, _, complained = emi_compile("--checkpoint", checkpoint, "--refit")
    assert code == 1
    assert "refittable" in complained
    code, _, complained = emi_compile("--checkpoint", checkpoint, engine="tensorrt")
    assert code == 1
    assert "pip install" in complained


def test_ctrl_c_ends_a_build_without_an_exception_inside_the_library() -> None:
    went_on: list[bool] = []

    def build() -> None:
        with building(Console(stderr=True, quiet=True)) as progress:
            went_on.append(progress(1, 2, "tactics"))
            signal.raise_signal(signal.SIGINT)
            went_on.append(progress(2, 2, "tactics"))
            raise EngineError("the build was canceled")  # as the library has it

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build()
    assert went_on == [True, False]
    assert signal.getsignal(signal.SIGINT) is before


def test_compile_is_registered() -> None:
    assert "compile" in entry_points(group="emi.commands").names


def test_a_manifest_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    origin = {"library": "tensorrt", "library_version": "10", "precision": "fp16", "batch": 1, "targets": ()}
    of_a_gpu = {"gpu": "GPU\x1b]0;owned\x07", "capability": "sm89", "refittable": False, "shapes": SMALL}
    hashes = dict.fromkeys(("checkpoint_sha256", "onnx_sha256", "plan_sha256"), "\x1b[2J")
    manifest = Manifest(**origin, **of_a_gpu, **hashes, created="today")  # type: ignore[arg-type]
    tell_plan(Plan(tmp_path / "a\x1b[31m.plan", manifest, b""), "exists already")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "GPU\\x1b]0;owned\\x07" in out
    assert "a\\x1b[31m.plan" in out
