"""emi-live's own layout of a data set: one file a clip, one table of clips, one description.

::

    FOLDER/
    ├── dataset.json               what features these are
    ├── manifest.csv               id,split,duration_s,features and the six ratings
    ├── features/<id>.safetensors  features and their stamps, and the words (emi_models.data.clip)
    └── shards/part-<n>.parquet    the same, many clips to a file (emi_models.data.shards)

A clip is in one of the two. Each file is complete or absent, so an interrupted run can be resumed.
`open_clips` opens a folder of this layout or of Hume-Vidmimic2's (`emi_models.data.vidmimic`).
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypedDict, Unpack

from safetensors import safe_open

from emi_models import EMOTIONS, MODALITIES
from emi_models.baseline import baselines_for, check_baseline, normalised_clip
from emi_models.data.clip import (
    SPLITS,
    WINDOW_S,
    Rating,
    check_id,
    check_split,
    csv_rows,
    normal_id,
    parse_targets,
    read_clip,
    read_metadata,
    read_ratings,
    split_file,
    stack_targets,
    write_clip,
)
from emi_models.data.shards import SUFFIX as SHARD
from emi_models.data.shards import read_shard_clip, shard_metadata, shards_of, transcript_of
from emi_models.errors import DataError
from emi_models.files import replacing
from emi_models.inputs import FusionShapes
from emi_models.targets import EMI_TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from emi_models import Modality
    from emi_models.data.clip import Clip
    from emi_models.data.feature_files import Progress
    from emi_models.data.vidmimic import VidmimicClips
    from emi_models.targets import Target

__all__ = [
    "COLUMNS",
    "FORMAT_VERSION",
    "INFO",
    "MANIFEST",
    "ClipWriter",
    "DatasetInfo",
    "ManifestClips",
    "ManifestRow",
    "OpenOptions",
    "check_folder",
    "open_clips",
    "read_info",
    "read_manifest",
    "write_info",
    "write_manifest",
]

MANIFEST: Final = "manifest.csv"
COLUMNS: Final = ("id", "split", "duration_s", "features", *EMOTIONS)
FORMAT_VERSION: Final = 1
INFO: Final = "dataset.json"
FEATURES: Final = "features"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """One clip; `features` is the path of its file below the data set's folder, with forward slashes."""

    id: str
    duration_s: float
    features: str
    rating: Rating = field(default_factory=lambda: Rating(None))


def write_manifest(folder: Path, rows: Iterable[ManifestRow]) -> None:
    """Write the table of the six emotions; the file is complete or absent. Unrated cells are empty."""
    with replacing(folder / MANIFEST) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            targets = row.rating.targets
            shares = [math.nan] * len(EMOTIONS) if targets is None else targets
            cells = ["" if math.isnan(share) else str(share) for share in shares]
            writer.writerow([row.id, row.rating.split, f"{row.duration_s:.3f}", row.features, *cells])


def read_manifest(folder: Path, targets: Sequence[Target] = EMI_TARGETS) -> list[ManifestRow]:
    """The clips of a manifest, in its order.

    Args:
        folder: with `manifest.csv`.
        targets: which ratings to read; if empty, clips are unrated, and other ratings can be joined.

    Raises:
        DataError: the file is missing, a line has another format than `write_manifest` writes, or a target
            is missing; the message says which.
    """
    path = folder / MANIFEST
    rows = csv_rows(path)
    number, header = next(rows, (1, []))
    if tuple(header) != COLUMNS:
        raise DataError(f"{path}:{number} has the header {','.join(header)!r}, not {','.join(COLUMNS)!r}")
    if foreign := [target.name for target in targets if target.name not in COLUMNS[4:]]:
        raise DataError(
            f"{path} rates {', '.join(COLUMNS[4:])}, not {foreign[0]}; give its ratings with --labels"
        )
    columns = [COLUMNS.index(target.name) for target in targets]
    found: dict[str, ManifestRow] = {}
    for number, row in rows:
        where = f"{path}:{number}"
        if len(row) != len(COLUMNS):
            raise DataError(f"{where} has {len(row)} cells, not {len(COLUMNS)}; correct the line")
        clip_id, split, duration, features = row[:4]
        if check_id(clip_id) in found:
            raise DataError(f"{where} has clip {clip_id} a second time; keep one of them")
        if features.startswith("/") or "\\" in features or ".." in features.split("/"):
            raise DataError(f"{where} has features at {features!r}; give a path below {folder}")
        found[clip_id] = ManifestRow(
            id=clip_id,
            duration_s=_seconds(duration, where),
            features=features,
            rating=Rating(
                parse_targets([row[column] for column in columns], where, targets), check_split(split, where)
            ),
        )
    return list(found.values())


