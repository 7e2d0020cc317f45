"""`emi extract --data DIR --encoder FOLDER`: features of a data set by an encoder of the user's choice.

From the set's own pictures, sound and words, many clips at a time, on a GPU if there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emi_live.cli.errors import say
from emi_live.cli.options import bad_use
from emi_live.errors import ConfigurationError
from emi_models.console import printable

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from emi_models.data.encode import Encoded
    from emi_models.encoders.hub import HubEncoder

__all__ = ["encode_features"]

SHOWN = 20  # refused clips that are listed


def encode_features(
    data: Path | None,
    encoder: Path,
    name: str | None,
    *,
    source: str | None,
    pooling: str | None,
    device: str,
    batch: int | None,
    allow_remote_code: bool,
    console: Console,
) -> None:
    """Encode a data set's own media into the folder `data`/`name`.

    Raises:
        ConfigurationError: an option is missing or cannot be.
        EmiError: the model cannot be loaded.
    """
    if data is None:
        raise ConfigurationError("--encoder needs --data DIR, the folder with face_images, audio or text")
    if not data.is_dir():
        raise ConfigurationError(f"--data {data} is not a folder; name the data set's")
    if not encoder.is_dir():
        raise ConfigurationError(
            f"--encoder {encoder} is not a folder; `hf download MODEL --local-dir` makes one"
        )
    if pooling not in (None, "cls", "mean"):
        raise ConfigurationError(f"--pooling {pooling}: choose cls or mean")
    name = name or encoder.resolve().name
    if "/" in name or name.startswith("."):
        raise ConfigurationError(f"--name {name} is not the name of a folder below {data}")
    with bad_use():
        with console.status("loading ..."):
            from emi_models.device import choose_device
            from emi_models.encoders.hub import HubEncoder

            chosen = str(choose_device(device))
            loaded = HubEncoder(
                encoder,
                pooling="mean" if pooling == "mean" else "cls" if pooling == "cls" else None,
                device=chosen,
                allow_remote_code=allow_remote_code,
            )
        line = f"{loaded.kind.modality}: {loaded.encoder_id}, {loaded.dim} values, on {chosen}"
        console.print(printable(line), style="dim", markup=False, highlight=False, soft_wrap=True)
        found = _encoded(data, data / name, loaded, source, batch, console)
    _tell(console, data, name, loaded, found)


def _encoded(
    data: Path, out: Path, encoder: HubEncoder, source: str | None, batch: int | None, console: Console
) -> Encoded:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from emi_models.data.encode import encode_set

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=None)
        return encode_set(
            data,
            out,
            encoder,
            source=source,
            batch_size=batch,
            advance=lambda done, total: progress.update(task, completed=done, total=total),
        )


def _tell(console: Console, data: Path, name: str, encoder: HubEncoder, found: Encoded) -> None:
    """Print the result, and the clips that were left out."""
    modality = encoder.kind.modality
    say(
        f"{found.written + found.kept} clips in {data / name} ({found.written} now, {found.kept} before); "
        f"{found.empty} without {modality}"
    )
    lines = [f"{clip_id}: {reason}" for clip_id, reason in found.refused.items()]
    more = [f"… and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    for line in [*lines[:SHOWN], *more]:
        console.print(printable(line), style="yellow", markup=False, highlight=False, soft_wrap=True)
    line = f"use them with: emi train --data {data} --{modality} {name} …"
    console.print(printable(line), style="dim", markup=False, highlight=False, soft_wrap=True)
    if not (found.written or found.kept):
        raise ConfigurationError(f"none of the clips in {data} could be encoded")
