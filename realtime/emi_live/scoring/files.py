"""What is written of a scored clip: tables, subtitles, annotations, physio files, one function each."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_live.clock import NS_PER_MS, NS_PER_S
from emi_live.errors import ConfigurationError
from emi_live.messages import JSON_SCHEMA
from emi_models import MODALITIES
from emi_models.files import atomic_write, replacing

if TYPE_CHECKING:
    from emi_live.messages import Word
    from emi_live.scoring.clip import Scores

__all__ = [
    "FORMATS",
    "Format",
    "Span",
    "above",
    "lines_of",
    "read_scores",
    "summary_of",
    "write_summary",
]

DIGITS: Final = 6  # significant, of numbers in text files


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.{DIGITS}g}"
    return str(value)


def _rows(scores: Scores) -> Iterator[list[Any]]:
    columns = [column.tolist() if isinstance(column, np.ndarray) else column for column in scores.values()]
    return (list(row) for row in zip(*columns, strict=True))


def write_csv(scores: Scores, path: Path, cut: float) -> None:
    """One row for each estimate, and `NAME.words.csv` with one for each word."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(scores)
    writer.writerows([_cell(value) for value in row] for row in _rows(scores))
    atomic_write(path, table.getvalue())
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("start_s", "end_s", "word", "committed"))
    for word in scores.words:
        times = (f"{word.start_ns / NS_PER_S:.3f}", f"{word.end_ns / NS_PER_S:.3f}")
        writer.writerow((*times, word.text, _cell(word.committed)))
    atomic_write(path.with_suffix(".words.csv"), table.getvalue())


def write_parquet(scores: Scores, path: Path, cut: float) -> None:
    """The same columns, typed; nothing known is null. The file's metadata `emi-live` has the words too."""
    import pyarrow
    from pyarrow import parquet

    arrays = {name: pyarrow.array(column, from_pandas=True) for name, column in scores.items()}
    about = {
        "schema": JSON_SCHEMA,
        "targets": list(scores.targets),
        "hop_s": scores.hop_s,
        "words": [[word.start_ns, word.end_ns, word.text, word.committed] for word in scores.words],
    }
    table = pyarrow.table(arrays).replace_schema_metadata({"emi-live": json.dumps(about)})
    with replacing(path) as part:
        parquet.write_table(table, part)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time with a text, in seconds from the clip's start."""

    start_s: float
    end_s: float
    text: str


PAUSE_S: Final = 0.8  # between two words of one subtitle, at most
LINE_CHARACTERS: Final = 42  # as usual for subtitles
LINE_S: Final = 6.0


def lines_of(words: Sequence[Word]) -> list[Span]:
    """Words gathered to subtitles: a new one after a pause, a sentence's end, 42 characters or 6 s."""
    lines: list[Span] = []
    for word in words:
        start_s, end_s = word.start_ns / NS_PER_S, max(word.end_ns, word.start_ns + NS_PER_MS) / NS_PER_S
        last = lines[-1] if lines else None
        if (
            last is not None
            and start_s - last.end_s <= PAUSE_S
            and end_s - last.start_s <= LINE_S
            and len(last.text) + 1 + len(word.text) <= LINE_CHARACTERS
            and not last.text.endswith((".", "!", "?"))
        ):
            lines[-1] = Span(last.start_s, max(end_s, last.end_s), f"{last.text} {word.text}")
        else:
            lines.append(Span(start_s, end_s, word.text))
    return lines


def above(scores: Scores, name: str, cut: float) -> list[Span]:
    """When a value is above `cut`, a share of its range; the text is its peak in that time."""
    low, high = scores.limits[scores.targets.index(name)]
    values, times = scores[name], scores["t"]
    over = np.concatenate([[False], (values - low) / (high - low) > cut, [False]])
    edges = np.flatnonzero(over[1:] != over[:-1])
    return [
        Span(
            max(0.0, float(times[first]) - scores.hop_s),
            float(times[last - 1]),
            f"{values[first:last].max():.2f}",
        )
        for first, last in zip(edges[::2], edges[1::2], strict=True)
    ]


def write_subtitles(scores: Scores, path: Path, cut: float) -> None:
    """The words as SubRip or WebVTT, by the suffix."""
    import pysubs2

    subtitles = pysubs2.SSAFile()
    for line in lines_of(scores.words):
        event = pysubs2.SSAEvent(round(1000 * line.start_s), round(1000 * line.end_s))
        event.plaintext = line.text
        subtitles.append(event)
    atomic_write(path, subtitles.to_string(path.suffix.removeprefix(".")))


def _word_spans(scores: Scores) -> list[Span]:
    """The words one after another, none longer than until the next one begins."""
    found: list[Span] = []
    for word in scores.words:
        start_s = max(word.start_ns / NS_PER_S, found[-1].end_s if found else 0.0)
        end_s = min(word.end_ns / NS_PER_S, scores.duration_s)
        if end_s > start_s:
            found.append(Span(start_s, end_s, word.text))
    return found