def _seconds(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0.0 <= value < math.inf:
        raise DataError(f"{where} has {cell!r} for duration_s; give seconds")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """The encoders of the features, the sizes of a 12 s window, the origin of the data and its licence.

    `encoders` has only the modalities with features; a modality without features has width 1. `notes` has
    what else influenced the features: the recogniser, its settings, versions.
    """

    bundle: str
    encoders: Mapping[Modality, str]
    shapes: FusionShapes
    description: str
    licence: str
    format_version: int = FORMAT_VERSION
    notes: Mapping[str, str] = field(default_factory=dict)


def write_info(folder: Path, info: DatasetInfo) -> None:
    """Write `dataset.json`; the file is complete or absent."""
    with replacing(folder / INFO) as part:
        part.write_text(json.dumps(asdict(info), indent=2) + "\n", encoding="utf-8")


def read_info(folder: Path) -> DatasetInfo:
    """Read `dataset.json`.

    Raises:
        DataError: it is missing, or has another format than `write_info` writes.
    """
    path = folder / INFO
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        info = _parse(metadata)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; `emi extract` writes it") from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be understood: {error}; write it again with `emi extract`") from error
    return info


def _parse(metadata: object) -> DatasetInfo:
    """A description from decoded JSON; raises what `read_info` catches."""
    if not isinstance(metadata, dict) or metadata.get("format_version") != FORMAT_VERSION:
        version = metadata.get("format_version") if isinstance(metadata, dict) else None
        raise ValueError(f"format version {version!r}, this emi-live reads {FORMAT_VERSION}")
    info = DatasetInfo(**{**metadata, "shapes": FusionShapes(**metadata["shapes"])})
    if not isinstance(info.encoders, dict) or not set(info.encoders) <= set(MODALITIES):
        raise ValueError(f"encoders {info.encoders!r}")
    if not isinstance(info.notes, dict):
        raise TypeError(f"notes {info.notes!r} are not an object")
    texts = (info.bundle, info.description, info.licence, *info.encoders.values(), *info.notes.values())
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is not text")
    return info


class ClipWriter:
    """Writes a data set clip by clip; several processes may write to one folder.

    Raises:
        DataError: the folder already has features of other encoders, or cannot be written to.
    """

    def __init__(self, folder: Path, info: DatasetInfo) -> None:
        self.folder = folder
        if not (folder / INFO).is_file():
            write_info(folder, info)
        there = read_info(folder)
        if dict(there.encoders) != dict(info.encoders) or there.shapes != info.shapes:
            raise DataError(
                f"{folder} holds features of {_named(there)}, not of {_named(info)}; name another folder"
            )

    def path(self, clip_id: str) -> Path:
        """The path of a clip's features, which need not exist."""
        return self.folder / FEATURES / f"{check_id(clip_id)}.safetensors"

    def write(self, clip: Clip, *, transcript: str = "", source: str = "") -> Path:
        """Write one clip (see `write_clip`) and return its path."""
        path = self.path(clip.id)
        write_clip(path, clip, transcript=transcript, source=source)
        return path

    def write_manifest(self, ratings: Mapping[str, Rating] | None = None) -> list[ManifestRow]:
        """Write the table of all clips in the folder, in order of their ids, and return its rows.

        Args:
            ratings: by id, as `read_ratings` returns them. Clips without new ratings keep those of the old
                manifest.

        Raises:
            DataError: a clip's file or the old manifest is damaged.
        """
        there = read_manifest(self.folder) if (self.folder / MANIFEST).is_file() else []
        kept = {row.id: row.rating for row in there}
        found = {
            metadata.id: (metadata, path)
            for path in shards_of(self.folder)
            for metadata in shard_metadata(path)
        }
        for path in (self.folder / FEATURES).glob("[!.]*.safetensors"):  # newer than what is packed
            metadata = read_metadata(path)
            found[metadata.id] = metadata, path
        rows = [
            ManifestRow(
                id=clip_id,
                duration_s=metadata.duration_ns / 1e9,
                features=path.relative_to(self.folder).as_posix(),
                rating=kept.get(clip_id, Rating(None)),
            )
            for clip_id, (metadata, path) in sorted(found.items())
        ]
        rows = _joined(rows, ratings or {})
        write_manifest(self.folder, rows)
        return rows


