"""The terminal view as a picture."""

from __future__ import annotations

import errno
import io
import re
from pathlib import Path
from typing import Final

from rich.console import Console

from emi_live.clock import MonotonicClock
from emi_live.errors import ConfigurationError, LiveError
from emi_live.health import Health
from emi_live.messages import Estimate
from emi_live.sinks.terminal import FRAME_COUNTER, NOTICE
from emi_live.sinks.view import render
from emi_live.sinks.viewstate import StateKeeper, ViewState

__all__ = ["PictureSink", "to_svg"]

REMOTE_FONT: Final = re.compile(r',\s*url\("https?://[^"]*"\) format\("[^"]*"\)')


def to_svg(state: ViewState, width: int = 100, height: int = 30, title: str = "emi-live") -> str:
    """The view at `width` × `height` cells as an SVG that refers to nothing on the network."""
    console = Console(
        record=True,
        width=width,
        height=height,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
        no_color=False,
    )
    console.print(render(state, width, height))
    return REMOTE_FONT.sub("", console.export_svg(title=title, unique_id="emi"))


class PictureSink:
    """Saves the view as it stands when the run ends."""

    name = "picture"
    finished = False  # there is nobody who could go away

    def __init__(self, path: Path, health: Health, *, source: str = "") -> None:
        """Check that the file can be written.

        Args:
            path: the SVG file, overwritten.
            health: where drops and frames are counted.
            source: what is being watched, in words.

        Raises:
            ConfigurationError: it is not a path of an SVG file, or no file can be written there.
        """
        if path.suffix != ".svg" or not path.parent.is_dir():
            raise ConfigurationError(
                f"--picture {path} cannot be written: name an .svg file in a folder that exists"
            )
        try:
            existed = path.exists()
            with path.open("ab"):
                pass
            if not existed:
                path.unlink()
        except OSError as error:
            raise ConfigurationError(
                f"--picture {path} cannot be written: {error.strerror}; name another file or folder"
            ) from error
        self._path = path
        self._health = health
        self._keeper: StateKeeper | None = StateKeeper(MonotonicClock(), source, NOTICE)

    def open(self) -> None:
        """Nothing to open."""

    def write(self, estimate: Estimate) -> None:
        """Remember one estimate."""
        if self._keeper is not None:
            self._keeper.add(estimate, self._health.snapshot().counters.get(FRAME_COUNTER, 0))

    def idle(self) -> None:
        """Nothing is due."""

    def close(self) -> None:
        """Write the picture.

        Raises:
            LiveError: the disk is full or has failed.
        """
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        picture = to_svg(keeper.state(self._health.snapshot()))
        try:
            self._path.write_text(picture, encoding="utf-8")
        except OSError as error:
            remedy = "free some space" if error.errno == errno.ENOSPC else "choose another file"
            raise LiveError(f"--picture {self._path}: {error.strerror}; {remedy}") from error
