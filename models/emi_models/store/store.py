"""Third-party models on this machine: where their verified files are, and how they are fetched."""

from __future__ import annotations

import json
import logging
import os
import select
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from emi_models.errors import EmiError, ModelIntegrityError, ModelUnavailableError
from emi_models.files import atomic_write, locked, part_of, sha256_of, user_cache
from emi_models.store.catalogue import CATALOGUE, PullEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from emi_models.store.catalogue import ModelEntry, ModelFile, Progress, WheelCopy

__all__ = ["Contact", "ModelState", "ModelStatus", "ModelStore", "VerifiedFiles", "look", "usable"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Contact:
    """A server that a pull may contact.

    Attributes:
        server: scheme and host, or the package index in words.
        size: bytes that it is asked for.
        is_index: whether it is the package index; the next one is asked if it fails.
    """

    server: str
    size: int
    is_index: bool = False

    @property
    def host(self) -> str:
        """The host alone, or the package index in words."""
        return self.server.rpartition("://")[2]


class ModelStore:
    """The models of a catalogue in one folder of this machine, each file checked against its pin before use.

    A model lies in `ROOT/NAME/`; a one-file model may also lie in ROOT itself. ROOT is `directory`, else
    `$EMI_MODEL_DIR`, else `emi-live/models` in the user's cache. When it comes from `EMI_MODEL_DIR`, or with
    `offline`, `locate` keeps off the network. Any thread or process may use it: pulls exclude each other.

    A model with wheels is fetched from the user's package index; if that fails, and for every other model,
    from its public address. With `EMI_MODEL_MIRROR` the index is not asked: the mirror replaces every host.

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
        self._ledger = VerifiedFiles(cache / "verified.json")
        self._located: dict[str, Path] = {}
        self._index_away = ""  # why the package index is not asked again
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
            self._fetch(entry, progress or _ignore)
            path = usable(entry, self.root / entry.name)
        self._located[name] = path
        return path

    def status(self, name: str) -> ModelStatus:
        """Where a model is, told from names and sizes, without hashing: quick, and good enough to show."""
        return look(self.entry(name), self.root, lambda path, file: path.stat().st_size == file.size)

    def verify(self, name: str) -> ModelStatus:
        """Where a model is, with every byte hashed again."""
        return look(
            self.entry(name), self.root, lambda path, file: self._ledger.matches(path, file, rehash=True)
        )

    def first_here(self, names: Sequence[str]) -> str:
        """The first of these models that is here, told as `status` does; if none is, the last name."""
        return next((name for name in names if self.status(name).here), names[-1])

    def contacts(self, name: str) -> list[Contact]:
        """The servers that a pull of the whole model may contact, in the order of use.

        Raises:
            ModelUnavailableError: a mirror that the environment names is not an http or https address.
        """
        from emi_models.store.downloads import address
        from emi_models.store.wheels import index_name

        entry = self.entry(name)
        contacts = []
        if self._asks_index(entry):
            size = sum(wheel.size for wheel in entry.index_wheels)
            contacts.append(Contact(index_name(self._environ), size, is_index=True))
        sizes: Counter[str] = Counter()
        for file in entry.files:
            url = urlsplit(address(file, self._environ))
            sizes[f"{url.scheme}://{url.hostname}"] += file.size
        return contacts + [Contact(host, size) for host, size in sizes.items()]

    def _asks_index(self, entry: ModelEntry) -> bool:
        return bool(entry.index_wheels) and not self._environ.get("EMI_MODEL_MIRROR")

    def _fetch(self, entry: ModelEntry, progress: Progress) -> None:
        """Put every file of `entry` into `ROOT/NAME/`, with the pinned bytes.

        Raises:
            ModelUnavailableError: the network, the servers or the disk are in the way.
            ModelIntegrityError: what the server gives is not what was pinned.
        """
        folder = self.root / entry.name

        def waiting() -> None:
            note = "another process is fetching it; waiting"
            progress(PullEvent(entry.name, entry.files[0].path, 0, entry.size, note, licence=entry.licence))

        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(self.root / f".{entry.name}.lock", waiting):
                try:
                    self._from_sources(entry, folder, progress)
                finally:
                    with suppress(OSError):  # not empty, as a rule
                        folder.rmdir()
        except EmiError:  # one of them is an OSError
            raise
        except OSError as error:
            raise ModelUnavailableError(
                f"{folder} cannot be used: {error.strerror or error}; name a folder of yours in EMI_MODEL_DIR"
            ) from error

    def _from_sources(self, entry: ModelEntry, folder: Path, progress: Progress) -> None:
        missing = [file for file in entry.files if not self._ledger.matches(folder / file.path, file)]
        if not missing:
            return
        failed = "it is not asked"
        if self._asks_index(entry):
            failed = self._from_index(entry, missing, folder, progress)
        if failed:
            from emi_models.store.downloads import fetch_files

            try:
                fetch_files(entry, missing, folder, self._environ, progress, self._pause)
            except EmiError as error:
                if not self._asks_index(entry):
                    raise
                raise type(error)(
                    f"{entry.name} does not come from the package index ({failed}); and {error}"
                ) from error
        for file in missing:
            self._ledger.remember(folder / file.path, file, (folder / file.path).stat())

    def _from_index(
        self, entry: ModelEntry, missing: list[ModelFile], folder: Path, progress: Progress
    ) -> str:
        """Empty if the files are there, else why they are not."""
        from emi_models.store.wheels import IndexFailedError, PackageIndex

        if self._index_away:
            return self._index_away
        try:
            PackageIndex(self._environ).pull(entry, missing, folder, progress)
            return ""
        except IndexFailedError as error:
            failed = str(error)
            if error.unreachable:
                self._index_away = failed
        note = f"the package index: {failed}; trying {entry.sources[-1]}"
        progress(PullEvent(entry.name, "", 0, entry.size, note, entry.sources[-1], entry.licence))
        return failed

    def _find(self, entry: ModelEntry) -> Path | None:
        status = look(entry, self.root, self._ledger.matches)
        if status.state == "damaged":
            raise ModelIntegrityError(f"{status.problems[0]}: replace it with `emi models pull {entry.name}`")
        return status.path if status.here else None

    def _not_here(self, entry: ModelEntry) -> ModelUnavailableError:
        online = " without --offline" if self._pull_refused else ""
        ways = [f"run `emi models pull {entry.name}`{online}"]
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


ModelState = Literal["store", "wheel", "incomplete", "damaged", "absent"]


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


class VerifiedFiles:
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
        if sha256_of(path) != pin.sha256:
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


def look(entry: ModelEntry, root: Path, good: Callable[[Path, ModelFile], bool]) -> ModelStatus:
    """Where the model is: the first place that has it whole, else what is wrong in the first that has some.

    The store comes before an installed package that carries the model.

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


def _wheel_folder(copy: WheelCopy) -> Path | None:
    """The folder in which an installed package carries model files, or None; the package is not imported."""
    spec = find_spec(copy.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], copy.folder)


def usable(entry: ModelEntry, folder: Path) -> Path:
    """What a caller opens: the file of a one-file model, else the folder."""
    return folder / entry.files[0].path if len(entry.files) == 1 else folder
