"""How `emi extract` shows that it goes on: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from contextlib import ExitStack
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from emi_models.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from emi_live.extract.ledger import Entry
    from emi_live.extract.link import Ready
    from emi_live.extract.listing import Listing

__all__ = ["ExtractView"]

LINE_EVERY_S: Final = 10.0  # without a terminal


class ExtractView:
    """Shows the clips done, their rate and the time to go; a `Watcher`."""

    def __init__(self, console: Console, listing: Listing) -> None:
        self._console = console
        self._listing = listing
        self._shown = ExitStack()
        self._bar: Progress | None = None
        self._todo = self._done = self._refused = 0
        self._media_s = 0.0
        self._started = self._last_line = monotonic()
        self._took_s = 0.0  # until the newest clip

    def __enter__(self) -> Self:
        """Say what was found, and that the encoders are being loaded."""
        listing = self._listing
        others = ", ".join(f"{count} {suffix}" for suffix, count in sorted(listing.others.items()))
        self.say(f"{len(listing.videos)} clips" + (f" (passed over: {others})" if others else ""))
        self._shown.enter_context(self._console.status("loading the encoders …"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was, and say how fast it went."""
        self._shown.close()
        if self._done and kind is None:
            self.say(f"{self._media_s:.1f} s of media in {self._took_s:.1f} s: {self._rate()}")

    @property
    def done(self) -> int:
        """Clips that this run has done."""
        return self._done

    def say(self, line: str) -> None:
        """Print one line."""
        self._console.print(printable(line), style="dim", markup=False, highlight=False, soft_wrap=True)

    def ready(self, what: Ready, done: int, todo: int) -> None:
        """Say what runs, and start counting."""
        self._shown.close()
        for line in what.announcements:
            self.say(line)
        if done:
            self.say(f"{done} clips were done before, {todo} are to do")
        self._todo = todo
        self._started = self._last_line = monotonic()
        if todo and self._console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True)
            self._shown.enter_context(self._bar)
            self._bar.add_task("", total=todo, rate="")

    def wrote(self, entry: Entry) -> None:
        """Count one clip."""
        self._done += 1
        self._media_s += entry.duration_s
        self._update()

    def refused(self, name: str, reason: str) -> None:
        """Count one file; it is listed at the end."""
        self._refused += 1
        self._update()

    def _update(self) -> None:
        done = self._done + self._refused
        self._took_s = max(1e-3, monotonic() - self._started)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, rate=self._rate())
        elif monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = monotonic()
            left_s = self._took_s / done * (self._todo - done)
            self.say(f"{done} of {self._todo} clips, about {left_s:.0f} s left; {self._rate()}")

    def _rate(self) -> str:
        if not self._done:
            return ""
        media = self._media_s / self._took_s
        return f"{self._done / self._took_s:.2f} clips/s, {media:.1f} times real time"
