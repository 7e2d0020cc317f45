"""Third-party models on this machine: where their verified files are, and how they are fetched.

pooch transfers a file over HTTP. What it does not do is here: resume, refuse what cannot be the pinned file
before it fills the disk, try again, and say in one line what is wrong.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import select
import shutil
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from emi_models.errors import EmiError, ModelIntegrityError, ModelUnavailableError
from emi_models.files import atomic_write, locked, user_cache
from emi_models.store.catalogue import CATALOGUE, HUB

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    import requests

    from emi_models.store.catalogue import ModelEntry, ModelFile, WheelCopy

__all__ = [
    "Download",
    "Ledger",
    "ModelState",
    "ModelStatus",
    "ModelStore",
    "Progress",
    "PullEvent",
    "address",
]

logger = logging.getLogger(__name__)

SPARE_BYTES: Final = 16 << 20  # left free on the disk next to a download
CHUNK: Final = 1 << 16  # at most so much is fetched again after an interruption
TIMEOUT_S: Final = 30.0
ATTEMPTS: Final = 3  # in a row that bring less than RENEWING_BYTES
RENEWING_BYTES: Final = 1 << 20
FIRST_PAUSE_S: Final = 1.0  # then four times as long
BUSY: Final = frozenset({408, 416, 425, 429, 500, 502, 503, 504})  # 416: the partial file is dropped first

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


class ModelStore:
    """The models of a catalogue in one folder of this machine, each file checked against its pin before use.

    A model lies in `ROOT/NAME/`; a one-file model may also lie in ROOT itself. ROOT is `directory`, else
    `$EMI_MODEL_DIR`, else `emi-live/models` in the user's cache. When it comes from `EMI_MODEL_DIR`, or with
    `offline`, `locate` keeps off the network. Any thread or process may use it: pulls exclude each other.

    Args:
        directory: the root; it need not exist.
        offline: never use the network, not even in `pull`.
        catalogue: the models there are.
        environ: the environment variables.
        pause: waits so many seconds between two attempts at a download.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        offline: bool = False,
        catalogue: Mapping[str, ModelEntry] = CATALOGUE,
        environ: Mapping[str, str] = os.environ,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        named = environ.get("EMI_MODEL_DIR", "") if directory is None else ""
        cache = user_cache(environ)
        self.root = (directory or (Path(named) if named else cache / "models")).expanduser().absolute()
        self.catalogue = catalogue
        self._environ = environ
        self._pause = pause or _wait
        self._ledger = Ledger(cache / "verified.json")
        self._located: dict[str, Path] = {}
        self._pull_refused = "--offline keeps off the network" if offline else ""
        self._locate_refused = self._pull_refused or ("EMI_MODEL_DIR keeps off the network" if named else "")

    @property
    def fetches(self) -> bool:
        """Whether `locate` may use the network for what is not here."""
        return not self._locate_refused

    @property
    def ledger_path(self) -> Path:
        """The file that says which model files were found right; it may not exist yet."""
        return self._ledger.path

    def entry(self, name: str) -> ModelEntry:
        """The catalogue's entry; raises ModelUnavailableError for a name that is not in it."""
        if name not in self.catalogue:
            begun = [other for other in self.catalogue if other.startswith(name)]
            close = begun or get_close_matches(name, self.catalogue, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(self.catalogue)}"
            raise ModelUnavailableError(f"no model is called {name!r}; {hint}")
        return self.catalogue[name]

    def locate(self, name: str, progress: Progress | None = None) -> Path:
        """The verified file of a one-file model, else the folder of its verified files; fetched if allowed.

        Files in an installed wheel are used where they are, and its folder may hold others next to them.

        Args:
            name: in the catalogue.
            progress: told of what arrives.

        Raises:
            ModelUnavailableError: it is not here, and may not or cannot be fetched.
            ModelIntegrityError: it is here, with other bytes than those pinned.
        """
        if name not in self._located:
            entry = self.entry(name)
            path = self._find(entry)
            if path is None:
                if self._locate_refused:
                    raise self._not_here(entry)
                path = self.pull(name, progress)
            self._located[name] = path
        return self._located[name]

    def pull(self, name: str, progress: Progress | None = None) -> Path:
        """As `locate`, but fetches also into `EMI_MODEL_DIR`, and in place of damaged files.

        An interrupted pull goes on where it stopped. While another process pulls the model, this one waits.

        Raises:
            ModelUnavailableError: the network, the server or the disk is in the way.
            ModelIntegrityError: what the server gives is not what was pinned.
        """
        entry = self.entry(name)
        try:
            path = self._find(entry)
        except ModelIntegrityError as error:
            logger.warning("%s", error)
            path = None
        if path is None:
            if self._pull_refused:
                raise self._not_here(entry)
            _pull_files(entry, self.root, self._ledger, self._environ, progress or _ignore, self._pause)
            path = _usable(entry, self.root / entry.name)
        self._located[name] = path
        return path

    def status(self, name: str) -> ModelStatus:
        """Where a model is, told from names and sizes, without hashing: quick, and good enough to show."""
        return _look(self.entry(name), self.root, lambda path, file: path.stat().st_size == file.size)

    def verify(self, name: str) -> ModelStatus:
        """Where a model is, with every byte hashed again."""
        return _look(
            self.entry(name), self.root, lambda path, file: self._ledger.matches(path, file, rehash=True)
        )

    def _find(self, entry: ModelEntry) -> Path | None:
        status = _look(entry, self.root, self._ledger.matches)
        if status.state == "damaged":
            raise ModelIntegrityError(f"{status.problems[0]}: replace it with `emi models pull {entry.name}`")
        return status.path if status.here else None

    def _not_here(self, entry: ModelEntry) -> ModelUnavailableError:
        online = " without --offline" if self._pull_refused else ""
        ways = [f"run `emi models pull {entry.name}`{online}"]
        if entry.wheel is not None:
            ways.append(f"`pip install {entry.wheel.distribution}`")
        if len(entry.files) == 1:
            ways.append(f"save {entry.files[0].url} as {self.root / entry.files[0].path}")
        refused = self._locate_refused
        return ModelUnavailableError(
            f"{entry.name} is not in {self.root}, and {refused}: {', or '.join(ways)}"
        )


