from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points, version

import pytest

from emi_live.cli.emi import GROUP, run_emi

MODELS = EntryPoint("models", "emi_live.cli.models:app", GROUP)
GONE = EntryPoint("gone", "no_such_package.cli:app", GROUP)
HOLLOW = EntryPoint("hollow", "emi_live.clock:app", GROUP)


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        run_emi(args, [MODELS, GONE, HOLLOW])
    return ended.value.code, *capsys.readouterr()


@pytest.mark.parametrize("args", [(), ("--help",)])
def test_help_lists_every_command_even_one_that_cannot_be_loaded(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...]
) -> None:
    code, out, err = run(capsys, *args)
    assert (code, err) == (0, "")
    assert "models" in out
    assert "List the models emi-live runs on" in out
    assert "gone" in out
    assert "(not installed completely)" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"emi-live {version('emi-live')}\n", "")


@pytest.mark.parametrize("name", ["gone", "hollow"])
def test_a_command_that_cannot_be_loaded_is_one_line(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, out, err = run(capsys, name, "--help")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: `emi {name}` cannot be loaded from ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("args", [("--debug", "gone"), ("gone", "--debug")])
def test_debug_shows_the_trace(capsys: pytest.CaptureFixture[str], args: tuple[str, ...]) -> None:
    code, _, err = run(capsys, *args)
    assert code == 2
    assert "ModuleNotFoundError: No module named 'no_such_package'" in err
    assert err.splitlines()[-1].startswith("error: ")


def test_an_unknown_command_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "modles")
    assert code == 2
    assert err == "error: No such command 'modles'. Did you mean 'models'? See `emi --help`.\n"


def test_a_command_gets_its_own_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "models", "pull", "--help")
    assert code == 0
    assert "Usage: emi models pull" in out


def test_models_is_registered() -> None:
    assert "models" in entry_points(group=GROUP).names


@pytest.mark.parametrize("args", [["--help"], ["models", "--help"]])
def test_help_imports_no_network_library_and_loads_no_other_command(args: list[str]) -> None:
    script = (
        "import sys\nfrom emi_live.cli.emi import main\n"
        f"sys.argv = ['emi', *{args!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('loaded', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    loaded = set(out.splitlines()[-1].split()[1:])
    assert "emi_live" in loaded
    heavy = {"torch", "numpy", "transformers", "mediapipe", "huggingface_hub", "httpx", "zmq", "cv2"}
    assert not loaded & heavy
