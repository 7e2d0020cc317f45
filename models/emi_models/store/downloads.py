"""Model files over HTTP: resumed, checked against their pins, and refused in one line.

pooch transfers a file. What it does not do is here: resume, refuse what cannot be the pinned file before it
fills the disk, try again, and say in one line what is wrong.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from emi_models.errors import EmiError, ModelIntegrityError, ModelUnavailableError
from emi_models.files import part_of, sha256_of
from emi_models.store.catalogue import HUB, PullEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    import requests

    from emi_models.store.catalogue import ModelEntry, ModelFile, Progress

__all__ = ["Download", "address", "fetch_files"]

SPARE_BYTES: Final = 16 << 20  # left free on the disk next to a download
CHUNK: Final = 1 << 16  # at most so much is fetched again after an interruption
TIMEOUT_S: Final = 30.0
ATTEMPTS: Final = 3  # in a row that bring less than RENEWING_BYTES
RENEWING_BYTES: Final = 1 << 20
FIRST_PAUSE_S: Final = 1.0  # then four times as long
BUSY: Final = frozenset({408, 416, 425, 429, 500, 502, 503, 504})  # 416: the partial file is dropped first


def fetch_files(
    entry: ModelEntry,
    missing: Sequence[ModelFile],
    folder: Path,
    environ: Mapping[str, str],
    progress: Progress,
    pause: Callable[[float], object],
) -> None:
    """Put the missing files into `folder`, each from its own address, with the pinned bytes.

    The caller holds a lock: one pull of a model may be under way at a time.

    Args:
        entry: the model.
        missing: those of its files that are wanted.
        folder: it exists.
        environ: the environment variables, which may name mirrors.
        progress: told of what arrives.
        pause: waits so many seconds between two attempts.

    Raises:
        ModelUnavailableError: the network, the server or the disk is in the way.
        ModelIntegrityError: what the server gives is not what was pinned.
        OSError: the folder cannot be used.
    """
    done = entry.size - sum(file.size for file in missing)
    for file in missing:
        target = folder / file.path
        url = address(file, environ)
        _require_room(target, file)

        def arrived(
            count: int,
            note: str,
            file: ModelFile = file,
            before: int = done,
            host: str = urlsplit(url).netloc,
        ) -> None:
            event = PullEvent(entry.name, file.path, before + count, entry.size, note, host, entry.licence)
            progress(event)

        Download(url, file, target, arrived, pause).run()
        done += file.size
        arrived(file.size, "")


def _require_room(target: Path, file: ModelFile) -> None:
    free = shutil.disk_usage(target.parent).free
    part = part_of(target)
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
            f"{url} is not an address to fetch {file.path} from: EMI_MODEL_MIRROR and HF_ENDPOINT take "
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
        if (digest := sha256_of(self.part)) == self.pin.sha256:
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
