"""Clips in Parquet: some hundred to a file, a row group each, so that one is read without the others.

Other programs read the columns too: `id`, `duration_ns`, `transcript`, `source`, and for each modality its
stamps `vision_t_ns` and its values `vision`, a list of frames. A clip is in one place: what is packed again
leaves the older file. A file is whole or absent; a clip's own file goes once it is packed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_models import MODALITIES
from emi_models.data.clip import ClipMetadata, FeatureTrack, first_rows, make_clip, read_metadata
from emi_models.errors import DataError
from emi_models.files import replacing
from emi_models.libraries import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from emi_models import Modality
    from emi_models.data.clip import Clip
    from emi_models.inputs import FusionShapes

__all__ = [
    "SHARDS",
    "SUFFIX",
    "drop",
    "pack",
    "read_shard_clip",
    "shard_metadata",
    "shards_of",
    "transcript_of",
]

SHARDS: Final = "shards"
SUFFIX: Final = ".parquet"
FACTS: Final = ("id", "transcript", "source", "duration_ns")
OPEN: Final = 64  # files that a process keeps open; each holds 2.4 MB of facts of its row groups
LISTED: Final = 1024  # files of which it keeps the ids of the clips


def shards_of(folder: Path) -> list[Path]:
    """The files of a data set, in order."""
    return sorted((folder / SHARDS).glob(f"[!.]*{SUFFIX}"))


def pack(folder: Path, files: Sequence[Path], shapes: FusionShapes) -> Path:
    """Put clips into one new file of the data set, and remove their own files.

    Args:
        folder: of the data set.
        files: of `write_clip`, at least one.
        shapes: the widths of their features.

    Raises:
        DataError: one of them cannot be read, or the disk is full.
    """
    last = shards_of(folder)[-1:]
    number = 1 + int(last[0].stem.rpartition("-")[2]) if last else 0
    path = folder / SHARDS / f"part-{number:06d}{SUFFIX}"
    packed = [read_metadata(file).id for file in files]
    _write(path, (_table(file, shapes) for file in files), shapes)
    drop(folder, packed, but=path)
    for file in files:
        file.unlink(missing_ok=True)
    return path


def drop(folder: Path, ids: Iterable[str], but: Path | None = None) -> None:
    """Take clips out of the files that hold them, all but one file.

    Raises:
        DataError: a file is damaged, or the disk is full.
    """
    gone = set(ids)
    for path in shards_of(folder):
        found = _contents(path)
        if path == but or not gone & set(found):
            continue
        kept = [row for clip_id, row in found.items() if clip_id not in gone]
        source = _parquet(path)
        if kept:
            with replacing(path) as part, _writer(part, source.schema_arrow) as writer:
                for row in kept:
                    writer.write_table(source.read_row_group(row))
        else:
            path.unlink()


def shard_metadata(path: Path) -> list[ClipMetadata]:
    """What a file says of its clips; features are not read.

    Raises:
        DataError: it is damaged, or `pack` did not write it.
    """
    return [ClipMetadata(**row) for row in _read(path, FACTS).to_pylist()]


def read_shard_clip(path: Path, clip_id: str, shapes: FusionShapes, first_ns: int | None = None) -> Clip:
    """One clip of a file, without ratings; only its own row group is read.

    Args:
        path: a file that `pack` wrote.
        clip_id: which.
        shapes: the widths that its features must have.
        first_ns: how much of a longer clip is kept; None = all.

    Raises:
        DataError: the file is damaged, the clip is not in it, or its features have other widths.
    """
    row = _row(path, clip_id)
    try:
        table = _parquet(path).read_row_group(row)
    except (OSError, ValueError) as error:  # pyarrow's own are one or the other
        raise _unreadable(path, error) from error
    metadata = ClipMetadata(**table.select(FACTS).to_pylist()[0])
    tracks: dict[Modality, FeatureTrack] = {}
    for modality in MODALITIES:
        t_ns = _flat(table[f"{modality}_t_ns"]).to_numpy(zero_copy_only=False)
        frames = _flat(table[modality])
        width = frames.type.list_size
        values = frames.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
        stop = len(t_ns) if first_ns is None else int(np.searchsorted(t_ns, first_ns, side="right"))
        tracks[modality] = FeatureTrack(t_ns[:stop], values[:stop])
    return make_clip(metadata, tracks, shapes, f"{path}, clip {clip_id},")


def transcript_of(path: Path, clip_id: str) -> str:
    """A clip's words, "" if there are none; as `read_shard_clip`."""
    column = _parquet(path).read_row_group(_row(path, clip_id), columns=["transcript"])
    return str(column["transcript"][0].as_py())


