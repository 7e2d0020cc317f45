"""One file over HTTPS to disk: resumed where it stopped, retried, hashed on the way, renamed when right."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from emi_models.errors import EmiError, ModelIntegrityError, ModelUnavailableError
from emi_models.store.entry import HUB
from emi_models.store.places import part_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from emi_models.store.entry import ModelFile

__all__ = ["Download", "address"]

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
