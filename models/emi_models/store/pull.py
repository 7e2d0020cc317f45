"""Fetching the files of one model that are not here yet, one process at a time."""

from __future__ import annotations

import fcntl
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from emi_models.errors import EmiError, ModelIntegrityError, ModelUnavailableError
from emi_models.store.download import Download, address
from emi_models.store.places import part_of
from emi_models.store.status import PullEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from emi_models.store.entry import ModelEntry, ModelFile
    from emi_models.store.ledger import Ledger
    from emi_models.store.status import Progress

__all__ = ["exclusive", "pull_files"]

SPARE_BYTES: Final = 16 << 20  # left free on the disk beside a download


@contextmanager
def exclusive(lock_file: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock that other processes and threads respect; it is let go even when the process is killed.

    Args:
        lock_file: created if absent, and left there; its folder exists.
        waiting: called once if somebody else holds the lock.
    """
    with lock_file.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def pull_files(
    entry: ModelEntry,
    root: Path,
    ledger: Ledger,
    environ: Mapping[str, str],
    progress: Progress,
    pause: Callable[[float], object],
) -> None:
    """Put every file of `entry` into `root/NAME/`, with the pinned bytes.

    Raises:
        ModelUnavailableError: the network, the server or the disk is in the way.
        ModelIntegrityError: what the server gives is not what was pinned.
    """
    folder = root / entry.name

    def report(file: ModelFile, done: int, note: str = "") -> None:
        progress(PullEvent(entry.name, file.path, done, entry.size, note))

    def waiting() -> None:
        report(entry.files[0], 0, "another process is fetching it; waiting")

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(root / f".{entry.name}.lock", waiting):
            done = 0
            for file in entry.files:
                target = folder / file.path
                if not ledger.matches(target, file):
                    _require_room(target, file)

                    def arrived(count: int, note: str, file: ModelFile = file, before: int = done) -> None:
                        report(file, before + count, note)

                    Download(address(file, environ), file, target, arrived, pause).run()
                    if not ledger.matches(target, file):
                        raise ModelIntegrityError(
                            f"{target} was changed as it was written; run the command again"
                        )
                done += file.size
                report(file, done)
    except EmiError:  # one of them is an OSError
        raise
    except OSError as error:
        raise ModelUnavailableError(
            f"{folder} cannot be used: {error.strerror or error}; name a folder of yours in EMI_MODEL_DIR"
        ) from error


def _require_room(target: Path, file: ModelFile) -> None:
    free = shutil.disk_usage(target.parent).free
    part = part_of(target)
    missing = file.size - (part.stat().st_size if part.exists() else 0)
    if missing + SPARE_BYTES > free:
        raise ModelUnavailableError(
            f"{target.parent} has {free / 1e6:.0f} MB free and {file.path} needs {missing / 1e6:.0f} MB: "
            "make room, or name a folder on another disk in EMI_MODEL_DIR"
        )
