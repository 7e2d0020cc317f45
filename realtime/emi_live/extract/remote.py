"""Object stores and web servers, by fsspec: listed, asked about one object, fetched.

Each driver (s3fs, gcsfs, aiohttp) has errors of its own, few of them `OSError`. Here they all become one line
with the remedy, so that an object that cannot be had costs one clip and not the worker.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from emi_live.errors import ConfigurationError, SourceError
from emi_models.errors import EmiError
from emi_models.files import WriteError, sweep_folders, temporary_folder
from emi_models.libraries import require

__all__ = ["Remote", "fetched", "is_url", "objects_below", "one_object", "sweep_copies"]

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
WEB: Final = ("http", "https")
CONNECT_S: Final = 30.0
STALLED_S: Final = 60.0  # without a byte, from a web server; a long download may take as long as it needs
COPY: Final = "emi-clip-"
FULL: Final = (errno.ENOSPC, errno.EDQUOT)
DRIVERS: Final = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
AWS_KEYS: Final = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; FSSPEC_S3_ANON=true for a public bucket"
AZURE_KEYS: Final = "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or log in with `az login`"
KEYS: Final = {
    **dict.fromkeys(("s3", "s3a"), AWS_KEYS),
    **dict.fromkeys(("az", "abfs"), AZURE_KEYS),
    **dict.fromkeys(WEB, """sign the address, or set FSSPEC_HTTPS='{"headers": {"Authorization": "…"}}'"""),
    **dict.fromkeys(("gs", "gcs"), "log in with `gcloud auth application-default login`"),
}
# Their drivers fail where no keys are found, unless they are told `anon`; gcsfs does without by itself.
ANONYMOUS: Final = ("s3", "s3a", "az", "abfs")
NO_KEYS: Final = re.compile(r"Unable to locate credentials|DefaultAzureCredential failed")

logger = logging.getLogger(__name__)

# What this process has found out of stores, by scheme. A driver looks for keys at its first request.
_with_keys: set[str] = set()
_without_keys: set[str] = set()


class Remote:
    """One object: its name below what was listed, its URL, and what changes when its content does."""

    __slots__ = ("name", "size", "stamp_ns", "url")

    def __init__(self, name: str, url: str, facts: Mapping[str, Any]) -> None:
        """Take the size in bytes, 0 if unknown, and the time in ns, from what fsspec says of it."""
        self.name = name
        self.url = url
        self.size = int(facts.get("size") or 0)
        self.stamp_ns = _stamp(facts)


def is_url(text: str) -> bool:
    """Whether a text names a place of an object store, such as `s3://bucket/clips`."""
    return _URL.match(text) is not None


def objects_below(url: str) -> Iterator[Remote]:
    """The objects below a URL, folder by folder; of a web server, those that its page links to.

    Raises:
        MissingPackageError: fsspec is not installed.
        ConfigurationError: nothing is there, or it cannot be listed.
    """
    with _reaching(url, ConfigurationError):
        fs, root = _opened(url)
        if not root.strip("/"):
            raise ConfigurationError(f"{url} names no bucket or folder: add it")
        top = _entries(fs, root)
    for path, facts in top:
        with _reaching(url, ConfigurationError):
            below = {path: facts}
            if facts.get("type") == "directory":
                below = fs.find(path, detail=True)
            found = [
                _remote(fs, each, _name(each, root), of)
                for each, of in sorted(below.items())
                if of.get("type") != "directory" and not each.endswith("/")  # some stores keep such a mark
            ]
        yield from found
    if not top:
        raise ConfigurationError(f"{url} cannot be listed: nothing is there; check the address")


def one_object(url: str) -> Remote:
    """What is at a URL.

    Raises:
        MissingPackageError: fsspec is not installed.
        SourceError: nothing is there, or it may not be read.
    """
    with _reaching(url, SourceError):
        fs, root = _opened(url)
        return _remote(fs, root, _name(root, root), fs.info(root))


@contextmanager
def fetched(url: str, size: int = 0) -> Iterator[Path]:
    """A span in which an object is a file of this machine.

    Args:
        url: where it is.
        size: bytes that it had when it was listed; 0 = unknown.

    Raises:
        SourceError: it cannot be fetched, or less of it came.
        WriteError: the temporary folder is full, or cannot be written to.
    """
    with ExitStack() as opened:
        try:
            folder = opened.enter_context(temporary_folder(COPY))
        except OSError as error:
            raise _no_room(error) from error
        local = folder / (re.sub(r"[^\w.-]", "_", _name(url, url))[-100:] or "clip")
        with _reaching(url, SourceError):
            fs, root = _opened(url)
            fs.get_file(root, str(local))
        came = local.stat().st_size
        if came < size:
            raise SourceError(
                f"{url}: {came} of {size} bytes came: it was cut off, or replaced by another; the same "
                "command tries again"
            )
        yield local


def sweep_copies() -> None:
    """Remove the copies of clips that killed processes have left on this machine."""
    sweep_folders(COPY)


def _no_room(error: OSError) -> WriteError:
    return WriteError(
        f"the temporary folder {tempfile.tempdir or ''}, to which clips are fetched, cannot be written to: "
        f"{error.strerror or error}; make room, or set TMPDIR to another folder"
    )


def _entries(fs: Any, root: str) -> list[tuple[str, dict[str, Any]]]:
    """What lies directly below a path, or the object itself."""
    web = is_url(root)
    # A web server has no folders; what ends like a file is asked for as one.
    single = bool(Path(_name(root, root)).suffix) if web else (facts := fs.info(root)).get("type") == "file"
    if single:
        return [(root, {**(fs.info(root) if web else facts), "type": "file"})]
    listed = [(str(facts["name"]), dict(facts)) for facts in fs.ls(root, detail=True)]
    return sorted((path, facts) for path, facts in listed if path.strip("/") != root.strip("/"))


def _remote(fs: Any, path: str, name: str, facts: Mapping[str, Any]) -> Remote:
    facts = facts if facts.get("size") is not None else {**facts, **fs.info(path)}
    return Remote(name, path if is_url(path) else str(fs.unstrip_protocol(path)), facts)


def _name(path: str, root: str) -> str:
    """The name of an object below a root, or the last part of its own; of a web address, as it is meant."""
    if urlsplit(path).scheme in WEB:
        path, root = (unquote(urlsplit(each).path) for each in (path, root))
    below = path.removeprefix(root).strip("/")
    return below if below and path != root else path.rstrip("/").rpartition("/")[2]


def _stamp(facts: Mapping[str, Any]) -> int:
    """The time of an object in ns, or a number made of its tag; 0 if the store has neither."""
    times = ("mtime", "LastModified", "last_modified", "updated", "created")
    for key in (*times, "ETag", "etag", "Content-MD5", "Last-Modified"):
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

    scheme = url.partition("://")[0].lower()
    options = _patience(scheme) if scheme in WEB else {"anon": True} if scheme in _without_keys else {}
    try:
        fs, root = url_to_fs(url, **options)
    except ImportError as error:
        driver = DRIVERS.get(scheme)
        raise ConfigurationError(
            f"{url} needs {driver}: pip install {driver}" if driver else f"{url}: {error}"
        ) from error
    except ValueError as error:
        raise ConfigurationError(
            f"{url}: {error}; give a folder, a CSV, or s3://…, gs://…, https://…"
        ) from error
    if scheme in ANONYMOUS and scheme not in _with_keys | _without_keys:
        if not _has_keys(fs, root):
            _without_keys.add(scheme)
            logger.warning("no keys for %s:// are found here: it is read without, as is public", scheme)
            return _opened(url)
        _with_keys.add(scheme)
    return fs, root if is_url(root) else root.rstrip("/")


def _has_keys(fs: Any, root: str) -> bool:
    """Whether a driver finds keys; what else may be wrong shows when it is used."""
    try:
        fs.info(root)
    except Exception as error:  # noqa: BLE001  # drivers raise what they like
        return not any(NO_KEYS.search(str(each)) for each in _chain(error))
    return True


def _patience(scheme: str) -> dict[str, Any]:
    """How long to wait for a web server; aiohttp's own limit is five minutes for a whole download."""
    require("aiohttp", extra="cluster", what=f"{scheme}://")
    from aiohttp import ClientTimeout
    from fsspec.config import conf

    yours: dict[str, Any] = {}
    for each in WEB:
        yours |= conf.get(each, {}).get("client_kwargs", {})
    limits = ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=STALLED_S)
    return {"client_kwargs": {"timeout": limits, "trust_env": True, **yours}}


