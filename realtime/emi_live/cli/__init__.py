"""The commands `emi-live` and `emi`. Here is how they start, and nothing that takes time to import.

The modules of a command take a few tenths of a second to import. Ctrl-C in that time ends the program at
once; afterwards it raises KeyboardInterrupt, so that the command can end in order. So do SIGTERM, by which a
service manager stops a program, and SIGHUP, which comes when a terminal is closed.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["ENDING", "EXIT_INTERRUPTED", "raise_interrupts", "start_emi", "start_emi_live"]

EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, the shells' convention
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start_emi_live() -> NoReturn:
    """Run `emi-live` with the process's arguments; ends the process."""
    _end_at_once_on_signals()
    from emi_live.cli.live import main

    main()


def start_emi() -> NoReturn:
    """Run `emi` with the process's arguments; always raises SystemExit."""
    _end_at_once_on_signals()
    from emi_live.cli.emi import main

    main()


def raise_interrupts() -> None:
    """From now on Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt; it is called where that is caught.

    A signal that is ignored, as with `nohup`, or that another program handles, stays as it is.
    """
    for number in ENDING:
        if signal.getsignal(number) is _end_at_once:
            signal.signal(number, signal.default_int_handler)


def _end_at_once_on_signals() -> None:
    for number in ENDING:
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, _end_at_once)


def _end_at_once(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(EXIT_INTERRUPTED)