def _row(path: Path, clip_id: str) -> int:
    row = _contents(path).get(clip_id)
    if row is None:
        raise DataError(f"{path} does not hold clip {clip_id}; extract it again")
    return row


def _table(file: Path, shapes: FusionShapes) -> Any:
    """One row of a clip's own file."""
    import pyarrow as pa
    from safetensors import SafetensorError, safe_open

    metadata = read_metadata(file)
    columns: dict[str, list[Any]] = {name: [getattr(metadata, name)] for name in FACTS}
    arrays = []
    schema = _schema(shapes)
    try:
        with safe_open(file, framework="np") as tensors:
            for modality in MODALITIES:
                t_ns = tensors.get_tensor(f"{modality}_t_ns")
                values = first_rows(tensors, modality, len(t_ns))
                width = getattr(shapes, f"{modality}_dim")
                if values.shape[1:] != (width,):
                    raise DataError(f"{file} has {modality} of width {values.shape[1:]}, not {width}")
                frames = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width)
                ends = [0, len(t_ns)]
                arrays += [
                    pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(t_ns)),
                    pa.ListArray.from_arrays(pa.array(ends, pa.int32()), frames),
                ]
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file} cannot be read: {error}; extract the clip again") from error
    facts = [pa.array(columns[name], schema.field(name).type) for name in FACTS]
    return pa.Table.from_arrays([*facts, *arrays], schema=schema)


def _schema(shapes: FusionShapes) -> Any:
    import pyarrow as pa

    fields = [("id", pa.string()), ("transcript", pa.string()), ("source", pa.string())]
    fields.append(("duration_ns", pa.int64()))
    for modality in MODALITIES:
        frame = pa.list_(pa.float32(), getattr(shapes, f"{modality}_dim"))
        fields += [(f"{modality}_t_ns", pa.list_(pa.int64())), (modality, pa.list_(frame))]
    return pa.schema(fields)


def _write(path: Path, tables: Iterator[Any], shapes: FusionShapes) -> None:
    require("pyarrow", extra="cluster", what="writing shards")
    with replacing(path) as part, _writer(part, _schema(shapes)) as writer:
        for table in tables:
            writer.write_table(table)


def _writer(part: Path, schema: Any) -> Any:
    from pyarrow import parquet

    return parquet.ParquetWriter(part, schema, compression="zstd", use_dictionary=False)


def _read(path: Path, columns: Sequence[str]) -> Any:
    try:
        return _parquet(path).read(columns=list(columns))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _contents(path: Path) -> Mapping[str, int]:
    """The row group of each clip."""
    facts = _stat(path)
    return _table_of_contents(path, *facts)


def _parquet(path: Path) -> Any:
    return _opened(path, *_stat(path))


def _stat(path: Path) -> tuple[int, int]:
    """What changes when the file is another one."""
    try:
        facts = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return facts.st_ino, facts.st_mtime_ns


@lru_cache(LISTED)
def _table_of_contents(path: Path, *facts: int) -> Mapping[str, int]:
    metadata = _opened(path, *facts).metadata
    ids: list[str | None] = []
    for row in range(metadata.num_row_groups):  # of one clip: its id is the least and the greatest
        column = metadata.row_group(row).column(0)
        known = column.statistics if column.path_in_schema == FACTS[0] else None
        ids.append(known.min if known is not None and known.has_min_max else None)
    if None in ids:  # another program wrote it
        ids = _read(path, FACTS[:1])[FACTS[0]].to_pylist()
    return {str(clip_id): row for row, clip_id in enumerate(ids)}


@lru_cache(OPEN)
def _opened(path: Path, *_: int) -> Any:
    require("pyarrow", extra="cluster", what="reading shards")
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path, memory_map=True)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if lacking := {*FACTS, *MODALITIES} - set(file.schema_arrow.names):
        raise DataError(f"{path} has no column {min(lacking)}; `emi extract --cluster` writes it")
    return file


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read: {error}; extract its clips again")


def _flat(column: Any) -> Any:
    """The values of a list column with one row."""
    return column.combine_chunks().flatten()