@contextmanager
def _reaching(url: str, kind: type[ConfigurationError | SourceError]) -> Iterator[None]:
    try:
        yield
    except EmiError:
        raise
    except Exception as error:
        for each in _chain(error):
            if isinstance(each, OSError) and each.errno in FULL:
                raise _no_room(each) from error
        verb = "listed" if kind is ConfigurationError else "fetched"
        raise kind(f"{url} cannot be {verb}: {_reason(url, error)}") from error


def _chain(error: BaseException) -> list[BaseException]:
    """An error, and those that led to it."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def _reason(url: str, error: BaseException) -> str:
    """What happened, from the driver's own error and those that led to it, and what to do."""
    chain = _chain(error)
    statuses = [getattr(each, "status", None) for each in chain]
    names = " ".join(type(each).__name__ for each in chain)
    scheme = url.partition("://")[0].lower()
    keys = KEYS.get(scheme, "give what its driver asks for")
    says = next((line for each in chain if (line := " ".join(str(each).split()))), names)
    if any(isinstance(each, TimeoutError) for each in chain) or "Timeout" in names:
        return "it does not answer in time; the same command tries again"
    if "Credentials" in names or {401, 403} & {*statuses} or isinstance(error, PermissionError):
        return f"access is denied ({says}): {keys}" if url not in says else f"access is denied: {keys}"
    if isinstance(error, FileNotFoundError) and not any("Connect" in type(each).__name__ for each in chain):
        bare = says in url or url in says
        return "nothing is there; check the address" if bare else f"{says}; check the address"
    if "Payload" in names or "IncompleteRead" in names:
        return "it broke off; the same command tries again"
    if any(isinstance(each, ConnectionError) or "Connect" in type(each).__name__ for each in chain):
        return "nobody answers there; check the network" + (
            ", and AWS_ENDPOINT_URL" if scheme == "s3" else ""
        )
    return f"{says[:200]}; the same command tries again"
