"""A clip: the features of one person's face, voice and words over time, its ratings, and its file.

A clip is stored in one safetensors file: features with their stamps, and in the header its words and its
source. `normal_id` and `check_id` say which clip ids are allowed, in tables and as names of files.

Ratings come from CSV files, with Hume-Vidmimic2's own header or with our column names; Hume-Vidmimic2's is
translated here only.
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
# Exactly so and in this order; the same six as EMOTIONS.
OFFICIAL_HEADER: Final = (
    *("Filename", "Admiration", "Amusement", "Determination", "Empathic Pain", "Excitement", "Joy"),
)
_OFFICIAL_COLUMNS: Final = {name: column for column, name in enumerate(("id", *EMOTIONS))}


@dataclass(frozen=True, slots=True, eq=False)
class FeatureTrack:
    """Features of one modality in order of time: stamps (T,) int64 ns from the clip's start, values (T, D).

    A frame's stamp is its capture time; a text row's is the moment from which it is known. A text row of
    zeros says that no words are known any more.
    """

    t_ns: NDArray[np.int64]
    values: NDArray[np.float32]

    @classmethod
    def empty(cls, dim: int) -> FeatureTrack:
        """No frame at all, each of `dim` values."""
        return cls(np.zeros(0, np.int64), np.zeros((0, dim), np.float32))

    def until(self, end_ns: int, span_ns: int) -> NDArray[np.float32]:
        """Values (n, D) of the last `span_ns` up to the newest frame of the 12 s before `end_ns`.

        Back from the newest frame, not from the end: a face that was lost a moment ago is still shown.
        """
        return self.values[shown_frames(self.t_ns, end_ns - round(WINDOW_S * NS_PER_S), end_ns, span_ns)]


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One clip. An empty track is a modality that is missing; `targets` as of `Rating`, None if unrated."""

    id: str
    vision: FeatureTrack
    audio: FeatureTrack
    text: FeatureTrack
    duration_ns: int
    targets: NDArray[np.float32] | None = None

    def window(
        self, shapes: FusionShapes, end_ns: int, spans_s: Mapping[Modality, float] | None = None
    ) -> FusionInputs:
        """What a network would be shown at `end_ns`: the last 12 s of this clip, one row of `shapes`.

        Frames are packed to the front, the newest `shapes.*_frames` of them; a modality is present if it has
        a frame there, words if any are known just then. Live use adds its dropout times (emi_live.window).

        Args:
            shapes: the network's sizes.
            end_ns: the window's end, from the clip's start.
            spans_s: seconds of a modality that are shown, back from its newest frame, where it is not 12.
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
        """The encoder whose features these are, by modality: what a checkpoint's header names."""

    @property
    def description(self) -> str:
        """What data these are and how many clips, in one line for a checkpoint's header."""

    @property
    def licence(self) -> str:
        """The terms that a checkpoint trained on these clips inherits, in one line."""

    def ids(self, split: str) -> tuple[str, ...]:
        """The clips of `train`, `valid` or `test`, in the set's order; empty if there is none."""

    def targets(self, split: str) -> NDArray[np.float32]:
        """Ratings (N, K) in [0, 1] of `ids(split)`, in the order of the targets; NaN where there is none."""

    def load(self, clip_id: str) -> Clip:
        """One clip with its features."""


_KEY: Final = "emi_clip"  # the one metadata entry, a JSON object


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipMetadata:
    """What a clip's file says besides features: its words, the name of its video, its length."""

    id: str
    transcript: str
    source: str
    duration_ns: int


def write_clip(path: Path, clip: Clip, *, transcript: str = "", source: str = "") -> None:
    """Write one clip's features, whole or not at all; its ratings belong to the manifest.

    Args:
        path: the file to write or replace.
        clip: finite features with stamps that do not go back.
        transcript: its words, "" if there are none.
        source: the file it came from, of which only the name is kept.

    Raises:
        DataError: the clip is not as it should be, or cannot be written.
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
    """What a clip's file says besides features, without reading those.

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
    """The clip that a file holds, without ratings.

    Args:
        path: a file that `write_clip` wrote.
        shapes: whose widths its features must have.
        first_ns: how much of a longer clip is read; None = all.

    Raises:
        DataError: the file is damaged, or its features are others.
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
    for modality, track in tracks.items():
        if problem := _problem(track, getattr(shapes, f"{modality}_dim")):
            raise DataError(f"{path} has {modality} {problem}; extract the clip again")
    vision, audio, text = (tracks[modality] for modality in MODALITIES)
    return Clip(metadata.id, vision, audio, text, metadata.duration_ns)


def _problem(track: FeatureTrack, dim: int | None) -> str:
    """What is wrong with a track, in words that follow the modality's name; "" if nothing is."""
    t_ns, values = track.t_ns, track.values
    if values.ndim != 2 or t_ns.shape != values.shape[:1] or (dim is not None and values.shape[1] != dim):
        return f"of shape {values.shape} with stamps {t_ns.shape}, not (T, {dim or 'D'}) with (T,)"
    if values.dtype != np.float32 or t_ns.dtype != np.int64:
        return f"of {values.dtype} with stamps of {t_ns.dtype}, not float32 with int64"
    if (t_ns[1:] < t_ns[:-1]).any():
        return "whose stamps go back"
    return "" if np.isfinite(values).all() else "that is NaN or infinite somewhere"


