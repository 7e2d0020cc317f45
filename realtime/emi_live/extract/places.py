"""Where clips lie: a folder, a manifest, or an object store, by fsspec.

A URL such as `s3://bucket/clips` stands for all objects below it. A manifest is a CSV, here or at a URL, with
a column `path`, of files (relative to the manifest) and URLs, and perhaps a column `id`. Each worker fetches
its own clips.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from posixpath import normpath
from typing import Final
from urllib.parse import quote, urlsplit

from emi_live.errors import ConfigurationError, SourceError
from emi_live.extract.remote import WEB, fetched, is_url, objects_below, one_object, sweep_copies
from emi_models.data.clip import csv_rows
from emi_models.errors import DataError

__all__ = [
    "Place",
    "in_folder",
    "in_manifest",
    "in_store",
    "is_manifest",
    "is_url",
    "local_copy",
    "sweep_copies",
]

MANIFEST: Final = ".csv"
AT_ONCE: Final = 16  # questions to servers, whose answers take some ten milliseconds each


@dataclass(frozen=True, slots=True)
class Place:
    """One file: its name below what was given, where it is, and what changes when its content does."""

    name: str  # with forward slashes
    path: str  # a local path, or a URL
    size: int
    mtime_ns: int  # of an object without a time, a number made of its tag
    id: str = ""  # from a manifest


def is_manifest(given: str) -> bool:
    """Whether a path or a URL, which may be signed, names a manifest."""
    path = urlsplit(given).path if is_url(given) else given
    return path.lower().endswith(MANIFEST)


def in_folder(folder: Path) -> Iterator[Place]:
    """The files of a folder and the folders below it, in order; hidden ones are left out."""
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if path.is_file() and not _is_hidden(below.parts):
            yield _local(path, below.as_posix())


def in_store(url: str) -> Iterator[Place]:
    """The objects below a URL, folder by folder; hidden ones are left out.

    Raises:
        MissingPackageError: fsspec is not installed.
        ConfigurationError: nothing is there, or it cannot be listed.
    """
    for remote in objects_below(url):
        if not _is_hidden(remote.name.split("/")):
            yield Place(remote.name, remote.url, remote.size, remote.stamp_ns)


def in_manifest(given: str, unusable: list[tuple[str, str]]) -> Iterator[Place]:
    """The files that a manifest lists, in its order; those that are not there join `unusable`.

    Args:
        given: the manifest, a path or a URL.
        unusable: gets names and reasons.

    Raises:
        ConfigurationError: it cannot be fetched, or is no CSV with a column `path`.
    """
    with ExitStack() as opened:
        try:
            path = opened.enter_context(local_copy(given))
        except SourceError as error:
            raise ConfigurationError(str(error)) from error
        yield from _in_table(path, _parent(given), unusable)


def _in_table(path: Path, folder: str, unusable: list[tuple[str, str]]) -> Iterator[Place]:
    try:
        rows = csv_rows(path)
        _, header = next(rows, (1, []))
        names = [name.strip().lower() for name in header]
        if "path" not in names:
            raise ConfigurationError(f"{path} has no column path; a manifest has path, and perhaps id")
        listed = (
            (number, dict(zip(names, (cell.strip() for cell in row), strict=False))) for number, row in rows
        )
        ask = partial(_asked, folder)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="manifest") as pool:
            while some := list(islice(listed, AT_ONCE * 4)):  # few, so that Ctrl-C does not wait long
                for (number, cells), found in zip(some, pool.map(ask, some), strict=True):
                    if isinstance(found, Place):
                        yield replace(found, id=cells.get("id", ""))
                    else:
                        unusable.append((cells.get("path") or f"{path.name}, line {number}", found))
    except (DataError, csv.Error) as error:
        raise ConfigurationError(f"the manifest cannot be read: {error}") from error


@contextmanager
def local_copy(path: str, size: int = 0) -> Iterator[Path]:
    """A span in which a clip is a file of this machine: itself, or a copy of an object.

    Args:
        path: of this machine, or a URL.
        size: bytes that an object had when it was listed; 0 = unknown.

    Raises:
        SourceError: it cannot be fetched, or less of it came.
    """
    if not is_url(path):
        yield Path(path)
        return
    with fetched(path, size) as local:
        yield local


def _asked(folder: str, row: tuple[int, Mapping[str, str]]) -> Place | str:
    """Where a row's file is, or why it cannot be used."""
    given = row[1].get("path", "")
    if not given:
        return "has no path"
    try:
        return _listed(given, folder)
    except SourceError as error:
        return str(error).removeprefix(given).lstrip()
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"


def _listed(given: str, folder: str) -> Place:
    if is_url(given) or is_url(folder):
        remote = one_object(given if is_url(given) else _beside(folder, given))
        name = remote.name if is_url(given) or ".." in given.split("/") else given
        return Place(name, remote.url, remote.size, remote.stamp_ns)
    local = Path(folder, given)
    if not local.is_file() and local.exists():
        raise OSError("it is no file")
    name = given if not Path(given).is_absolute() and ".." not in Path(given).parts else local.name
    return _local(local, Path(name).as_posix())


def _parent(given: str) -> str:
    """The folder of a path; of a URL, without what signs it."""
    return given.partition("?")[0].rpartition("/")[0] if is_url(given) else str(Path(given).parent)


def _beside(folder: str, given: str) -> str:
    """The URL of a file that lies at a path from a folder of a store."""
    scheme, _, rest = folder.partition("://")
    return f"{scheme}://{normpath(f'{rest}/{quote(given) if scheme in WEB else given}')}"


def _local(path: Path, name: str) -> Place:
    status = path.stat()
    return Place(name, str(path), status.st_size, status.st_mtime_ns)


def _is_hidden(parts: tuple[str, ...] | list[str]) -> bool:
    return any(part.startswith(".") for part in parts)
