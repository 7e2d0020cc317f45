"""The commands for settings, and for the keys that some settings need.

`emi config`: show the settings in effect, list all settings, and explain one.
`emi keys`: make a CURVE key pair for a bus or a publisher that other machines may reach.
"""

from __future__ import annotations

import json
import os
from difflib import get_close_matches
from pathlib import Path
from shutil import get_terminal_size
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emi_live.addresses import safe_text
from emi_live.cli.errors import DebugOption
from emi_live.cli.options import complete_preset
from emi_live.errors import ConfigurationError
from emi_models.console import printable

if TYPE_CHECKING:
    from rich.table import Table

    from emi_live.config import Setting

__all__ = ["app", "keys_app", "write_private"]

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Show the settings in effect, list all settings, and explain one.",
    epilog="Set one with [bold]emi-live --set KEY=VALUE[/bold], or several in a TOML file for "
    "[bold]--config FILE[/bold].",
)

keys_app = typer.Typer(
    add_completion=False, help="Make a CURVE key pair for addresses that other machines can reach."
)

PRESET = """\
# CURVE keys of one emi-live. A client with this file can read its estimates: keep it private.
# Use it as: emi-live --config THIS_FILE. A ZeroMQ client sets curve_serverkey and curve_publickey to the
# public key, and curve_secretkey to the secret key.
[bus]
curve_public_key = "{public}"
curve_secret_key = "{secret}"
"""

HIDDEN = "(hidden)"


def complete_setting(incomplete: str) -> list[str]:
    """The full names of settings that begin with this text."""
    return [setting.name for setting in _settings() if setting.name.startswith(incomplete)]


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@app.callback(invoke_without_command=True)
def config(context: typer.Context) -> None:
    """Show the help when no command is named."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def show(
    preset: Annotated[
        str | None,
        typer.Option(
            "--config",
            help="A preset's name or a TOML file.",
            metavar="PRESET|FILE",
            autocompletion=complete_preset,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting, e.g. window.hop_s=0.1. Repeatable.", metavar="KEY=VALUE"),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show each setting: its value, its default if that differs, and where the value comes from.

    Example: [bold]emi config show --config robot --set window.hop_s=0.1[/bold]
    """
    from emi_live.config import load_config, origins

    settings = set_ or ()
    effective = load_config(preset, settings)
    origin = origins(preset, settings)
    rows = [
        {
            "name": setting.name,
            "value": _plain(setting, setting.value_in(effective)),
            "default": _plain(setting, setting.default),
            "from": origin.get(setting.name, "default"),
        }
        for setting in _settings()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = _table("setting", "value", "default", "from")
    for row in rows:
        changed = row["value"] != row["default"]
        # Colour is not needed to read a changed row: its default and origin show the same.
        table.add_row(
            row["name"],
            _words(row["value"]),
            _words(row["default"]) if changed else "",
            "" if row["from"] == "default" else printable(row["from"]),
            style="bold" if changed else None,
        )
    _print(table)


@app.command("list")
def list_settings(
    section: Annotated[
        str | None, typer.Argument(help="Only the settings of this section.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the settings: type, limits and default. Example: [bold]emi config list speech[/bold]."""
    found = [each for each in _settings() if section is None or each.section == section]
    if not found:
        sections = dict.fromkeys(each.section for each in _settings() if each.section)
        raise ConfigurationError(f"no section is called {section!r}; there are: {', '.join(sections)}")
    if as_json:
        typer.echo(json.dumps([_as_json(each) for each in found], indent=2))
        return
    table = _table("setting", "type and limits", "default")
    for each in found:
        table.add_row(each.name, each.kind, _words(each.default))
    _print(table)


@app.command()
def explain(
    key: Annotated[
        str,
        typer.Argument(help="The full name of a setting.", metavar="KEY", autocompletion=complete_setting),
    ],
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what one setting does. Example: [bold]emi config explain window.hop_s[/bold]."""
    settings = {setting.name: setting for setting in _settings()}
    if key not in settings:
        close = get_close_matches(key, settings, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigurationError(f"unknown setting {key!r}; {hint}`emi config list` shows all")
    setting = settings[key]
    if as_json:
        typer.echo(json.dumps(_as_json(setting), indent=2))
        return
    typer.echo(setting.name)
    for line in wrap(setting.description, get_terminal_size().columns - 2):
        typer.echo(f"  {line}")
    typer.echo(f"  type:    {setting.kind}")
    typer.echo(f"  default: {_words(setting.default)}")


def _settings() -> list[Setting]:
    from emi_live.config import LiveConfig, settings_of

    return list(settings_of(LiveConfig))


def _as_json(setting: Setting) -> dict[str, Any]:
    return {
        "name": setting.name,
        "type": setting.kind,
        "default": _plain(setting, setting.default),
        "description": setting.description,
    }


def _plain(setting: Setting, value: Any) -> Any:
    """A value for JSON, without secrets (keys, and passwords in addresses)."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return HIDDEN if setting.secret else safe_text(str(value))


def _words(value: Any) -> str:
    """A value as in TOML, without quotes, safe to show on a terminal."""
    if value is None:
        return "unset"
    return str(value).lower() if isinstance(value, bool) else printable(value)


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")
    return table


def _print(table: Table) -> None:
    from rich.console import Console

    Console(markup=False, highlight=False).print(table)


@keys_app.callback(invoke_without_command=True)
def keys(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write to this new file (readable only by you) instead of the screen."
        ),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Make a CURVE key pair, as a preset for --config.

    For example: emi keys --output keys.toml && emi-live --camera 0 --config keys.toml
    """
    from emi_live.ports import make_pair  # here, so that `emi --help` does not load ZeroMQ

    pair = make_pair()
    # Z85 has no character that must be escaped in TOML strings
    text = PRESET.format(public=pair.public.decode(), secret=pair.secret.decode())
    if output is None:
        typer.echo(text, nl=False)
        return
    write_private(output, text)
    typer.echo(f"wrote {output}; use it as --config {output}")


def write_private(path: Path, text: str) -> None:
    """Write a new file that only its owner can read.

    Raises:
        ConfigurationError: the file exists, or cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigurationError(f"{path} exists: remove it first, or name another file") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}; name another file") from error
    with open(descriptor, "w", encoding="ascii") as stream:
        stream.write(text)
