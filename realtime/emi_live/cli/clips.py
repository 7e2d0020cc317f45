"""What `emi train` and `emi eval` share: opening a folder of clips, and saying what is wrong in one line."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from emi_live.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console

    from emi_models.data.clip import ClipSet

__all__ = ["bad_use", "check_data", "open_data", "training_installed"]

EXTRA: Final = frozenset({"lightning", "matplotlib", "torchmetrics"})


@contextmanager
def training_installed() -> Iterator[None]:
    """Turn an import that fails for lack of the extra `train` into what to install.

    Raises:
        ConfigurationError: the extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA:
            raise
        raise ConfigurationError(f'{package} is not installed; install "emi-live[train]"') from error


@contextmanager
def bad_use() -> Iterator[None]:
    """Report what clips or a training can be blamed for as bad use, exit code 2."""
    from emi_models.errors import DataError, TrainingError

    try:
        yield
    except (DataError, TrainingError) as error:
        raise ConfigurationError(str(error)) from error


def check_data(folder: Path, labels: Path | None = None) -> None:
    """Return if the folder looks like clips and the ratings' file is there; nothing is loaded for it.

    Raises:
        ConfigurationError: it does not, or they are not.
    """
    from emi_models.data.opening import check_folder

    with bad_use():
        check_folder(folder)
    if labels is not None and not labels.exists():
        raise ConfigurationError(f"--labels {labels} is not there; give a CSV of ratings")


def open_data(folder: Path, console: Console, options: dict[str, Any]) -> ClipSet:
    """The clips of a folder, with a bar while features are converted.

    Args:
        folder: in emi-live's layout or Hume-Vidmimic2's.
        console: where the bar is drawn, if it is a terminal.
        options: of `emi_models.data.open_clips`; None = not given.

    Raises:
        DataError: it has neither layout, or is damaged.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

    from emi_models.data import open_clips

    given = {name: value for name, value in options.items() if value is not None}
    columns = (TextColumn("convert {task.description}"), BarColumn(), MofNCompleteColumn())
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def converted(name: str, done: int, total: int) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name, total=total)
            progress.update(bars[name], completed=done)

        return open_clips(folder, progress=converted, **given)