def write_textgrid(scores: Scores, path: Path, cut: float) -> None:
    """For Praat: a tier of words, and for each value a tier of the times in which it is above the cut."""
    from praatio import textgrid
    from praatio.utilities.constants import Interval

    grid = textgrid.Textgrid(0.0, scores.duration_s)
    tiers = {"words": _word_spans(scores), **{name: above(scores, name, cut) for name in scores.targets}}
    for name, spans in tiers.items():
        entries = [Interval(span.start_s, span.end_s, span.text) for span in spans]
        grid.addTier(textgrid.IntervalTier(name, entries, 0.0, scores.duration_s))
    with replacing(path) as part:
        grid.save(str(part), "long_textgrid", includeBlankSpaces=True, reportingMode="silence")


def write_elan(scores: Scores, path: Path, cut: float) -> None:
    """For ELAN: the same tiers, linked to the clip."""
    import pympi

    document = pympi.Elan.Eaf(author="emi-live")
    document.remove_tier("default")
    name = scores["file"][0]
    document.add_linked_file(name, relpath=f"./{name}", mimetype=_mime(name))
    tiers = {"words": lines_of(scores.words), **{name: above(scores, name, cut) for name in scores.targets}}
    for tier, spans in tiers.items():
        document.add_tier(tier)
        for span in spans:
            start_ms, end_ms = round(1000 * span.start_s), round(1000 * span.end_s)
            if end_ms > start_ms:
                document.add_annotation(tier, start_ms, end_ms, span.text)
    with TemporaryDirectory() as folder:  # it keeps a copy of a file that is there
        document.to_file(str(Path(folder) / "new.eaf"))
        atomic_write(path, (Path(folder) / "new.eaf").read_bytes())


def _mime(name: str) -> str:
    from mimetypes import guess_type

    return guess_type(name)[0] or "video/mp4"


UNITS: Final[Mapping[str, str]] = {
    "f0_hz": "Hz",
    "level_dbfs": "dB",
    **dict.fromkeys(("pitch_deg", "yaw_deg", "roll_deg"), "deg"),
    **dict.fromkeys(("x_cm", "y_cm", "z_cm"), "cm"),
}


