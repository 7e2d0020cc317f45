"""A progress bar for models on their way to this machine."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from emi_models.store import Progress, PullEvent

__all__ = ["download_bar"]


@contextmanager
def download_bar(console: Console) -> Iterator[Progress]:
    """A callback for `ModelStore.locate` and `pull`: one bar per model, with speed and time to go.

    Nothing is drawn until the first bytes or words come. One line says which model is fetched, its licence
    and its source, and one each what gets in the way.
    """
    bars: dict[str, TaskID] = {}
    live = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )

    def show(event: PullEvent) -> None:
        if event.model not in bars:
            if not bars:
                live.start()
            # Bytes of an earlier run start the bar where it stopped, and do not count as speed.
            bars[event.model] = live.add_task(event.model, total=event.total, completed=event.done)
            source = f" from {event.source}" if event.source else ""
            console.print(
                f"fetching {event.model}, {event.total / 1e6:.1f} MB ({event.licence}){source}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        live.update(bars[event.model], completed=event.done, total=event.total)
        if event.note:
            console.print(f"{event.model}: {event.note}", style="yellow", markup=False, soft_wrap=True)

    try:
        yield show
    finally:
        live.stop()
