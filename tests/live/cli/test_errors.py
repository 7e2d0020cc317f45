from __future__ import annotations

from typing import Annotated

import pytest
import typer

from emi_live.cli.errors import DebugOption, exit_code, report_errors, run_app
from emi_live.errors import ConfigurationError, LiveError, SourceError, StageError
from emi_models.errors import CheckpointError, EmiError, ModelIntegrityError, ModelUnavailableError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("x"), 2),
        (SourceError("x"), 3),
        (StageError("x"), 1),
        (LiveError("x"), 1),
        (CheckpointError("x"), 2),
        (ModelUnavailableError("x"), 2),
        (ModelIntegrityError("x"), 2),
        (EmiError("x"), 1),
    ],
)
def test_exit_codes(error: EmiError, code: int) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize("debug", [False, True])
def test_an_error_of_ours_is_one_line(capsys: pytest.CaptureFixture[str], debug: bool) -> None:
    with pytest.raises(SystemExit) as ended, report_errors(debug):
        raise SourceError("camera 7 cannot\nbe opened")
    err = capsys.readouterr().err
    assert ended.value.code == 3
    assert err.splitlines()[-1] == "error: camera 7 cannot be opened"
    assert ("Traceback" in err) is debug


def test_an_interrupt_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, report_errors():
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err == ""


def test_a_fault_of_the_program_keeps_its_trace() -> None:
    with pytest.raises(ZeroDivisionError), report_errors():
        _ = 1 // 0


def end_of(app: typer.Typer, *args: str) -> object:
    with pytest.raises(SystemExit) as ended:
        run_app(app, args, "try")
    return ended.value.code


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()

    @made.command()
    def attempt(how: str, count: Annotated[int, typer.Option()] = 1, debug: DebugOption = False) -> None:
        match how:
            case "source":
                raise SourceError("nothing to see")
            case "interrupt":
                raise KeyboardInterrupt
            case "exit":
                raise typer.Exit(7)
            case "abort":
                raise typer.Abort

    return made


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        (("well",), 0, ""),
        (("source",), 3, "error: nothing to see"),
        (("interrupt",), 130, ""),
        (("abort",), 130, ""),
        (("exit",), 7, ""),
        ((), 2, ". See `try --help`."),
        (("well", "--count", "many"), 2, "error: Invalid value for '--count'"),
    ],
)
def test_a_run_ends_with_a_line_and_a_code(
    app: typer.Typer, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], code: int, line: str
) -> None:
    assert end_of(app, *args) == code
    err = capsys.readouterr().err
    assert line in err
    assert len(err.splitlines()) == bool(line)


def test_debug_anywhere_shows_the_trace(app: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    assert end_of(app, "source", "--debug") == 3
    assert "Traceback" in capsys.readouterr().err
