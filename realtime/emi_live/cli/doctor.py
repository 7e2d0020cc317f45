"""`emi doctor`: say what works on this machine, how fast, and what to type to mend the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from emi_live.cli.errors import DebugOption

if TYPE_CHECKING:
    from rich.console import Console

    from emi_live.cli.checks import Check, Told

__all__ = ["app"]

HELP = """Say what works on this machine, how fast, and what to type to mend the rest.

Looks at cameras, microphones, models, speed, engines, network use, system
libraries and the terminal. Nothing is fetched, sent or stored.

[bold]Examples[/bold]

  emi doctor
  emi doctor --quick             without the timings: some seconds
  emi doctor --json | jq '.checks[] | select(.state != "ok")'

Exit code 0: emi-live would run. 1: a line says fail.
"""
LISTEN_S: Final = 2.0
LISTEN_QUICKLY_S: Final = 0.5
COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Leave the timings out.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")] = False,
    debug: DebugOption = False,
) -> None:
    from rich.console import Console

    console, found = Console(stderr=json_), []  # the status line and what is printed share one
    with console.status("looking …") as status:

        def meter(level_dbfs: float) -> None:
            status.update(f"listening {bar(level_dbfs)} {level_dbfs:.0f} dBFS", spinner="line")

        from emi_live.cli.checks import bar

        for title, checks in sections(quick, meter):
            status.update(f"looking at {title} …")
            if not json_:
                console.print(f"\n{title}", style="bold", markup=False, highlight=False)
            for check in checks:
                found.append((title, check))
                if not json_:
                    _show(console, check)
    states = [check.state for _, check in found]
    runs = "fail" not in states
    if json_:
        checks_ = [{"section": title, **asdict(check)} for title, check in found]
        typer.echo(json.dumps({"schema": 1, "runs": runs, "quick": quick, "checks": checks_}, indent=1))
    else:
        console.print(
            f"\n{states.count('ok')} ok, {states.count('warn')} warnings, {states.count('fail')} failures: "
            f"emi-live {'would run' if runs else 'would not run as it should; mend what failed first'}",
            highlight=False,
        )
    raise typer.Exit(0 if runs else 1)


def sections(quick: bool, meter: Told) -> Iterator[tuple[str, Iterator[Check]]]:
    """Title and checks of each part, in the order in which they are shown; each is made when it is read."""
    from emi_live.cli import checks
    from emi_live.cli.speed import speeds
    from emi_models.store import ModelStore

    store = ModelStore(offline=True)
    listen_s = LISTEN_QUICKLY_S if quick else LISTEN_S
    parts: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("this machine", checks.surroundings),
        ("system libraries", checks.libraries),
        ("cameras", lambda: checks.cameras(quick)),
        ("microphones", lambda: checks.microphones(listen_s, meter)),
        ("models", lambda: checks.models(store)),
        ("engines", checks.engines),
        ("network", lambda: checks.network(store)),
    ]
    if not quick:
        parts.append(("speed here", lambda: speeds(store)))
    for title, make in parts:
        yield title, make()


def _show(console: Console, check: Check) -> None:
    """One line for what is well; else a second one with the command."""
    from rich.text import Text

    line = Text.assemble(
        (f"  {check.state:<5}", COLOURS[check.state]), (f"{check.about}: ", "bold"), check.says
    )
    console.print(line, soft_wrap=not console.is_terminal)
    if check.fix and check.state != "ok":
        console.print(Text(f"       try: {check.fix}", "dim"), soft_wrap=True)
