"""Which files were hashed before and not touched since, so that a start need not hash 240 MB again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

    from emi_models.store.entry import ModelFile

__all__ = ["Ledger", "sha256_of"]

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
            self._file.parent.mkdir(parents=True, exist_ok=True)
            # Written beside and renamed, so that two processes at once leave one whole record.
            with tempfile.NamedTemporaryFile(
                "w", dir=self._file.parent, prefix=self._file.name, delete=False, encoding="utf-8"
            ) as stream:
                json.dump(record, stream)
            os.replace(stream.name, self._file)
        except OSError as error:
            logger.debug("verified files are not remembered in %s: %s", self._file, error)
