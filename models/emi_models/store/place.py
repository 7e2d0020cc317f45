"""Where a model lies on this machine, and the record of files that were found right."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from emi_models.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable

    from emi_models.store.catalogue import ModelEntry, ModelFile, WheelCopy

__all__ = ["Ledger", "ModelState", "ModelStatus", "look", "part_of", "sha256_of", "usable"]

logger = logging.getLogger(__name__)

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


def part_of(target: Path) -> Path:
    """Where the bytes of a file under way are collected."""
    return target.with_name(target.name + ".part")


def _wheel_folder(copy: WheelCopy) -> Path | None:
    """The folder in which an installed package carries model files, or None; the package is not imported."""
    spec = find_spec(copy.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], copy.folder)


def usable(entry: ModelEntry, folder: Path) -> Path:
    """What a caller opens: the file of a one-file model, else the folder."""
    return folder / entry.files[0].path if len(entry.files) == 1 else folder


def sha256_of(path: Path) -> str:
    """The hash of a whole file, in lower-case hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
