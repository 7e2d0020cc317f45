"""Files written whole or not at all, file locks, hashes, and the user's cache: the only place for these."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Final

from emi_models.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "WriteError",
    "atomic_write",
    "library_caches",
    "locked",
    "part_of",
    "replacing",
    "sha256_of",
    "sweep_folders",
    "temporary_folder",
    "user_cache",
]


IN_USE: Final = ".in-use"
NEW_S: Final = 1.0  # of a folder that may not have its lock yet


class WriteError(DataError, OSError):
    """A file could not be written; `strerror` has the system's own words."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file next to `path` to write to; it takes the name `path` when the block ends well.

    If the block fails, the temporary file is removed and `path` is as before. Missing folders are made. Two
    processes may replace the same file at once: one of the two results stays, whole.

    Raises:
        WriteError: the folder cannot be written to, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(descriptor)
    except OSError as error:
        raise _failure(path, error, "name another folder") from error
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)
        part.replace(path)
    except OSError as error:
        raise _failure(path, error, "make room for it") from error
    finally:
        # After success there is nothing left to remove.
        with suppress(OSError):
            part.unlink()


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a whole file, or leave what was there; text is stored as UTF-8. Raises WriteError."""
    with replacing(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def locked(lock_file: Path, busy: Callable[[], None]) -> Iterator[None]:
    """Hold a lock that other processes and threads respect; it ends with the process, even a killed one.

    Args:
        lock_file: created if absent, and left there; its folder exists.
        busy: called once if the lock is held elsewhere. If it returns, the lock is waited for; to give up
            instead, it raises.

    Raises:
        OSError: the lock file cannot be opened.
    """
    from filelock import FileLock, Timeout  # here, so that reading a checkpoint does not load it

    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        busy()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def temporary_folder(prefix: str, base: str | None = None) -> Iterator[Path]:
    """A folder for a `with` block; if the process is killed, `sweep_folders` of another one removes it.

    Args:
        prefix: how its name begins.
        base: where it is; None: where temporary files are.

    Raises:
        OSError: the disk is full, or `base` cannot be written to.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
    try:
        with locked(folder / IN_USE, lambda: None):  # until this process ends, however it ends
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_folders(prefix: str, base: str | None = None) -> None:
    """Remove the folders of `temporary_folder` that killed processes have left."""

    class InUseError(Exception):
        pass

    def busy() -> None:
        raise InUseError

    with suppress(OSError):
        for folder in Path(base or tempfile.gettempdir()).glob(f"{prefix}*"):
            with suppress(InUseError, OSError):
                if (folder / IN_USE).exists() and time() - folder.stat().st_mtime > NEW_S:
                    with locked(folder / IN_USE, busy):
                        shutil.rmtree(folder, ignore_errors=True)


def user_cache(environ: Mapping[str, str]) -> Path:
    """The folder for what emi-live keeps for this user and can get again; it may not exist yet."""
    base = environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a relative path.
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "emi-live"


def library_caches(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that make libraries keep what they can get again in our cache, for a program that is ours.

    A variable that the user has set stays, and so does a matplotlib that the user has set up. An embedding
    program's libraries are its own business: only the commands apply this.
    """
    cache = user_cache(environ)
    wanted = {"TORCHINDUCTOR_CACHE_DIR": cache / "torch"}  # PyTorch makes it in any case, else under /tmp
    base = environ.get("XDG_CONFIG_HOME", "")
    if not ((Path(base) if base.startswith("/") else Path.home() / ".config") / "matplotlib").is_dir():
        wanted["MPLCONFIGDIR"] = cache / "matplotlib"
    return {name: str(path) for name, path in wanted.items() if not environ.get(name)}


def part_of(target: Path) -> Path:
    """Where the bytes of a file under way are collected."""
    return target.with_name(target.name + ".part")


def sha256_of(path: Path) -> str:
    """The hash of a whole file, in lower-case hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _failure(path: Path, error: OSError, remedy: str) -> WriteError:
    failure = WriteError(f"{path} cannot be written: {error.strerror or error}; {remedy}")
    failure.strerror = error.strerror or str(error)
    return failure