def write_bids(scores: Scores, path: Path, cut: float) -> None:
    """As BIDS keeps continuous recordings: `NAME_physio.tsv.gz` without a header, and its `.json`."""
    columns = {
        name: column
        for name, column in scores.items()
        if isinstance(column, np.ndarray) and name != "t" and not name.endswith("_age_ms")
    }
    columns |= {
        f"{name}_used": np.array(scores[f"{name}_used"], float) for name in ("vision", "audio", "text")
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    table = "".join("\t".join(_cell(value) or "n/a" for value in row) + "\n" for row in rows)
    atomic_write(path, gzip.compress(table.encode(), mtime=0))
    about: dict[str, Any] = {
        "SamplingFrequency": round(1 / scores.hop_s, 6),
        "StartTime": round(float(scores["t"][0]), 6),
        "Columns": list(columns),
        "SoftwareName": "emi-live",
    }
    for name in columns:
        if name in scores.targets:
            low, high = scores.limits[scores.targets.index(name)]
            about[name] = {
                "Description": f"estimated intensity, from {low:g} to {high:g}",
                "Units": "arbitrary",
            }
        elif name in UNITS:
            about[name] = {"Units": UNITS[name]}
    atomic_write(
        path.with_name(path.name.removesuffix(".tsv.gz") + ".json"), json.dumps(about, indent=2) + "\n"
    )


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file: what is added to the clip's name, what writes it, and which modules it needs.

    `also` is what is added for the second file that is written with it.
    """

    ending: str
    write: Callable[[Scores, Path, float], None]
    what: str
    modules: tuple[str, ...] = ()
    also: str | None = None


FORMATS: Final[Mapping[str, Format]] = {
    "csv": Format(".csv", write_csv, "estimates and features, and words in .words.csv", also=".words.csv"),
    "parquet": Format(".parquet", write_parquet, "the same, for pandas, polars, DuckDB", ("pyarrow",)),
    "srt": Format(".srt", write_subtitles, "words as subtitles", ("pysubs2",)),
    "vtt": Format(".vtt", write_subtitles, "words as subtitles for the web", ("pysubs2",)),
    "textgrid": Format(".TextGrid", write_textgrid, "words and high values, for Praat", ("praatio",)),
    "elan": Format(".eaf", write_elan, "words and high values, for ELAN", ("pympi",)),
    "bids": Format("_physio.tsv.gz", write_bids, "BIDS-like physio, with its .json", also="_physio.json"),
}


def summary_of(scores: Scores, name: str, cut: float) -> dict[str, Any]:
    """One clip in one row: its length, what was seen of it, and of each value mean, peak and time above."""
    row: dict[str, Any] = {
        "file": name,
        "seconds": round(scores.duration_s, 3),
        "estimates": scores.rows,
        "words": len(scores.words),
        **{
            f"{modality}_live": round(scores[f"{modality}_state"].count("live") / scores.rows, 4)
            for modality in ("vision", "audio", "text")
        },
    }
    for target in scores.targets:
        values = scores[target]
        spans = above(scores, target, cut)
        row |= {
            f"{target}_mean": float(values.mean()),
            f"{target}_peak": float(values.max()),
            f"{target}_peak_at_s": float(scores["t"][values.argmax()]),
            f"{target}_above_s": round(sum(span.end_s - span.start_s for span in spans), 3),
        }
    return row


def write_summary(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """`summary.csv`: a row for each clip."""
    table = io.StringIO(newline="")
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    atomic_write(path, table.getvalue())


def read_scores(path: Path) -> Scores:
    """The scores in a file that `emi score` wrote (.csv, .parquet), or `emi-live --json` (.jsonl).

    Raises:
        ConfigurationError: it is not there, or it is none of these.
    """
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".jsonl": _read_lines}
    try:
        scores = readers[path.suffix.lower()](path)
        if scores.rows == 0:
            raise ValueError("it has no row")
        return scores
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from error
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ConfigurationError(
            f"{path} is no table of `emi score` and no JSON lines of `emi-live --json`: {error}"
        ) from error


def _read_csv(path: Path) -> Scores:
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    columns: dict[str, Any] = {}
    for name, *cells in zip(header, *rows, strict=True):
        if name in TEXTS or name.endswith(("_state", "_reason")):
            columns[name] = [cell or None for cell in cells]
        elif name.endswith("_used"):
            columns[name] = [cell == "true" for cell in cells]
        else:
            columns[name] = np.array([float(cell) if cell else np.nan for cell in cells])
    words = []
    if (spoken := path.with_suffix(".words.csv")).is_file():
        with spoken.open(encoding="utf-8", newline="") as file:
            words = [
                (float(start), float(end), word, kept == "true")
                for start, end, word, kept in list(csv.reader(file))[1:]
            ]
    return _scores(columns, words)


def _read_parquet(path: Path) -> Scores:
    from pyarrow import parquet, types

    table = parquet.read_table(path)
    about = json.loads((table.schema.metadata or {})[b"emi-live"])
    columns: dict[str, Any] = {}
    for name, kind in zip(table.schema.names, table.schema.types, strict=True):
        column = table.column(name).to_pylist()
        if types.is_floating(kind):
            columns[name] = np.array([np.nan if value is None else value for value in column])
        else:
            columns[name] = column
    words = [(start / NS_PER_S, end / NS_PER_S, text, kept) for start, end, text, kept in about["words"]]
    return _scores(columns, words)


def _read_lines(path: Path) -> Scores:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    columns: dict[str, Any] = {
        "file": [Path(line["source"]).name for line in lines],
        "t": np.array([line["t"] for line in lines], float),
    }
    for name in lines[0]["intensities"]:
        columns[name] = np.array([line["intensities"][name] for line in lines], float)
        bounds = [(line["intervals"] or {}).get(name) or (np.nan, np.nan) for line in lines]
        if not np.isnan(bounds).all():
            columns[f"{name}_low"], columns[f"{name}_high"] = np.array(bounds, float).T
    for modality in MODALITIES:
        columns[f"{modality}_state"] = [line["modalities"][modality]["state"] for line in lines]
    return _scores(columns, ())


TEXTS: Final = ("file", "session", "committed", "partial")
FIRST: Final = ("file", "session", "schema", "seq", "t")  # the columns before the values


def _scores(columns: dict[str, Any], words: Iterable[tuple[float, float, str, bool]]) -> Scores:
    """Scores of columns that were read; the values are those between the time and the states."""
    from emi_live.messages import Word
    from emi_live.scoring.clip import Scores

    names = list(columns)
    targets = [
        name
        for name in names[: names.index("vision_state")]
        if name not in FIRST and not name.endswith(("_low", "_high"))
    ]
    times = columns["t"]
    said = [
        Word(text, round(start * NS_PER_S), round(end * NS_PER_S), kept) for start, end, text, kept in words
    ]
    hop_s = float(np.median(np.diff(times))) if len(times) > 1 else float(times[0])
    limits = [_limits(columns[name]) for name in targets]
    return Scores(columns, targets, said, duration_s=float(times[-1]), hop_s=round(hop_s, 6), limits=limits)


def _limits(values: Any) -> tuple[float, float]:
    """From 0 to 1 as the six emotions; of other values, what is there."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, max(high, low + 1e-9))
