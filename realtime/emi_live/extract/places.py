"""Where clips lie: a folder, a manifest, or an object store, by fsspec.

A URL such as `s3://bucket/clips` stands for all objects below it. A manifest is a CSV with a column `path`,
of files (relative to the manifest) and URLs, and perhaps a column `id`. Each worker fetches its own clips.
"""

from __future__ import annotations

import csv
import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from emi_live.errors import ConfigurationError, SourceError
from emi_models.data.clip import csv_rows
from emi_models.errors import DataError
from emi_models.libraries import require

__all__ = ["MANIFEST", "Place", "in_folder", "in_manifest", "in_store", "is_url", "local_copy"]

MANIFEST: Final = ".csv"
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True, slots=True)
class Place:
    """One file: its name below what was given, where it is, and what changes when its content does."""

    name: str  # with forward slashes
    path: str  # a local path, or a URL
    size: int
    mtime_ns: int  # of an object without a time, a number made of its tag
    id: str = ""  # from a manifest


def is_url(text: str) -> bool:
    """Whether a text names a place of an object store, such as `s3://bucket/clips`."""
    return _URL.match(text) is not None


def in_folder(folder: Path) -> Iterator[Place]:
    """The files of a folder and the folders below it, in order; hidden ones are left out."""
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if path.is_file() and not _is_hidden(below.parts):
            yield _local(path, below.as_posix())


def in_store(url: str) -> Iterator[Place]:
    """The objects below a URL, in order; hidden ones are left out.

    Raises:
        MissingPackageError: fsspec is not installed.
        ConfigurationError: nothing is there, or it cannot be listed.
    """
    fs, root = _opened(url)
    try:
        found = fs.find(root, detail=True)
        if not found and not fs.exists(root):
            raise FileNotFoundError("nothing is there")
        for path, facts in sorted(found.items()):
            name = path.removeprefix(root).strip("/") or path.rpartition("/")[2]
            if not _is_hidden(name.split("/")):
                yield _remote(fs, path, name, facts)
    except (OSError, ValueError, NotImplementedError) as error:
        raise ConfigurationError(
            f"{url} cannot be listed: {error}; check the address and your access"
        ) from error


def in_manifest(path: Path, unusable: list[tuple[str, str]]) -> Iterator[Place]:
    """The files that a manifest lists, in its order; those that are not there join `unusable`.

    Raises:
        ConfigurationError: it is no CSV with a column `path`.
    """
    try:
        rows = csv_rows(path)
        _, header = next(rows, (1, []))
        names = [name.strip().lower() for name in header]
        if "path" not in names:
            raise ConfigurationError(f"{path} has no column path; a manifest has path, and perhaps id")
        for _, row in rows:
            cells = dict(zip(names, (cell.strip() for cell in row), strict=False))
            given, clip_id = cells.get("path", ""), cells.get("id", "")
            try:
                place = _listed(given, path.parent)
            except (OSError, ValueError) as error:
                unusable.append((given, f"cannot be read: {getattr(error, 'strerror', None) or error}"))
            else:
                yield Place(place.name, place.path, place.size, place.mtime_ns, clip_id)
    except (DataError, csv.Error) as error:
        raise ConfigurationError(f"the manifest cannot be read: {error}") from error


@contextmanager
def local_copy(path: str) -> Iterator[Path]:
    """A span in which a clip is a file of this machine: itself, or a copy of an object.

    Raises:
        SourceError: it cannot be fetched.
    """
    if not is_url(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="emi-clip-") as folder:
        fs, root = _opened(path)
        local = Path(folder, re.sub(r"[^\w.-]", "_", root.rpartition("/")[2]))
        try:
            fs.get_file(root, str(local))
        except (OSError, ValueError) as error:
            raise SourceError(f"{path} cannot be fetched: {error}") from error
        yield local


def _listed(given: str, folder: Path) -> Place:
    if is_url(given):
        fs, root = _opened(given)
        return _remote(fs, root, root.rpartition("/")[2], fs.info(root))
    local = folder / given
    name = given if not Path(given).is_absolute() and ".." not in Path(given).parts else local.name
    return _local(local, Path(name).as_posix())


def _local(path: Path, name: str) -> Place:
    status = path.stat()
    return Place(name, str(path), status.st_size, status.st_mtime_ns)


def _remote(fs: Any, path: str, name: str, facts: Mapping[str, Any]) -> Place:
    facts = facts if facts.get("size") is not None else {**facts, **fs.info(path)}
    url = path if is_url(path) else str(fs.unstrip_protocol(path))
    return Place(name, url, int(facts.get("size") or 0), _stamp(facts))


def _stamp(facts: Mapping[str, Any]) -> int:
    """The time of an object in ns, or a number made of its tag; 0 if the store has neither."""
    for key in ("mtime", "LastModified", "last_modified", "updated", "created", "ETag", "etag"):
        value = facts.get(key)
        if isinstance(value, int | float):
            return round(value * 1e9)
        if isinstance(value, datetime):
            return round(value.timestamp() * 1e9)
        if value:
            return int.from_bytes(hashlib.sha256(str(value).encode()).digest()[:7])
    return 0


def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    require("fsspec", extra="cluster", what=url)
    from fsspec.core import url_to_fs

    try:
        fs, root = url_to_fs(url)
    except (ImportError, ValueError) as error:  # no driver: the message names its package
        raise ConfigurationError(f"{url}: {error}") from error
    return fs, root if is_url(root) else root.rstrip("/")


def _is_hidden(parts: tuple[str, ...] | list[str]) -> bool:
    return any(part.startswith(".") for part in parts)
