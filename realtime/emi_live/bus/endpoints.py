"""Where each topic is bound and connected to: in the process, in a private folder, or on TCP ports."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import Final

from emi_live.bus.wire import TOPICS
from emi_live.config import BusConfig
from emi_live.errors import ConfigurationError

__all__ = ["Endpoints", "claim_socket_path"]

logger = logging.getLogger(__name__)

MAX_SOCKET_PATH: Final = 107  # bytes in sockaddr_un.sun_path, less the closing zero
ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "::": "::1"}  # noqa: S104 # bound only with keys
NUMERIC: Final = {"localhost": "127.0.0.1"}  # libzmq binds to addresses and interfaces, not to host names


class Endpoints:
    """The address of every topic of one bus; for `ipc` it owns the socket files, and the folder it made."""

    def __init__(self, config: BusConfig) -> None:
        """Make the folder where one is needed.

        Raises:
            ConfigurationError: the folder cannot be made, or other users could reach into it.
        """
        self._config = config
        self._folder: Path | None = None
        self._owns_folder = False
        self._claimed: list[Path] = []
        if config.transport == "ipc":
            self._folder, self._owns_folder = _private_folder(config.directory)
            logger.info("the bus has its sockets in %s", self._folder)

    def to_bind(self, topic: str) -> str:
        """The address the topic's publisher binds.

        Raises:
            ConfigurationError: for `ipc`, a running engine has it, or the path is too long.
        """
        if self._folder is not None:
            claim_socket_path(self._folder / topic)
            self._claimed.append(self._folder / topic)
        return self._address(topic, NUMERIC.get(self._config.host, self._config.host))

    def to_connect(self, topic: str) -> str:
        """The address a subscriber in this process connects to."""
        host = NUMERIC.get(self._config.host, self._config.host)
        return self._address(topic, ANY_ADDRESS.get(host, host))

    def close(self) -> None:
        """Remove what was made in the file system; call it when every socket is closed."""
        if self._folder is None:
            return
        for path in self._claimed:
            path.unlink(missing_ok=True)
        if self._owns_folder:
            with contextlib.suppress(OSError):  # somebody put something else there
                self._folder.rmdir()
        self._folder = None

    def _address(self, topic: str, host: str) -> str:
        match self._config.transport:
            case "inproc":
                return f"inproc://emi-{topic}"  # names of inproc are private to the bus's context
            case "ipc":
                return f"ipc://{self._folder}/{topic}"
            case "tcp":
                name = f"[{host}]" if ":" in host else host
                return f"tcp://{name}:{self._config.base_port + TOPICS.index(topic)}"


def claim_socket_path(path: Path) -> None:
    """Make sure that binding an ipc socket at `path` takes nothing from anybody: ZeroMQ would not ask.

    Raises:
        ConfigurationError: somebody listens there, something else is there, or the path is too long.
    """
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ConfigurationError(f"{path} is too long for a socket ({MAX_SOCKET_PATH} bytes at most)")
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be used for a socket: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise ConfigurationError(f"{path} exists and is not a socket; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return  # left behind by a process that is gone
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be used for a socket: {error.strerror}") from error
    raise ConfigurationError(f"{path} is in use by a running program; stop it or choose another folder")


def _private_folder(wanted: Path | None) -> tuple[Path, bool]:
    try:
        if wanted is None:
            base = os.environ.get("XDG_RUNTIME_DIR")
            usable = base is not None and os.path.isdir(base) and os.access(base, os.W_OK)
            return Path(tempfile.mkdtemp(prefix="emi-live-", dir=base if usable else None)), True
        made = not wanted.exists()
        wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = wanted.stat()
    except OSError as error:
        raise ConfigurationError(f"bus.directory={wanted} cannot be made: {error.strerror}") from error
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ConfigurationError(
            f"bus.directory={wanted} is open to other users (mode {status.st_mode & 0o777:o}): "
            f"run `chmod 700 {wanted}` or choose another folder"
        )
    return wanted, made
