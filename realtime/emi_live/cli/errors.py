"""How every command ends: one line on stderr with cause and remedy, and an exit code.

Exit codes: 0 done, 1 a check failed or a part of the engine broke down, 2 bad use, configuration or model
files, 3 no usable source, 130 interrupted.
"""

from __future__ import annotations

import sys
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer
from typer.main import get_command

from emi_live.addresses import safe_text
from emi_live.cli import EXIT_INTERRUPTED, raise_interrupts
from emi_live.errors import ConfigurationError, LiveError
from emi_models.console import accept_any_text, own_standard_error, printable
from emi_models.errors import (
    CheckpointError,
    EmiError,
    MissingPackageError,
    ModelIntegrityError,
    ModelUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typer._click.core import Command, Context  # typer's copy of click has no public name

__all__ = [
    "DebugOption",
    "exit_code",
    "report_errors",
    "run_app",
    "say",
    "tidy",
]

EXIT_MODEL: Final = 2

DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def say(line: str) -> None:
    """Print one line on standard output; text from files in it cannot control the terminal."""
    typer.echo(printable(line))


def exit_code(error: EmiError) -> int:
    """The exit code that tells a script what kind of error it was."""
    if isinstance(error, LiveError):
        return error.exit_code
    return (
        EXIT_MODEL
        if isinstance(
            error, CheckpointError | MissingPackageError | ModelIntegrityError | ModelUnavailableError
        )
        else 1
    )


@contextmanager
def report_errors(debug: bool = False) -> Iterator[None]:
    """Turn our own errors and command-line errors into one line on stderr and SystemExit with a code.

    Any other exception is a bug; it passes through, with its traceback.

    Args:
        debug: print the trace of such an error too.
    """
    try:
        raise_interrupts()
        yield
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None
    except EmiError as error:
        if debug:
            typer.echo(safe_text(traceback.format_exc()), err=True, nl=False)
        _fail(str(error), exit_code(error))
    except typer.TyperException as error:  # of the command line: an unknown option, a missing argument
        context = getattr(error, "ctx", None)
        message = error.format_message()
        if context is not None:
            stop = "" if message.endswith((".", "?", "!")) else "."
            message = f"{message}{stop} See `{context.command_path} --help`."
        _fail(message, error.exit_code)
    except typer.Abort:
        raise SystemExit(EXIT_INTERRUPTED) from None


def run_app(
    app: typer.Typer,
    args: Sequence[str] | None = None,
    name: str | None = None,
    debug: bool = False,
    *,
    once: bool = False,
) -> NoReturn:
    """Run a command to its end, reporting errors as `report_errors` does; always raises SystemExit.

    `--debug` anywhere among the arguments shows tracebacks, because an error may come before they are parsed.

    Args:
        app: the commands and options.
        args: what was typed after the name; None = the process's own arguments.
        name: what was typed before that, for the help; None = the process's own name.
        debug: show traces in any case.
        once: an option with one value may be given only once; else the last one counts.
    """
    accept_any_text()
    given = sys.argv[1:] if args is None else list(args)
    own_standard_error()
    with report_errors(debug or "--debug" in given):
        result = tidy(get_command(app), once=once).main(given, prog_name=name, standalone_mode=False)
        raise SystemExit(result if isinstance(result, int) else 0)
    raise AssertionError("unreachable: SystemExit was raised")


def tidy(command: Command, *, once: bool = False) -> Command:
    """The same command and its subcommands, with the behaviour that all our commands share.

    Its help shows no `<bool>` for a switch, because no value follows. `once` is as in `run_app`.
    """
    for parameter in command.params:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = " "
    understand = command.parse_args

    def parse_args(context: Context, args: list[str]) -> list[str]:
        if (help_option := command.get_help_option(context)) is not None:  # made only now
            help_option.metavar = " "
        if once and not context.resilient_parsing:  # while completing: the line is not finished
            _refuse_repeats(command, context, args)
        return understand(context, args)

    command.parse_args = parse_args  # type: ignore[assignment, method-assign]
    for each in getattr(command, "commands", {}).values():
        tidy(each, once=once)
    return command


def _refuse_repeats(command: Command, context: Context, args: list[str]) -> None:
    order = command.make_parser(context).parse_args(args=list(args))[2]
    for parameter in {id(each): each for each in order}.values():
        takes_one = parameter.param_type_name == "option" and not (
            getattr(parameter, "multiple", False)
            or getattr(parameter, "count", False)
            or getattr(parameter, "is_flag", False)
        )
        if takes_one and (times := order.count(parameter)) > 1:
            option = max(parameter.opts, key=len)
            raise ConfigurationError(f"{option} is given {times} times; give it once")


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"error: {printable(safe_text(' '.join(message.split())))}", err=True)
    raise SystemExit(code) from None
