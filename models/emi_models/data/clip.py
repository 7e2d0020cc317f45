"""A clip: vision, audio and text features of one person over time, its ratings, and its file.

A clip is stored in one safetensors file: features with their stamps, and in the header its transcript and its
source. `normal_id` and `check_id` say which clip ids are allowed, in tables and as names of files.

Ratings come from CSV files with Hume-Vidmimic2's header or with our column names. Only this file knows
Hume-Vidmimic2's header.
"""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from emi_models import EMOTIONS, MODALITIES
from emi_models.errors import DataError
from emi_models.files import replacing
from emi_models.inputs import FrameRun, FusionInputs, StreamWindow, shown_frames
from emi_models.targets import EMI_TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import TextIO

    from numpy.typing import NDArray

    from emi_models import Modality
    from emi_models.inputs import FusionShapes
    from emi_models.targets import Target

__all__ = [
    "OFFICIAL_HEADER",
    "SPLITS",
    "WINDOW_S",
    "Clip",
    "ClipMetadata",
    "ClipSet",
    "FeatureTrack",
    "Rating",
    "check_id",
    "check_split",
    "csv_rows",
    "first_rows",
    "make_clip",
    "normal_id",
    "parse_targets",
    "read_clip",
    "read_metadata",
    "read_ratings",
    "read_split",
    "split_file",
    "stack_targets",
    "write_clip",
]

WINDOW_S: Final = 12.0  # of the papers, and of live use
NS_PER_S: Final = 1_000_000_000
LONGEST: Final = 200  # characters; a file system allows 255 bytes, suffix included
DIGITS: Final = 5  # Hume-Vidmimic2 counts its clips from 00000
SPLITS: Final = ("train", "valid", "test")
MAX_LINE: Final = 1 << 20  # characters of a line; a rating has about a hundred
# Exactly these columns in this order; the six emotions are those of EMOTIONS.
OFFICIAL_HEADER: Final = (
    *("Filename", "Admiration", "Amusement", "Determination", "Empathic Pain", "Excitement", "Joy"),
)
_OFFICIAL_COLUMNS: Final = {name: column for column, name in enumerate(("id", *EMOTIONS))}


@dataclass(frozen=True, slots=True, eq=False)
class FeatureTrack:
    """Features of one modality in order of time: stamps (T,) int64 ns from the clip's start, values (T, D).

    The stamp of a frame is its capture time. The stamp of a text row is the time from which it is known; a
    row of zeros means that from then on no words are known.
    """

    t_ns: NDArray[np.int64]
    values: NDArray[np.float32]

    @classmethod
    def empty(cls, dim: int) -> FeatureTrack:
        """A track without frames, of width `dim`."""
        return cls(np.zeros(0, np.int64), np.zeros((0, dim), np.float32))

    def until(self, end_ns: int, span_ns: int) -> NDArray[np.float32]:
        """Values (n, D) of the last `span_ns` before the newest frame in the 12 s before `end_ns`.

        The span ends at the newest frame, not at `end_ns`, so that a face that was just lost is still used.
        """
        return self.values[shown_frames(self.t_ns, end_ns - round(WINDOW_S * NS_PER_S), end_ns, span_ns)]


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One clip. A missing modality is an empty track. `targets` as in `Rating`, None if unrated."""

    id: str
    vision: FeatureTrack
    audio: FeatureTrack
    text: FeatureTrack
    duration_ns: int
    targets: NDArray[np.float32] | None = None

    def window(
        self, shapes: FusionShapes, end_ns: int, spans_s: Mapping[Modality, float] | None = None
    ) -> FusionInputs:
        """The window that ends at `end_ns`: the last 12 s of this clip, one row of `shapes`.

        The newest `shapes.*_frames` frames are packed to the front. Vision and audio are present if they have
        a frame in the window, text if words are known at its end. Live use adds dropout times
        (emi_live.window).

        Args:
            shapes: the network's sizes.
            end_ns: the window's end, from the clip's start.
            spans_s: seconds of a modality, back from its newest frame, if not 12.
        """
        spans = spans_s or {}

        def run(track: FeatureTrack, span_s: float, frames: int) -> FrameRun:
            return FrameRun(0, track.until(end_ns, round(span_s * NS_PER_S))).newest(frames)

        vision = run(self.vision, spans.get("vision", WINDOW_S), shapes.vision_frames)
        audio = run(self.audio, spans.get("audio", WINDOW_S), shapes.audio_frames)
        known = int(np.searchsorted(self.text.t_ns, end_ns, side="right"))
        text = self.text.values[known - 1] if known else np.zeros(shapes.text_dim, np.float32)
        return StreamWindow(
            vision=vision,
            vision_present=len(vision.values) > 0,
            audio=audio,
            audio_present=len(audio.values) > 0,
            text=text,
            text_present=bool(text.any()),
        ).inputs(shapes)


class ClipSet(Protocol):
    """A folder of clips, read one at a time."""

    @property
    def shapes(self) -> FusionShapes:
        """The sizes of a 12 s window of these clips."""

    @property
    def encoders(self) -> Mapping[Modality, str]:
        """The encoder of the features by modality, as a checkpoint's header names it."""

    @property
    def description(self) -> str:
        """A description of the data with the number of clips, in one line for a checkpoint's header."""

    @property
    def licence(self) -> str:
        """The licence terms that apply to a checkpoint trained on these clips, in one line."""

    def ids(self, split: str) -> tuple[str, ...]:
        """The clips of `train`, `valid` or `test`, in the set's order; empty if there is none."""

    def targets(self, split: str) -> NDArray[np.float32]:
        """Ratings (N, K) in [0, 1] of `ids(split)`, in the order of the targets; NaN where there is none."""

    def load(self, clip_id: str) -> Clip:
        """One clip with its features."""