class ManifestClips:
    """A `ClipSet` in emi-live's own layout.

    A clip without a split is for training. The row of an unrated clip in `targets` is NaN.

    Args:
        folder: with `manifest.csv`.
        labels: ratings in place of the manifest's, as `read_ratings` takes them.
        valid_fraction: the share of the training clips that is used for validation, if the manifest has no
            valid clips; drawn clip by clip, so one person may be in both splits.
        seed: of the draw, which depends only on the clips' ids.
        first_s: how much of a longer clip is loaded; None = all.
        targets: what the clips are rated for; targets other than the six emotions need `labels`.
        baseline: off, running or calibrate; each clip is made relative to its person's neutral, as live.

    Raises:
        DataError: a file is missing or damaged, the labels are for other clips, or no neutral is known of
            these features.
    """

    def __init__(
        self,
        folder: Path,
        *,
        labels: Path | None = None,
        valid_fraction: float = 0.0,
        seed: int = 0,
        first_s: float | None = WINDOW_S,
        targets: tuple[Target, ...] = EMI_TARGETS,
        baseline: str = "off",
    ) -> None:
        self.folder = folder
        self.rated = targets
        self.info = read_info(folder)
        self.baseline = check_baseline(baseline)
        baselines_for(self.info.encoders, self.baseline)  # the error comes before training
        own = labels is not None and not set(targets) <= set(EMI_TARGETS)
        rows = read_manifest(folder, () if own else targets)  # clips without labels keep their rating
        if labels is not None:
            ratings = read_ratings(labels, targets)
            rows = _joined(rows, ratings)
            if not any(normal_id(row.id) in ratings for row in rows):
                example = f", for example {rows[0].id}" if rows else ""
                raise DataError(
                    f"{labels} rates no clip of {folder}{example}; give the ratings of these clips"
                )
        self._drawn = _draw(rows, valid_fraction, seed)
        self._rows = {row.id: row for row in rows}
        self._split = {row.id: row.rating.split or "train" for row in rows}
        self._split.update(dict.fromkeys(self._drawn, "valid"))
        self._draw_note = f", {valid_fraction:g} of the clips drawn to validate with seed {seed}"
        self._first_ns = None if first_s is None else round(first_s * 1e9)

    @property
    def shapes(self) -> FusionShapes:
        """The sizes of a 12 s window of these clips."""
        return self.info.shapes

    @property
    def encoders(self) -> Mapping[Modality, str]:
        """The encoder of the features, by modality."""
        return self.info.encoders

    @property
    def description(self) -> str:
        """A description of the data with the number of clips, in one line."""
        counts = [
            f"{len(self.ids(split))} {split}" for split in ("train", "valid", "test") if self.ids(split)
        ]
        drawn = self._draw_note if self._drawn else ""
        return f"{self.info.description}: {', '.join(counts) or 'no'} clips{drawn}"

    @property
    def licence(self) -> str:
        """The licence terms that apply to a checkpoint trained on these clips."""
        return self.info.licence

    def ids(self, split: str) -> tuple[str, ...]:
        """The clips of `train`, `valid` or `test`, in the manifest's order."""
        return tuple(clip_id for clip_id, theirs in self._split.items() if theirs == split)

    def targets(self, split: str) -> NDArray[np.float32]:
        """Ratings (N, K) of `ids(split)`, NaN if unrated."""
        rows = [self._rows[clip_id].rating.targets for clip_id in self.ids(split)]
        return stack_targets(rows, len(self.rated))

    def durations_s(self, split: str) -> tuple[float, ...]:
        """Seconds that each of `ids(split)` lasts, without reading it."""
        return tuple(self._rows[clip_id].duration_s for clip_id in self.ids(split))

    def transcript(self, clip_id: str) -> str:
        """A clip's words, "" if there are none."""
        path = self._path(clip_id)
        return transcript_of(path, clip_id) if path.suffix == SHARD else read_metadata(path).transcript

    def frames(self, modality: Modality, clip_id: str) -> int:
        """How many frames of a modality the whole clip has."""
        path = self._path(clip_id)
        if path.suffix == SHARD:
            return len(getattr(read_shard_clip(path, clip_id, self.shapes), modality).t_ns)
        with safe_open(path, framework="np") as file:
            return int(file.get_slice(modality).get_shape()[0])

    def load(self, clip_id: str) -> Clip:
        """One clip with its features, or its first seconds.

        Raises:
            DataError: there is no such clip, or its file is damaged.
        """
        path = self._path(clip_id)
        if path.suffix == SHARD:
            clip = read_shard_clip(path, clip_id, self.shapes, self._first_ns)
        else:
            clip = read_clip(path, self.shapes, self._first_ns)
        if clip.id != clip_id:
            raise DataError(f"{self._path(clip_id)} holds clip {clip.id}, not {clip_id}; extract it again")
        clip = normalised_clip(clip, baselines_for(self.info.encoders, self.baseline))
        return replace(clip, targets=self._rows[clip_id].rating.targets)

    def _path(self, clip_id: str) -> Path:
        if clip_id not in self._rows:
            raise DataError(f"{self.folder} has no clip {clip_id!r}; its manifest lists {len(self._rows)}")
        return self.folder / self._rows[clip_id].features


