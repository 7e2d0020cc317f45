"""Feature files of other people, read once and kept as safetensors: pickles are slow and unsafe to load.

The cache of one folder of features is `index.json`, which says of each clip how many frames it has or why its
file was refused, and `<id>.safetensors` with `values` (n, D) float32 and `index` (n,), the frames' places. It
goes on where it stopped, takes up files that have changed since, and outlives its source.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from emi_models.data.clip import normal_id
from emi_models.data.frames import Frames, as_frames, first_rows, read_frames
from emi_models.data.unpickle import read_pickle
from emi_models.errors import DataError
from emi_models.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from emi_models.data.unpickle import Plain

__all__ = ["Converted", "Progress", "convert"]

FORMAT_VERSION: Final = 1
INDEX: Final = "index.json"
WHOLE_SET_BYTES: Final = 64 << 30  # one file for all clips; as large as it is, it passes through memory
KEEP_EVERY: Final = 500  # clips between two times that the index is written

# Called with the name of what is converted, how many clips of it are done, and how many there are to do.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One clip's features: `frames` usable ones of `total`, `dim` values each; or why its file was refused.

    `size` and `mtime_ns` are the source file's; when they change, it is converted again.
    """

    size: int
    mtime_ns: int
    frames: int = 0
    total: int = 0
    dim: int = 0
    refused: str = ""


class Converted:
    """The features of one modality, by clip, out of the cache."""

    def __init__(self, cache: Path, entries: Mapping[str, FileEntry], single: bool) -> None:
        self._cache = cache
        widths = Counter(entry.dim for entry in entries.values() if entry.frames)
        # The width of most: a file of another width is the odd one, wherever in the set it comes.
        self.dim = widths.most_common(1)[0][0] if widths else 1
        self.refused: dict[str, str] = {}
        self._entries: dict[str, FileEntry] = {}
        for clip_id, entry in entries.items():
            reason = entry.refused
            if entry.frames and entry.dim != self.dim:
                reason = f"clip {clip_id} has {entry.dim} values a frame, most others {self.dim}"
            elif single and entry.total > 1:
                reason = f"clip {clip_id} has {entry.total} rows, not the one vector of all its words"
            if reason:
                self.refused[clip_id] = reason
            else:
                self._entries[clip_id] = entry

    def __len__(self) -> int:
        """How many clips have frames."""
        return sum(entry.frames > 0 for entry in self._entries.values())

    @property
    def frames(self) -> int:
        """Usable frames of all clips."""
        return sum(entry.frames for entry in self._entries.values())

    @property
    def dropped(self) -> int:
        """Frames left out because they were not finite, of all clips."""
        return sum(entry.total - entry.frames for entry in self._entries.values())

    def total(self, clip_id: str) -> int:
        """How many frames the clip's file has, unusable ones included; 0 if there is none."""
        return self._entries[clip_id].total if clip_id in self._entries else 0

    def read(self, clip_id: str, places: int) -> Frames:
        """The clip's frames among its first `places`; none if there is no usable file.

        Raises:
            DataError: the cache is damaged.
        """
        if not self._entries.get(clip_id, FileEntry(size=0, mtime_ns=0)).frames:
            return Frames(np.zeros((0, self.dim), np.float32), np.zeros(0, np.int64), self.total(clip_id))
        path = _file(self._cache, clip_id)
        try:
            with safe_open(path, framework="np") as file:
                index = file.get_tensor("index")
                stop = int(np.searchsorted(index, places))
                return Frames(first_rows(file, "values", stop), index[:stop], self.total(clip_id))
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"{path} cannot be read: {error}; remove {self._cache} and run `emi convert`"
            ) from error


