from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points, version

import pytest
from rich.text import Text
from typer.main import get_command

from emi_live.cli.emi import GROUP, run_emi
from emi_live.cli.errors import run_app

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


def every_help() -> list[list[str]]:
    """The arguments of `emi` for the help of each command and subcommand that is installed."""
    found: list[list[str]] = [["--help"]]
    for point in entry_points(group=GROUP):
        loaded = point.load()
        found.append([point.name, "--help"])
        for command in loaded.registered_commands if loaded.registered_callback else ():
            name = command.name or command.callback.__name__.replace("_", "-")
            found.append([point.name, name, "--help"])
    return found


def test_no_help_shows_a_switch_as_if_a_value_had_to_follow(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    helps = every_help()
    assert len(helps) > 15
    for args in helps:
        with pytest.raises(SystemExit) as ended:
            run_emi(args, entry_points(group=GROUP))
        said = capsys.readouterr().out
        assert ended.value.code == 0, args
        assert "Usage: emi" in said, args
        assert "<bool>" not in said.lower(), args
        assert "--help" in said, args


@pytest.mark.parametrize("args", [("bench",), ("models",)])
def test_a_group_alone_prints_its_help(capsys: pytest.CaptureFixture[str], args: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_emi(args, entry_points(group=GROUP))
    assert ended.value.code == 0
    assert f"Usage: emi {args[0]}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("emi ", {"models", "train", "bench"}),
        ("emi models ", {"list", "pull", "verify", "path"}),
        ("emi models pull whisper-b", {"whisper-base.en"}),
        ("emi train --system t", {"taemi", "two_stage"}),
        ("emi bench fu", {"fusion"}),
    ],
)
def test_a_shell_is_offered_commands_options_and_values(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str, offered: set[str]
) -> None:
    words = line.split(" ")
    monkeypatch.setenv("_EMI_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    with pytest.raises(SystemExit):
        run_emi([], entry_points(group=GROUP))
    assert offered <= set(capsys.readouterr().out.split())


def test_emi_live_offers_presets_and_engines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from emi_live.cli.live import app

    monkeypatch.setenv("_EMI_LIVE_COMPLETE", "complete_bash")
    for line, offered in (
        ("emi-live --config ", {"robot", "small"}),
        ("emi-live --engine o", {"onnxruntime"}),
    ):
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        with pytest.raises(SystemExit):
            run_app(app, [], "emi-live")
        assert offered <= set(capsys.readouterr().out.split())


def test_completion_knows_every_system_that_can_be_trained() -> None:
    from emi_live.cli.options import SYSTEMS
    from emi_models.training.papers import RECIPES

    assert tuple(RECIPES) == SYSTEMS


@pytest.mark.parametrize("point", entry_points(group=GROUP), ids=lambda point: point.name)
def test_help_shows_all_that_is_written_of_an_option(point: EntryPoint) -> None:
    """Help is read as Rich's markup, where text in brackets is a style: it would be left out."""
    waiting = [get_command(point.load())]
    while waiting:
        command = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        for option in command.params:
            written = getattr(option, "help", None) or ""
            assert Text.from_markup(written).plain == written