_KEY: Final = "emi_clip"  # the one metadata entry, a JSON object


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipMetadata:
    """What a clip's file holds in addition to features: transcript, name of the video, length."""

    id: str
    transcript: str
    source: str
    duration_ns: int


def write_clip(path: Path, clip: Clip, *, transcript: str = "", source: str = "") -> None:
    """Write one clip's features. The file is complete or absent; ratings are in the manifest.

    Args:
        path: the file to write or replace.
        clip: finite features with stamps that do not decrease.
        transcript: its words, "" if there are none.
        source: the file it came from; only the name is stored.

    Raises:
        DataError: the clip is invalid, or cannot be written.
    """
    tensors: dict[str, NDArray[np.generic]] = {}
    for modality in MODALITIES:
        track: FeatureTrack = getattr(clip, modality)
        if problem := _problem(track, None):
            raise DataError(f"clip {clip.id} has {modality} {problem}; nothing was written")
        tensors[modality] = np.ascontiguousarray(track.values, np.float32)
        tensors[f"{modality}_t_ns"] = np.ascontiguousarray(track.t_ns, np.int64)
    name = source.replace("\\", "/").rpartition("/")[2]
    metadata = ClipMetadata(id=clip.id, transcript=transcript, source=name, duration_ns=clip.duration_ns)
    with replacing(path) as part:
        save_file(tensors, part, metadata={_KEY: json.dumps(asdict(metadata))})


def read_metadata(path: Path) -> ClipMetadata:
    """Transcript, source and length of a clip's file; features are not read.

    Raises:
        DataError: there is no such file, or `write_clip` did not write it.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata = json.loads((file.metadata() or {})[_KEY])
        found = ClipMetadata(**metadata)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read: {error}; extract the clip again") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not a clip file of emi-live: {error!r}; extract the clip again"
        ) from error
    if not isinstance(found.duration_ns, int) or found.duration_ns < 0:
        raise DataError(f"{path} has the length {found.duration_ns!r} ns; extract the clip again")
    return found


def read_clip(path: Path, shapes: FusionShapes, first_ns: int | None = None) -> Clip:
    """The clip in a file, without ratings.

    Args:
        path: a file that `write_clip` wrote.
        shapes: the widths that its features must have.
        first_ns: how much of a longer clip is read; None = all.

    Raises:
        DataError: the file is damaged, or its features have other widths.
    """
    metadata = read_metadata(path)
    tracks: dict[Modality, FeatureTrack] = {}
    try:
        with safe_open(path, framework="np") as file:
            for modality in MODALITIES:
                t_ns: NDArray[np.int64] = file.get_tensor(f"{modality}_t_ns")
                stop = len(t_ns) if first_ns is None else int(np.searchsorted(t_ns, first_ns, side="right"))
                tracks[modality] = FeatureTrack(t_ns[:stop], first_rows(file, modality, stop))
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read: {error}; extract the clip again") from error
    return make_clip(metadata, tracks, shapes, str(path))


def make_clip(
    metadata: ClipMetadata, tracks: Mapping[Modality, FeatureTrack], shapes: FusionShapes, where: str
) -> Clip:
    """A clip, without ratings, of what a file held; `where` names the file in errors.

    Raises:
        DataError: its features have other widths than `shapes`, or cannot be features.
    """
    for modality, track in tracks.items():
        if problem := _problem(track, getattr(shapes, f"{modality}_dim")):
            raise DataError(f"{where} has {modality} {problem}; extract the clip again")
    vision, audio, text = (tracks[modality] for modality in MODALITIES)
    return Clip(metadata.id, vision, audio, text, metadata.duration_ns)


def _problem(track: FeatureTrack, dim: int | None) -> str:
    """What is wrong with a track, "" if nothing; the text follows the modality's name in a message."""
    t_ns, values = track.t_ns, track.values
    if values.ndim != 2 or t_ns.shape != values.shape[:1] or (dim is not None and values.shape[1] != dim):
        return f"of shape {values.shape} with stamps {t_ns.shape}, not (T, {dim or 'D'}) with (T,)"
    if values.dtype != np.float32 or t_ns.dtype != np.int64:
        return f"of {values.dtype} with stamps of {t_ns.dtype}, not float32 with int64"
    if (t_ns[1:] < t_ns[:-1]).any():
        return "with stamps that decrease"
    return "" if np.isfinite(values).all() else "with NaN or infinite values"