def normal_id(name: str) -> str:
    """The clip that a CSV's cell or a file's name means: `1`, `1.0` and `00001.mp4` are all `00001`.

    Numbers are padded to five digits; a spreadsheet's `.0` and a file's suffix are taken off.

    Raises:
        DataError: nothing is left, or what is left can be no file's name.
    """
    bare = re.sub(r"\.0+$", "", name.strip())
    bare = re.sub(r"\.[A-Za-z][A-Za-z0-9]*$", "", bare)
    return check_id(bare.zfill(DIGITS) if re.fullmatch(r"[0-9]+", bare) else bare)


def check_id(clip_id: str) -> str:
    """The same id, if a file may be called so.

    Raises:
        DataError: it is empty, too long, begins with a dot or holds a slash or a control character.
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

    `file` is what `safetensors.safe_open` gives, which has no type of its own to name.
    """
    if file.get_slice(name).get_shape()[0] <= rows:
        whole: NDArray[np.float32] = file.get_tensor(name)
        return whole
    some: NDArray[np.float32] = file.get_slice(name)[: max(rows, 1)]  # it cannot slice to nothing
    return some[:rows]


@dataclass(frozen=True, slots=True, eq=False)
class Rating:
    """How one clip was rated: (K,) float32 in the order of the targets, None if it was not at all.

    A value is the share of its target's range, in [0, 1], and NaN where this target was not rated. `split` is
    "" where the file does not say.
    """

    targets: NDArray[np.float32] | None
    split: str = ""


def split_file(folder: Path, split: str) -> Path:
    """Where Hume-Vidmimic2 keeps the ratings of `train`, `valid` or `test`."""
    return folder / f"{split}_split.csv"


def read_split(path: Path, targets: Sequence[Target] = EMI_TARGETS) -> dict[str, Rating]:
    """The ratings of one split file of Hume-Vidmimic2, by five-digit id, in the file's order.

    `targets` are those of the six to read. An empty cell means that this target is unrated. Participants fill
    the test split with zeros: that a whole file of zeros means unrated is decided by the caller.

    Raises:
        DataError: the header is another, an id comes twice, or a rating is not a number in [0, 1].
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
    """Ratings by id (see `normal_id`), from a file or folder in any of the known forms.

    Args:
        path: a CSV with Hume-Vidmimic2's header; or one with ours, `id` and a column for each target in any
            order, perhaps with `split` among others; or a folder with `train_split.csv` and
            `valid_split.csv`, which then also say the split.
        targets: what to read; the other columns are passed over.

    Raises:
        DataError: it is none of these, or its content is refused (see `read_split`).
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
            f"or {','.join(OFFICIAL_HEADER)}, or name the columns that there are with --targets"
        )
    return _rated(path, rows, {name: header.index(name) for name in header}, targets)


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a CSV that are not blank, with their numbers, the header first.

    Raises:
        DataError: there is no such file, or it is no CSV in UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets put a mark in front
            reader = csv.reader(_lines(file), strict=True)
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield reader.line_num, row
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; give a CSV of ratings") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not CSV in UTF-8: {error}; save it in that form") from error


def _lines(file: TextIO) -> Iterator[str]:
    """The lines of a file, none longer than `MAX_LINE`: one of a gigabyte would be read into memory whole."""
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise csv.Error(f"a line has {MAX_LINE} characters or more")
        yield line


def stack_targets(
    targets: Sequence[NDArray[np.float32] | None], count: int = len(EMOTIONS)
) -> NDArray[np.float32]:
    """Ratings (N, count), rows of NaN where a clip is unrated."""
    unrated = np.full(count, np.nan, np.float32)
    return np.array([unrated if row is None else row for row in targets], np.float32).reshape(-1, count)


def check_split(cell: str, where: str) -> str:
    """The split that a cell names, "" if it is empty.

    Raises:
        DataError: it is another word; `where` names the row in the message.
    """
    split = cell.strip()
    if split not in ("", *SPLITS):
        raise DataError(f"{where} has the split {split!r}; there are {', '.join(SPLITS)}")
    return split


def parse_targets(
    cells: Sequence[str], where: str, targets: Sequence[Target] = EMI_TARGETS
) -> NDArray[np.float32] | None:
    """A cell for each target as a rating (see `Rating`), None if all are empty.

    Raises:
        DataError: a cell that is not empty is not a number in its target's range; `where` names the row in
            the message.
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
