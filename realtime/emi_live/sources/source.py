"""The seam between a source and the worker that runs it."""

from __future__ import annotations

import threading
from typing import Protocol

from emi_live.intake import Intake

__all__ = ["Source"]


class Source(Protocol):
    """Media from one device or file. `run` is called once, by one thread that the source does not own."""

    @property
    def name(self) -> str:
        """The part's name in health reports: `camera`, `microphone` or `file`."""
        ...

    @property
    def has_video(self) -> bool:
        """Whether pictures can come of it."""
        ...

    @property
    def has_audio(self) -> bool:
        """Whether sound can come of it."""
        ...

    def run(self, intake: Intake, stop: threading.Event) -> None:
        """Push media until they end or `stop` is set; then release the device and end the streams.

        Raises:
            SourceError: the media cannot be opened or read at all. A device that is lost later is reopened
            instead.
        """
        ...

    def close(self) -> None:
        """Release the device or file of a source that was never run; `run` does it by itself."""
        ...