def normal_id(name: str) -> str:
    """The clip id in a CSV's cell or a file's name: `1`, `1.0` and `00001.mp4` all become `00001`.

    Numbers are padded to five digits; a spreadsheet's `.0` and a file's suffix are removed.

    Raises:
        DataError: nothing is left, or the rest is not a valid file name.
    """
    bare = re.sub(r"\.0+$", "", name.strip())
    bare = re.sub(r"\.[A-Za-z][A-Za-z0-9]*$", "", bare)
    return check_id(bare.zfill(DIGITS) if re.fullmatch(r"[0-9]+", bare) else bare)


def check_id(clip_id: str) -> str:
    """Return the id if it can be a file's name.

    Raises:
        DataError: it is empty or too long, begins with a dot, or contains a slash or a control character.
    """
    if (
        not 1 <= len(clip_id) <= LONGEST
        or clip_id != clip_id.strip()
        or clip_id.startswith(".")
        or re.search(r"[/\\\x00-\x1f\x7f]", clip_id)
    ):
        raise DataError(
            f"{clip_id[:LONGEST]!r} is not a valid clip id. It becomes a file name: give 1 to {LONGEST} "
            "characters, no slash, no control character, no dot in front"
        )
    return clip_id


def first_rows(file: Any, name: str, rows: int) -> NDArray[np.float32]:
    """The first rows of a tensor in a safetensors file opened for numpy; the others are not read.

    `file` comes from `safetensors.safe_open`, which exports no type for it.
    """
    if file.get_slice(name).get_shape()[0] <= rows:
        whole: NDArray[np.float32] = file.get_tensor(name)
        return whole
    some: NDArray[np.float32] = file.get_slice(name)[: max(rows, 1)]  # it cannot slice to nothing
    return some[:rows]


@dataclass(frozen=True, slots=True, eq=False)
class Rating:
    """The ratings of one clip: (K,) float32 in the order of the targets, None if it was not rated.

    A value is relative to its target's range, in [0, 1], and NaN if this target was not rated. `split` is ""
    if the file does not name it.
    """

    targets: NDArray[np.float32] | None
    split: str = ""


def split_file(folder: Path, split: str) -> Path:
    """Where Hume-Vidmimic2 keeps the ratings of `train`, `valid` or `test`."""
    return folder / f"{split}_split.csv"


def read_split(path: Path, targets: Sequence[Target] = EMI_TARGETS) -> dict[str, Rating]:
    """The ratings of one split file of Hume-Vidmimic2, by five-digit id, in the file's order.

    `targets` are those of the six to read. An empty cell means that this target is unrated. Participants fill
    the test split with zeros; the caller decides whether a file of zeros means unrated.

    Raises:
        DataError: the header is different, an id occurs twice, or a rating is not a number in [0, 1].
    """
    rows = csv_rows(path)
    number, header = next(rows, (1, []))
    if tuple(header) != OFFICIAL_HEADER:
        raise DataError(
            f"{path}:{number} has the header {','.join(header)!r}, not {','.join(OFFICIAL_HEADER)!r}; "
            "take the data set's own file"
        )
    return _rated(path, rows, _official_columns(path, targets), targets)


def _official_columns(path: Path, targets: Sequence[Target]) -> Mapping[str, int]:
    if foreign := [target.name for target in targets if target.name not in EMOTIONS]:
        raise DataError(
            f"{path} rates {', '.join(EMOTIONS)}, not {foreign[0]}; give ratings of your own with --labels"
        )
    return _OFFICIAL_COLUMNS


