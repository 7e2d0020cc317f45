"""`emi keys`: a CURVE key pair for a bus or a publisher that other machines may reach."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from emi_live.cli.errors import DebugOption
from emi_live.errors import ConfigurationError

__all__ = ["app"]

app = typer.Typer(
    add_completion=False, help="Make a CURVE key pair for addresses that other machines can reach."
)

PRESET = """\
# CURVE keys of one emi-live. Whoever has this file can read its estimates: keep it private.
# Use it as: emi-live --config THIS_FILE. A ZeroMQ client sets curve_serverkey and curve_publickey to the
# public key, and curve_secretkey to the secret key.
[bus]
curve_public_key = "{public}"
curve_secret_key = "{secret}"
"""


@app.callback(invoke_without_command=True)
def keys(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write to this new file, readable by you only, and not to the screen."
        ),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Make a CURVE key pair, as a preset for --config.

    For example: emi keys --output keys.toml && emi-live --camera 0 --config keys.toml
    """
    from emi_live.bus.curve import make_pair  # here, so that `emi --help` does not load ZeroMQ

    pair = make_pair()
    # Z85 has none of the characters that TOML's strings would need escaped
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
