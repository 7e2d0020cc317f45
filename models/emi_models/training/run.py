"""The folder of one training: what was asked for, what each stage has left, and the checkpoint.

::

    OUT/
    ├── run.json                   what is trained, how and on what: the same again, or it is another run
    ├── stages/1-align/            one folder a stage: metrics.csv, best.safetensors, last.ckpt,
    │                              and once it has ended result.json in place of last.ckpt
    ├── curves.png
    └── checkpoint.safetensors     there once all is done
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from emi_models.errors import TrainingError
from emi_models.files import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["RunFolder", "StageResult", "open_run"]

STORY: Final = "run.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """How a stage went: its best epoch, counted from 1, that epoch's score, and a record of each epoch."""

    name: str
    measure: str  # what `score` is: pearson (the mean of six), weighted_f1, or loss (its negative)
    best_epoch: int
    score: float
    history: tuple[Mapping[str, float], ...]

    @property
    def best(self) -> Mapping[str, float]:
        """The record of the best epoch."""
        return self.history[self.best_epoch - 1]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where one training keeps its things."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """The trained network."""
        return self.path / "checkpoint.safetensors"

    @property
    def curves(self) -> Path:
        """The picture of losses and scores."""
        return self.path / "curves.png"

    def stage(self, number: int, name: str) -> Path:
        """The folder of a stage, numbered from 1; made if it is not there."""
        folder = self.path / "stages" / f"{number}-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def result(self, number: int, name: str) -> StageResult | None:
        """How a stage went, None if it has not ended.

        Raises:
            TrainingError: its file is damaged.
        """
        path = self.stage(number, name) / "result.json"
        if not path.is_file():
            return None
        metadata = _read(path)
        return StageResult(**{**metadata, "history": tuple(metadata["history"])})

    def finish(self, number: int, result: StageResult) -> None:
        """Write down how a stage went; its state is not needed any more."""
        folder = self.stage(number, result.name)
        with replacing(folder / "result.json") as part:
            part.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
        (folder / "last.ckpt").unlink(missing_ok=True)


def open_run(path: Path, metadata: Mapping[str, Any], *, resume: bool, force: bool) -> RunFolder:
    """The folder of the training that `metadata` tells of, new or to be gone on with.

    Args:
        path: the folder; made if it is not there.
        metadata: what is trained, how and on what, as JSON can hold it.
        resume: go on with the run that is there, if there is one.
        force: throw away the run that is there.

    Raises:
        TrainingError: there is a run and neither is allowed, or the one to go on with is another.
    """
    folder = RunFolder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{path} cannot be a folder: {error.strerror}; name another --out") from error
    there = path / STORY
    if force and there.is_file():  # nothing else in that folder is ours to remove
        shutil.rmtree(path / "stages", ignore_errors=True)
        for file in (there, folder.checkpoint, folder.curves):
            file.unlink(missing_ok=True)
    elif there.is_file() and not resume:
        raise TrainingError(
            f"{path} holds a run of {_read(there).get('system')} already; --resume goes on with it, --force "
            "throws it away, or name another --out"
        )
    elif there.is_file():
        # Through JSON, as what is compared with has been.
        if difference := _difference(_read(there), json.loads(json.dumps(metadata))):
            raise TrainingError(
                f"{path} holds another run: {difference}; give what it was started with, or another --out"
            )
        return folder
    elif folder.checkpoint.is_file() and not force:
        raise TrainingError(
            f"{folder.checkpoint} is there already; --force replaces it, or name another --out"
        )
    with replacing(there) as part:
        part.write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8")
    return folder


def _read(path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read: {error}; start again with --force") from error
    if not isinstance(metadata, dict):
        raise TrainingError(f"{path} is not what a training writes; start again with --force")
    return metadata


def _difference(old: object, new: object, name: str = "") -> str | None:
    """The first setting in which two metadata differ, as words; None if they do not."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            inner = f"{name}.{key}" if name else key
            if found := _difference(old.get(key), new.get(key), inner):
                return found
        return None
    return None if old == new else f"{name} was {old!r} and is now {new!r}"