def _joined(rows: list[ManifestRow], ratings: Mapping[str, Rating]) -> list[ManifestRow]:
    """The rows with new ratings; a rating without a split keeps the row's split."""
    joined = []
    for row in rows:
        rating = ratings.get(normal_id(row.id))
        if rating is not None:
            row = replace(row, rating=replace(rating, split=rating.split or row.rating.split))
        joined.append(row)
    return joined


def _draw(rows: list[ManifestRow], fraction: float, seed: int) -> frozenset[str]:
    """The ids that are drawn for validation: those with the smallest hashes."""
    if not 0.0 <= fraction < 1.0:
        raise DataError(f"valid_fraction is {fraction}; it must lie in [0, 1)")
    if fraction == 0.0 or any(row.rating.split == "valid" for row in rows):
        return frozenset()
    candidates = [row.id for row in rows if row.rating.split in ("", "train")]
    order = sorted(candidates, key=lambda clip_id: hashlib.sha256(f"{seed}:{clip_id}".encode()).digest())
    return frozenset(order[: max(1, round(fraction * len(order)))] if len(order) > 1 else ())


def _named(info: DatasetInfo) -> str:
    return ", ".join(f"{info.encoders[m]}" for m in info.encoders) or "no encoder"


class OpenOptions(TypedDict, total=False):
    """The options of both readers: down to `seed` those of `ManifestClips`, then those of `VidmimicClips`.

    `targets`, what the clips are rated for, is an option of both. `baseline` is one of `ManifestClips`.
    """

    targets: tuple[Target, ...]

    labels: Path | None
    valid_fraction: float
    seed: int
    baseline: str | None
    vision: str | None
    audio: str | None
    text: str | None
    motion: str | None
    cache: Path | None
    progress: Progress | None


_OF_MANIFEST: Final = frozenset({"labels", "valid_fraction", "seed", "baseline"})


def open_clips(folder: Path, **options: Unpack[OpenOptions]) -> ManifestClips | VidmimicClips:
    """The clips of a folder in emi-live's own layout or in Hume-Vidmimic2's: see those two classes.

    `progress` is allowed for both; only a conversion calls it.

    Raises:
        DataError: there is no such folder, it has neither layout, or an option belongs to the other layout.
    """
    ours = check_folder(folder)
    given = {name for name, value in options.items() if value} - {"progress", "targets"}
    foreign = given - _OF_MANIFEST if ours else given & _OF_MANIFEST
    if foreign:
        raise DataError(
            f"{folder} has the layout of {'emi-live' if ours else 'Hume-Vidmimic2'}, and "
            f"{', '.join(sorted(foreign))} is for the other layout; leave it out"
        )
    from emi_models.data.vidmimic import VidmimicClips

    if ours:
        return ManifestClips(
            folder,
            labels=options.get("labels"),
            valid_fraction=options.get("valid_fraction", 0.0),
            seed=options.get("seed", 0),
            targets=options.get("targets", EMI_TARGETS),
            baseline=options.get("baseline") or "off",
        )
    return VidmimicClips(
        folder,
        vision=options.get("vision"),
        audio=options.get("audio"),
        text=options.get("text"),
        motion=options.get("motion"),
        cache=options.get("cache"),
        progress=options.get("progress"),
        targets=options.get("targets", EMI_TARGETS),
    )


def check_folder(folder: Path) -> bool:
    """Whether a folder of clips has emi-live's own layout; checks names only and does not load torch.

    Raises:
        DataError: there is no such folder, or it has neither layout.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name the one with {MANIFEST} or train_split.csv")
    ours = (folder / MANIFEST).is_file()
    if not ours and not any(split_file(folder, split).is_file() for split in SPLITS):
        raise DataError(
            f"{folder} has neither {MANIFEST}, which `emi extract` writes, nor train_split.csv, as in "
            "Hume-Vidmimic2; name the folder that holds one of them"
        )
    return ours