def convert(
    source: Path | Mapping[str, Path],
    cache: Path,
    ids: Sequence[str],
    progress: Progress,
    *,
    single: bool = False,
) -> Converted:
    """Convert what is not yet in the cache, and open it. A bad file is recorded and passed over.

    Args:
        source: each clip's file; or one pickle of all clips, a dict from id to array, or a list that begins
            with one. No file at all means that the source is gone, and the cache is taken as it is.
        cache: folder to keep the result in; its name is what `progress` is told.
        ids: the clips that count.
        progress: told how far it is, if there is something to do.
        single: whether a file of more than one row is a bad one.

    Raises:
        DataError: the cache cannot be written, or the one file of all clips cannot be read.
    """
    entries = _read_index(cache)
    files = dict.fromkeys(ids, source) if isinstance(source, Path) else source
    wanted = [clip_id for clip_id in ids if clip_id in files] if files else ids
    stamps = {clip_id: _stamp(files[clip_id]) for clip_id in wanted} if files else {}
    pending = [clip_id for clip_id, stamp in stamps.items() if not _is_current(entries.get(clip_id), stamp)]
    if not pending:
        return _opened(cache, entries, wanted, single=single)
    held = _whole_set(source) if isinstance(source, Path) else {}
    try:
        for done, clip_id in enumerate(pending):
            progress(cache.name, done, len(pending))
            path = files[clip_id]
            try:
                frames = (
                    read_frames(path) if path is not source else as_frames(held.get(clip_id, []), clip_id)
                )
            except DataError as error:
                size, mtime_ns = stamps[clip_id]
                reason = str(error).replace(str(path), path.name)
                entries[clip_id] = FileEntry(size=size, mtime_ns=mtime_ns, refused=reason)
            else:
                entries[clip_id] = _keep(cache, clip_id, frames, stamps[clip_id])
            if done % KEEP_EVERY == KEEP_EVERY - 1:
                _write_index(cache, entries)
        progress(cache.name, len(pending), len(pending))
    finally:
        _write_index(cache, entries)
    return _opened(cache, entries, wanted, single=single)


def _is_current(entry: FileEntry | None, stamp: tuple[int, int]) -> bool:
    return entry is not None and (entry.size, entry.mtime_ns) == stamp


def _keep(cache: Path, clip_id: str, frames: Frames, stamp: tuple[int, int]) -> FileEntry:
    """Write a clip's frames to the cache, if it has any, and say what they are."""
    if len(frames.index):
        with replacing(_file(cache, clip_id)) as part:
            save_file({"values": frames.values, "index": frames.index}, part)
    return FileEntry(
        size=stamp[0],
        mtime_ns=stamp[1],
        frames=len(frames.index),
        total=frames.total,
        dim=frames.values.shape[1],
    )


def _opened(cache: Path, entries: Mapping[str, FileEntry], ids: Iterable[str], *, single: bool) -> Converted:
    return Converted(cache, {clip_id: entries[clip_id] for clip_id in ids if clip_id in entries}, single)


def _file(cache: Path, clip_id: str) -> Path:
    return cache / f"{clip_id}.safetensors"


def _stamp(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the file") from error
    return facts.st_size, facts.st_mtime_ns


def _whole_set(path: Path) -> dict[str, Plain]:
    value = read_pickle(path, WHOLE_SET_BYTES)
    if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        value = value[0]  # features, then what was predicted from them
    if not isinstance(value, dict):
        raise DataError(
            f"{path} holds a {type(value).__name__}; a file of all clips is a dict from id to array"
        )
    return {normal_id(str(key)): features for key, features in value.items()}


def _read_index(cache: Path) -> dict[str, FileEntry]:
    """What the cache has; nothing if there is none, or if it is damaged or of another version."""
    try:
        metadata = json.loads((cache / INDEX).read_text(encoding="utf-8"))
        if metadata["format_version"] != FORMAT_VERSION:
            return {}
        return {clip_id: FileEntry(**entry) for clip_id, entry in metadata["clips"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _write_index(cache: Path, entries: Mapping[str, FileEntry]) -> None:
    metadata = {
        "format_version": FORMAT_VERSION,
        "clips": {clip_id: asdict(entry) for clip_id, entry in entries.items()},
    }
    with replacing(cache / INDEX) as part:
        part.write_text(json.dumps(metadata), encoding="utf-8")