def read_ratings(path: Path, targets: Sequence[Target] = EMI_TARGETS) -> dict[str, Rating]:
    """Ratings by id (see `normal_id`), from a file or folder in one of the known formats.

    Args:
        path: a CSV with Hume-Vidmimic2's header; or a CSV with `id`, a column for each target in any order,
            and optionally `split`; or a folder with `train_split.csv` and `valid_split.csv`, which then also
            give the split.
        targets: which columns to read; others are ignored.

    Raises:
        DataError: it has another format, or its content is invalid (see `read_split`).
    """
    if path.is_dir():
        found: dict[str, Rating] = {}
        for split in SPLITS:
            if not split_file(path, split).is_file():
                continue
            for clip_id, rating in read_split(split_file(path, split), targets).items():
                if clip_id in found:
                    raise DataError(f"clip {clip_id} is in {split} and {found[clip_id].split}; keep one")
                found[clip_id] = Rating(rating.targets, split)
        if not found:
            raise DataError(f"{path} has no train_split.csv; give a CSV file or the data set's folder")
        return found
    rows = csv_rows(path)
    number, header = next(rows, (1, []))
    if tuple(header) == OFFICIAL_HEADER:
        return _rated(path, rows, _official_columns(path, targets), targets)
    names = [target.name for target in targets]
    if missing := [name for name in ("id", *names) if header.count(name) != 1]:
        raise DataError(
            f"{path}:{number} lacks the column {missing[0]!r}, or has it twice; give id,{','.join(names)} "
            f"or {','.join(OFFICIAL_HEADER)}, or name your columns with --targets"
        )
    return _rated(path, rows, {name: header.index(name) for name in header}, targets)


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a CSV that are not blank, with their numbers, the header first.

    Raises:
        DataError: there is no such file, or it is not a CSV in UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets write a byte order mark
            reader = csv.reader(_lines(file), strict=True)
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield reader.line_num, row
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; give a CSV of ratings") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not CSV in UTF-8: {error}; save it in that form") from error


def _lines(file: TextIO) -> Iterator[str]:
    """The lines of a file; a line of `MAX_LINE` characters is refused, so that memory stays bounded."""
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise csv.Error(f"a line has {MAX_LINE} characters or more")
        yield line


def stack_targets(
    targets: Sequence[NDArray[np.float32] | None], count: int = len(EMOTIONS)
) -> NDArray[np.float32]:
    """Ratings (N, count); the row of an unrated clip is NaN."""
    unrated = np.full(count, np.nan, np.float32)
    return np.array([unrated if row is None else row for row in targets], np.float32).reshape(-1, count)


def check_split(cell: str, where: str) -> str:
    """The split that a cell names, "" if it is empty.

    Raises:
        DataError: there is no such split; `where` names the row in the message.
    """
    split = cell.strip()
    if split not in ("", *SPLITS):
        raise DataError(f"{where} has the split {split!r}; there are {', '.join(SPLITS)}")
    return split


def parse_targets(
    cells: Sequence[str], where: str, targets: Sequence[Target] = EMI_TARGETS
) -> NDArray[np.float32] | None:
    """The rating (see `Rating`) in a row's cells, one for each target; None if all are empty.

    Raises:
        DataError: a cell is neither empty nor a number in its target's range; `where` names the row in the
            message.
    """
    if not any(cell.strip() for cell in cells):
        return None
    shares = []
    for target, cell in zip(targets, cells, strict=True):
        if not cell.strip():
            shares.append(math.nan)
            continue
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not target.low <= value <= target.high:
            raise DataError(
                f"{where} has {cell!r} for {target.name}, not a number from {target.low:g} to "
                f"{target.high:g}; correct it, or leave the cell empty if it was not rated"
            )
        shares.append(target.share(value))
    return np.array(shares, np.float32)


def _rated(
    path: Path,
    rows: Iterator[tuple[int, list[str]]],
    columns: Mapping[str, int],
    targets: Sequence[Target],
) -> dict[str, Rating]:
    found: dict[str, Rating] = {}
    lines: dict[str, int] = {}
    for number, row in rows:
        if len(row) <= max(columns.values()):
            raise DataError(f"{path}:{number} has {len(row)} cells, fewer than its header; correct the line")
        clip_id = normal_id(row[columns["id"]])
        if clip_id in lines:
            raise DataError(f"{path}:{number} rates clip {clip_id} again, as line {lines[clip_id]}; keep one")
        lines[clip_id] = number
        split = check_split(row[columns["split"]] if "split" in columns else "", f"{path}:{number}")
        cells = [row[columns[target.name]] for target in targets]
        found[clip_id] = Rating(parse_targets(cells, f"{path}:{number}", targets), split)
    return found
