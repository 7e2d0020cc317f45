"""`emi NAME …`: find the commands of the installed packages, and load only the one that is called."""

from __future__ import annotations

import ast
import os
import sys
from importlib.metadata import EntryPoint, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from emi_live.cli.errors import DebugOption, report_errors, run_app
from emi_live.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["build_app", "main", "run_emi"]

GROUP: Final = "emi.commands"


def main() -> NoReturn:
    """Run `emi` with the process's arguments; always raises SystemExit."""
    run_emi(sys.argv[1:], entry_points(group=GROUP))


def run_emi(args: Sequence[str], points: Iterable[EntryPoint]) -> NoReturn:
    """Run `emi` with the commands of `points`, and load only the one that is called.

    Always raises SystemExit; entry points that cannot be loaded matter only when they are called.
    """
    commands = {point.name: point for point in points}
    if "_EMI_COMPLETE" in os.environ:  # a shell asks for completions
        run_app(_with_loaded(commands, _typed_command()), args, "emi")
    debug = list(args[:1]) == ["--debug"]
    rest = args[1:] if debug else args
    if rest and rest[0] in commands:  # the usual case: do not build the group of all commands
        _run(commands[rest[0]], rest[1:], debug)
    run_app(build_app(commands.values()), args, "emi")


def _typed_command() -> str:
    """The word after `emi` on the line that the shell completes; bash and the others differ."""
    words = (os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or "").split()
    return words[1] if len(words) > 1 else ""


def _with_loaded(commands: dict[str, EntryPoint], name: str) -> typer.Typer:
    """The group with one loaded command, so that its own options and values can be completed."""
    app = build_app(point for point in commands.values() if point.name != name)
    if name in commands:
        try:
            loaded = commands[name].load()
        except (ImportError, AttributeError):  # a prompt must stay clean
            return app
        if len(loaded.registered_commands) == 1 and loaded.registered_callback is None:
            app.command(name)(loaded.registered_commands[0].callback)
        else:
            app.add_typer(loaded, name=name)
    return app


def build_app(points: Iterable[EntryPoint]) -> typer.Typer:
    """The group of all commands. Each entry point names a `typer.Typer`; none of them is loaded.

    The line on each in the help is read from its module's docstring, without importing the module: the line
    that begins with the command's name, else the first.
    """
    app = typer.Typer(
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        help="Tools for emi-live: models, training, benchmarks. The program itself is [bold]emi-live[/bold].",
        epilog="Examples: [bold]emi doctor[/bold], [bold]emi models list[/bold], "
        "[bold]emi models pull --help[/bold]",
    )
    app.callback(invoke_without_command=True)(_umbrella)
    for point in sorted(points, key=lambda point: point.name):
        # The command's own parser sees all that follows its name, --help included.
        raw = {"allow_extra_args": True, "allow_interspersed_args": False, "ignore_unknown_options": True}
        app.command(point.name, help=_one_line(point), add_help_option=False, context_settings=raw)(
            _forward_to(point)
        )
    return app


def _umbrella(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    debug: DebugOption = False,
) -> None:
    if show_version:
        typer.echo(f"emi-live {version('emi-live')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _forward_to(point: EntryPoint) -> Callable[[typer.Context], None]:
    def forward(context: typer.Context) -> None:
        _run(point, context.args, debug=False)

    return forward


def _run(point: EntryPoint, args: Sequence[str], debug: bool) -> NoReturn:
    with report_errors(debug or "--debug" in args):
        from emi_models.files import library_caches  # here, so that `emi --help` does not load it

        os.environ.update(library_caches(os.environ))
        try:
            app = point.load()
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(
                f"`emi {point.name}` cannot be loaded from {point.value}: {error}; "
                "install the missing package, or reinstall emi-live"
            ) from error
    run_app(app, args, f"emi {point.name}", debug)


def _one_line(point: EntryPoint) -> str:
    try:
        spec = find_spec(point.module)
        source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
        docstring = ast.get_docstring(ast.parse(source))
    except (ImportError, OSError, SyntaxError, ValueError):
        docstring = None
    if not docstring:
        return "(not installed completely)"
    found = (line.partition(f"`emi {point.name}`:")[2].strip() for line in docstring.splitlines())
    text = next(filter(None, found), docstring.partition("\n")[0])
    return text[:1].upper() + text[1:]