def _ignore(_: PullEvent) -> None:
    """Report to nothing."""


def _wait(seconds: float) -> None:
    """Let time pass before the next attempt; an interrupt ends it. This package may not use threading."""
    select.select([], [], [], seconds)


class Ledger:
    """A record of verified files in the user's cache: path → size, time of change, sha256.

    It lies in the user's cache and not next to the models, whose folder may be read-only or another user's.
    It is a convenience: when it is lost, damaged or cannot be written, files are hashed again.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self._file

    def matches(self, path: Path, pin: ModelFile, *, rehash: bool = False) -> bool:
        """Whether `path` is a file with the pinned bytes; hashed only if it changed since last found good.

        Args:
            path: the file to check; a missing one does not match.
            pin: what its bytes must be.
            rehash: hash it even if the record says that it is good.

        Raises:
            OSError: the file is there and cannot be read.
        """
        if not path.is_file():
            return False
        facts = path.stat()
        if facts.st_size != pin.size:
            return False
        key = str(path.resolve())
        seen = [facts.st_size, facts.st_mtime_ns, pin.sha256]
        if not rehash and self._read().get(key) == seen:
            return True
        if _sha256(path) != pin.sha256:
            return False
        self.remember(path, pin, facts)
        return True

    def remember(self, path: Path, pin: ModelFile, facts: os.stat_result) -> None:
        """Record that `path` has the pinned bytes; `facts` are from before it was hashed."""
        record = {path: seen for path, seen in self._read().items() if os.path.exists(path)}
        record[str(path.resolve())] = [facts.st_size, facts.st_mtime_ns, pin.sha256]
        try:
            atomic_write(self._file, json.dumps(record))
        except OSError as error:
            logger.debug("verified files are not remembered in %s: %s", self._file, error)

    def _read(self) -> dict[str, Any]:
        try:
            record = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}


def _wheel_folder(copy: WheelCopy) -> Path | None:
    """The folder in which an installed package carries model files, or None; the package is not imported."""
    spec = find_spec(copy.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], copy.folder)


def _usable(entry: ModelEntry, folder: Path) -> Path:
    """What a caller opens: the file of a one-file model, else the folder."""
    return folder / entry.files[0].path if len(entry.files) == 1 else folder


def _part_of(target: Path) -> Path:
    """Where the bytes of a file under way are collected."""
    return target.with_name(target.name + ".part")


def _look(entry: ModelEntry, root: Path, good: Callable[[Path, ModelFile], bool]) -> ModelStatus:
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
    if entry.wheel is not None and (folder := _wheel_folder(entry.wheel)) is not None:
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
            return ModelStatus(entry, state, _usable(entry, folder))
        if wrong or len(missing) < len(entry.files) or any(_part_of(path).exists() for path in missing):
            problems = (*wrong, *(f"{path} is missing" for path in missing))
            unusable.append(
                ModelStatus(entry, "damaged" if wrong else "incomplete", _usable(entry, folder), problems)
            )
    return unusable[0] if unusable else ModelStatus(entry, "absent", _usable(entry, own))


def _problem(path: Path, file: ModelFile, good: Callable[[Path, ModelFile], bool]) -> str:
    try:
        return "" if good(path, file) else f"{path} is not the pinned file"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"


def _pull_files(
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
        with locked(root / f".{entry.name}.lock", waiting):
            done = 0
            for file in entry.files:
                target = folder / file.path
                if not ledger.matches(target, file):
                    _require_room(target, file)

                    def arrived(count: int, note: str, file: ModelFile = file, before: int = done) -> None:
                        report(file, before + count, note)

                    Download(address(file, environ), file, target, arrived, pause).run()
                    ledger.remember(target, file, target.stat())
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
    part = _part_of(target)
    missing = file.size - (part.stat().st_size if part.exists() else 0)
    if missing + SPARE_BYTES > free:
        raise ModelUnavailableError(
            f"{target.parent} has {free / 1e6:.0f} MB free and {file.path} needs {missing / 1e6:.0f} MB: "
            "make room, or name a folder on another disk in EMI_MODEL_DIR"
        )


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


class _TransientError(Exception):
    """This attempt failed and the next one may not."""


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
        return _part_of(self.target)

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
                self.part.replace(self.target)
                return
            except _TransientError as error:
                renewed = self._arrived() - before >= RENEWING_BYTES
                failures = 1 if renewed else failures + 1
                if failures >= ATTEMPTS:
                    raise self.unavailable(f"{error} ({ATTEMPTS} attempts)") from error
                self.report(self._arrived(), f"{error}; trying again")
                self.pause(FIRST_PAUSE_S * 4 ** (failures - 1))
            except EmiError:  # one of them is an OSError
                raise
            except OSError as error:
                raise ModelUnavailableError(
                    f"cannot write {self.part}: {error.strerror or error}; make room or rights there for "
                    f"{self.pin.size} bytes, or name another folder in EMI_MODEL_DIR"
                ) from error

    def _arrived(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _attempt(self) -> None:
        have = self._arrived()
        if have > self.pin.size:
            self.part.unlink()
            have = 0
        self.report(have, "")
        resumed = self._receive(have) if have < self.pin.size else True
        if (digest := _sha256(self.part)) == self.pin.sha256:
            return
        self.part.unlink()
        if resumed:
            raise _TransientError("the part from an earlier run does not fit the rest")
        raise ModelIntegrityError(
            f"{self.pin.path} from {self.url} has sha256 {digest[:12]}… where {self.pin.sha256[:12]}… "
            "is pinned: nothing was kept; try again, or another network or mirror"
        )

    def _receive(self, have: int) -> bool:
        """Append the missing bytes; whether earlier ones were kept."""
        import pooch  # here, since most starts need no download
        import requests

        headers = {"User-Agent": "emi-live", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        arriving = _Arriving(self, have)
        fetch = pooch.HTTPDownloader(
            chunk_size=CHUNK,
            timeout=self.timeout_s,
            headers=headers,
            hooks={"response": arriving.begin},
            auth=_anonymous,
            verify=_trusted(),
        )
        try:
            fetch(self.url, arriving, None)
        except requests.HTTPError as error:
            raise self._refused(error.response) from error
        except requests.exceptions.ChunkedEncodingError as error:
            raise self._cut(arriving.have) from error
        except requests.RequestException as error:
            raise self._translated(error) from error
        finally:
            arriving.close()
        if arriving.have < self.pin.size:
            raise self._cut(arriving.have)
        return arriving.resumed

    def _refused(self, response: requests.Response | None) -> Exception:
        status = 0 if response is None else response.status_code
        cause = f"the server answered {status} {'' if response is None else response.reason}"
        if status == 416:
            self.part.unlink(missing_ok=True)
        return _TransientError(cause) if status in BUSY else self.unavailable(cause)

    def _cut(self, have: int) -> _TransientError:
        return _TransientError(f"the connection ended after {have} of {self.pin.size} bytes")

    def _translated(self, error: requests.RequestException) -> Exception:
        first: BaseException = error
        while inner := first.__cause__ or first.__context__:
            first = inner
        match first:
            case ssl.SSLCertVerificationError():
                return self.unavailable(f"its certificate is not trusted ({first.verify_message})")
            case socket.gaierror():
                return self.unavailable("no network, or its name is not known")
            case TimeoutError():
                return _TransientError("the server fell silent")
            case OSError() if first.strerror:
                return _TransientError(first.strerror)
        cause = " ".join(str(first).split()) or type(first).__name__
        # An address of another scheme, to which a server sent us on, is final.
        return self.unavailable(cause) if isinstance(error, ValueError) else _TransientError(cause)

    def wrong_size(self, size: str) -> ModelIntegrityError:
        """The error for an answer that has another length than the file."""
        return ModelIntegrityError(
            f"{self.url} gives {size} bytes where {self.pin.size} are pinned: a log-in page of this network, "
            "or another file on this mirror; open the address in a browser, or try another network"
        )

    def unavailable(self, cause: str) -> ModelUnavailableError:
        """The error for a file that cannot be had now, with what the user can do."""
        return ModelUnavailableError(
            f"cannot fetch {self.pin.path} from {urlsplit(self.url).netloc}: {cause}; "
            f"try again later, or save {self.url} as {self.target}"
        )


class _Arriving:
    """The file that pooch writes an answer to: it refuses the answer before or while it is read.

    Attributes:
        have: bytes of the file so far.
        resumed: whether bytes of an earlier run were kept.
    """

    def __init__(self, download: Download, have: int) -> None:
        self._download = download
        self._stream: BinaryIO | None = None
        self._response: requests.Response | None = None
        self.have = have
        self.resumed = False

    def begin(self, response: requests.Response, **_: Any) -> None:
        """Look at an answer's header: a log-in page or another version is refused before it is read."""
        self._response = response
        if response.is_redirect or not response.ok:
            return
        part, size = self._download.part, self._download.pin.size
        self.resumed = self.have > 0 and response.status_code == 206
        if not self.resumed:  # also where the server cannot resume
            self.have = 0
        if response.status_code == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if span is None or int(span[1]) != self.have:
                part.unlink(missing_ok=True)
                raise _TransientError("the server resumed at another place than asked")
            total = span[2]
        else:
            total = response.headers.get("Content-Length", "*")
        if total.isdecimal() and int(total) != size:
            raise self._download.wrong_size(total)
        self._stream = part.open("ab" if self.resumed else "wb")

    def write(self, chunk: bytes) -> None:
        """Keep the next bytes, unless there are more than the file has."""
        if self._stream is None:
            raise RuntimeError("no answer has begun")
        self.have += len(chunk)
        if self.have > self._download.pin.size:
            self._download.part.unlink()
            raise self._download.wrong_size(f"more than {self._download.pin.size}")
        self._stream.write(chunk)
        self._download.report(self.have, "")

    def flush(self) -> None:
        """Pooch asks for it after each chunk; `close` is enough."""

    def close(self) -> None:
        """Close the file and the connection."""
        if self._response is not None:
            self._response.close()
        if self._stream is not None:
            self._stream.close()


def _anonymous(request: Any) -> Any:
    """Send no password of the user's `.netrc`: models are public."""
    return request


def _trusted() -> str | bool:
    """The system's certificates, which a company's own are added to; True = those of requests."""
    paths = ssl.get_default_verify_paths()
    return os.environ.get("REQUESTS_CA_BUNDLE") or paths.cafile or paths.capath or True


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
