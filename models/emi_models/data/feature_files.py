"""Feature files from other programs: several file formats are read and stored as float32 in safetensors.

`read_frames` reads the file of one clip. `FrameRate` gives evenly spaced times to frames without times.
`convert` reads a whole set once and stores it, because pickles are slow and unsafe to load.

The cache of a folder of features has `index.json`, with each clip's number of frames or why its file was
refused, and `<id>.safetensors` with `values` (n, D) float32 and `index` (n,), the frames' places. An
interrupted conversion continues where it stopped; changed files are converted again. The cache can be used
without its source.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from emi_models.data.clip import first_rows, normal_id
from emi_models.data.unpickle import MAX_BYTES, read_pickle
from emi_models.errors import DataError
from emi_models.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from emi_models.data.unpickle import Plain

__all__ = [
    "OPENFACE",
    "SUFFIXES",
    "WAV2VEC2",
    "Converted",
    "FrameRate",
    "Frames",
    "Progress",
    "as_frames",
    "convert",
    "read_frames",
    "read_openface",
]

SUFFIXES: Final = (".pkl", ".pickle", ".pt", ".pth", ".npy", ".safetensors")
OPENFACE: Final = ".csv"
WIDEST: Final = 65536  # values a frame, as in FusionShapes
NS_PER_S: Final = 1_000_000_000
FORMAT_VERSION: Final = 1
INDEX: Final = "index.json"
WHOLE_SET_BYTES: Final = 64 << 30  # limit of one file for all clips; it is read into memory
KEEP_EVERY: Final = 500  # the index is written after so many clips
# Called with the name of the features, how many clips are converted, and how many there are.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """The usable frames of one modality: values (n, D) float32, all finite, and their places `index` (n,).

    `total` counts all frames of the file. Frames with a value that is NaN or infinite are left out; the
    others keep their places, and so their times.
    """

    values: NDArray[np.float32]
    index: NDArray[np.int64]
    total: int

    @property
    def dropped(self) -> int:
        """How many frames were left out."""
        return self.total - len(self.index)


def read_frames(path: Path, max_bytes: int | None = None) -> Frames:
    """The frames of a pickle, a torch, numpy or safetensors file of at most `max_bytes`, by default 1 GiB.

    A CSV is OpenFace's: see `read_openface`.

    Raises:
        DataError: it cannot be read, is refused, or holds no frames (see `as_frames`).
    """
    value: Plain
    max_bytes = MAX_BYTES if max_bytes is None else max_bytes
    try:
        if path.suffix in (".npy", ".safetensors") and path.stat().st_size > max_bytes:
            raise DataError(f"{path} is larger than {max_bytes} bytes; split it into clips")
        if path.suffix == OPENFACE:
            return read_openface(path, max_bytes)
        if path.suffix == ".npy":
            value = np.load(path, allow_pickle=False)
        elif path.suffix == ".safetensors":
            value = _only_tensor(path)
        else:
            value = read_pickle(path, max_bytes)
    except (OSError, EOFError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read: {error}; fetch or make it again") from error
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is damaged: {error}; fetch or make it again") from error
    return as_frames(value, str(path))


def as_frames(value: Plain, name: str) -> Frames:
    """Frames from what a file held.

    An array (T, D) is T frames, (D,) is one frame, an empty one is none; a list of rows of one length is an
    array. Of a pair `[features (T, D), scores]`, as some extractors write it, the features are used.

    Args:
        value: the content of the file.
        name: the file's name in errors.

    Raises:
        DataError: it is anything else.
    """
    if isinstance(value, list | tuple) and len(value) == 2 and np.ndim(_numbers(value[0], name)) == 2:
        value = value[0]
    array = _numbers(value, name)
    if array.size == 0:
        width = array.shape[1] if array.ndim == 2 and 1 <= array.shape[1] <= WIDEST else 1
        return Frames(
            np.zeros((0, width), np.float32), np.zeros(0, np.int64), len(array) if array.ndim else 0
        )
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.shape[1] > WIDEST:
        raise DataError(f"{name} has shape {array.shape}, not (frames, values); store one row a frame")
    with np.errstate(over="ignore"):  # a value that overflows becomes infinite; its frame is dropped below
        values = array.astype(np.float32)
    finite = np.isfinite(values).all(axis=1)
    return Frames(values[finite], np.flatnonzero(finite), len(values))


UNITS: Final = re.compile(r"AU\d\d_r")
POSE: Final = tuple(f"pose_{part}{axis}" for part in "TR" for axis in "xyz")
UNIT_RANGE: Final = 5.0  # of an action unit's intensity
MM_PER_M: Final = 1000.0


def read_openface(path: Path, max_bytes: int) -> Frames:
    """Motion from a CSV of OpenFace 2: intensities of action units, then the head's place and turn.

    Units are scaled from [0, 5] to [0, 1], positions from mm to m; rotations are in radians. Frame k of the
    video has index k - 1. Frames without a face (`success` is 0) are left out; of several faces in a frame,
    the one with the highest `confidence` is used.

    Source: OpenFace's wiki, "Output Format".

    Raises:
        DataError: the file has another format.
    """
    if path.stat().st_size > max_bytes:
        raise DataError(f"{path} is larger than {max_bytes} bytes; split it into clips")
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        header = [name.strip() for name in next(rows, [])]
        columns = [*(name for name in header if UNITS.fullmatch(name)), *POSE]
        if gone := sorted({"frame", "success", *POSE} - set(header)):
            raise DataError(f"{path} has no column {gone[0]}; give what OpenFace's FeatureExtraction writes")
        place = {name: header.index(name) for name in (*columns, "frame", "success")}
        sure = header.index("confidence") if "confidence" in header else place["success"]
        best: dict[int, tuple[float, list[float]]] = {}
        for row in rows:
            if not row:
                continue
            try:
                number, found = int(float(row[place["frame"]])), float(row[place["success"]]) > 0
                values = [float(row[place[name]]) for name in columns]
                confidence = float(row[sure])
            except (ValueError, IndexError) as error:
                raise DataError(f"{path}:{rows.line_num} is not a line of OpenFace: {error}") from error
            if not found:
                values, confidence = [math.nan] * len(columns), -1.0
            if number not in best or confidence > best[number][0]:
                best[number] = confidence, values
    if not best:
        return Frames(np.zeros((0, len(columns)), np.float32), np.zeros(0, np.int64), 0)
    if min(best) < 0:
        raise DataError(f"{path} has a frame {min(best)}; give what OpenFace's FeatureExtraction writes")
    first = min(1, min(best))  # it counts from 1; pictures of a folder may count from 0
    scale = np.ones(len(columns))
    scale[: -len(POSE)] = UNIT_RANGE
    scale[-len(POSE) : -3] = MM_PER_M
    numbers = np.array(sorted(best), np.int64)
    values_ = (np.array([best[number][1] for number in numbers]) / scale).astype(np.float32)
    finite = np.isfinite(values_).all(axis=1)
    return Frames(values_[finite], numbers[finite] - first, int(numbers[-1]) - first + 1)


def _numbers(value: Plain, name: str) -> NDArray[np.generic]:
    try:
        array: NDArray[np.generic] = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise DataError(f"{name} holds rows of different lengths; store one row a frame") from error
    if array.dtype.kind not in "biuf":
        held = type(value).__name__ if array.ndim == 0 else f"{type(value).__name__} of {array.dtype}"
        raise DataError(f"{name} holds a {held}, not numbers; store an array (frames, values)")
    return array


def _only_tensor(path: Path) -> NDArray[np.generic]:
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        if len(names) != 1:
            raise DataError(f"{path} holds {len(names)} tensors, not one; store the features alone")
        array: NDArray[np.generic] = file.get_tensor(names[0]).float().numpy()
    return array


@dataclass(frozen=True, slots=True)
class FrameRate:
    """Frame k is known at `first_ns + k * hop_ns`, and lasts `first_ns`, or one hop if that is 0."""

    hop_ns: float
    first_ns: int = 0

    @classmethod
    def of(cls, hz: float) -> FrameRate:
        """Vision: frame k at k / hz."""
        return cls(NS_PER_S / hz)

    def stamps(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """When the frames with these numbers are known, ns."""
        return self.first_ns + np.round(index * self.hop_ns).astype(np.int64)

    def length_ns(self, frames: int) -> int:
        """How long `count` frames last, from the start to the end of the last one; 0 for none."""
        return 0 if frames == 0 else round((frames - 1) * self.hop_ns + (self.first_ns or self.hop_ns))

    def count(self, until_ns: int) -> int:
        """How many frames are known at `until_ns`, inclusive."""
        return max(0, 1 + int((until_ns - self.first_ns + 0.5) // self.hop_ns))


# The convolutions of wav2vec 2.0 on 16 kHz sound: 400 samples a frame, one every 320.
WAV2VEC2: Final = FrameRate(hop_ns=20_000_000, first_ns=25_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One clip's features: `frames` usable ones of `total`, `dim` values each; or why the file was refused.

    `size` and `mtime_ns` are the source file's; when they change, it is converted again.
    """

    size: int
    mtime_ns: int
    frames: int = 0
    total: int = 0
    dim: int = 0
    refused: str = ""


class Converted:
    """The features of one modality, by clip, from the cache."""

    def __init__(self, cache: Path, entries: Mapping[str, FileEntry], single: bool) -> None:
        self._cache = cache
        widths = Counter(entry.dim for entry in entries.values() if entry.frames)
        # The width of most clips; files with another width are refused, in whatever order they come.
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
    """Convert what is not yet in the cache, and open it. A bad file is recorded and skipped.

    Args:
        source: each clip's file; or one pickle of all clips, a dict from id to array, or a list whose first
            item is such a dict. An empty mapping means that the source is gone; then the cache is used as it
            is.
        cache: folder for the result; `progress` gets its name.
        ids: which clips to convert.
        progress: called with the number of clips done, if there is something to do.
        single: whether a file with more than one row is refused.

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
    """Write a clip's frames to the cache, if it has any, and return their entry."""
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
        value = value[0]  # features, then predictions
    if not isinstance(value, dict):
        raise DataError(
            f"{path} holds a {type(value).__name__}; a file of all clips is a dict from id to array"
        )
    return {normal_id(str(key)): features for key, features in value.items()}


def _read_index(cache: Path) -> dict[str, FileEntry]:
    """The entries of the cache; none if it is missing, damaged or of another version."""
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
