"""Files of ratings made from data sets as their publishers give them: FER+, EmoDB and GoEmotions."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_live.errors import ConfigurationError
from emi_models.data.clip import csv_rows
from emi_models.errors import DataError
from emi_models.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["FOLDERS", "write_ratings"]

RATINGS: Final = "ratings.csv"

# --- FER+ ---
# Barsoum et al. 2016, "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label
# Distribution": ten people chose one of these for each picture.
VOTES: Final = (
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
    *("unknown", "NF"),
)
NO_FACE: Final = "NF"  # the vote for "not a face"
FACE_PX: Final = 192  # the pictures have 48: too few for the face detector
MARGIN_PX: Final = 64  # on each side; the faces fill their pictures, and the detector looks for whole heads
GREY: Final = 128  # of the margin; with one that repeats the edge fewer faces are found

# --- EmoDB ---
# Speakers of the Berlin database (Burkhardt et al. 2005).
MEN: Final = frozenset(("03", "10", "11", "12", "15"))
WOMEN: Final = frozenset(("08", "09", "13", "14", "16"))
# Emotions as high or low in arousal and valence: Schuller et al. 2010, "Cross-Corpus Acoustic Emotion
# Recognition: Variances and Strategies", IEEE Transactions on Affective Computing 1(2), its table of classes.
HIGH_AROUSAL: Final = frozenset(("anger", "fear", "happiness"))
HIGH_VALENCE: Final = frozenset(("happiness", "neutral"))
EMODB_COLUMNS: Final = ("file", "speaker", "recognised_percent", "emotion")

# --- GoEmotions ---
# How much of an intensity a label stands for: docs/decisions/0004-goemotions-mapping.md.
LABELS: Final[Mapping[str, Mapping[str, float]]] = {
    "admiration": {"admiration": 1.0},
    "amusement": {"amusement": 1.0},
    "determination": {"optimism": 1.0, "desire": 0.5},
    "empathic_pain": {"sadness": 1.0, "grief": 1.0, "remorse": 1.0, "caring": 0.5},
    "excitement": {"excitement": 1.0},
    "joy": {"joy": 1.0},
}


def write_ratings(kind: str, source: Path, out: Path, show: Callable[[str, int, int], None]) -> Path:
    """Write `out`/ratings.csv for a data set, and return its path.

    Args:
        kind: one of `FOLDERS`.
        source: FER+: a CSV of votes, with the pictures in an .npz of the same name next to it. EmoDB: its
            table, with the recordings named in it. GoEmotions: `train.tsv` or `dev.tsv`, next to
            `labels.txt`.
        out: the folder for the file, and for FER+ for the pictures; made if it does not exist.
        show: is told what is written, how many are done, and of how many.

    Raises:
        ConfigurationError: the source is not such a data set, or the folder cannot be written to.
    """
    if kind not in FOLDERS:
        raise ConfigurationError(f"no reader for {kind!r}; there are {', '.join(FOLDERS)}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        header, *rows = FOLDERS[kind](source, out, show)
        target = out / RATINGS
        lines = _csv([header, *rows])
        atomic_write(target, lines.encode())
    except (DataError, FileNotFoundError, ValueError, KeyError, IndexError) as error:
        raise ConfigurationError(f"{source} cannot be read: {error}; give {FOLDER_HELP[kind]}") from error
    except OSError as error:
        raise ConfigurationError(f"{out} cannot be written to: {error}") from error
    return target


def _csv(rows: Iterable[Sequence[str]]) -> str:
    from io import StringIO

    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _ferplus(source: Path, out: Path, show: Callable[[str, int, int], None]) -> Iterator[Sequence[str]]:
    """Shares of the votes, what most voted for, and each picture four times as large with a margin.

    Pictures that most voters called no face are left out.
    """
    import cv2

    with np.load(source.with_suffix(".npz"), allow_pickle=False) as archive:
        pictures = archive["pictures"]
        places = {str(name): index for index, name in enumerate(archive["names"])}
    rows = csv_rows(source)
    header = next(rows)[1]
    if header != ["name", *VOTES]:
        raise DataError(f"its columns are {','.join(header)}, not name,{','.join(VOTES)}")
    (out / "pictures").mkdir(exist_ok=True)
    shown = [name for name in VOTES if name != NO_FACE]
    yield ["file", "majority", *shown]
    given = list(rows)
    for done, (number, (name, *cells)) in enumerate(given):
        votes = dict(zip(VOTES, map(int, cells), strict=True))
        total = sum(votes.values())
        if name not in places:
            raise DataError(f"line {number}: {name} is not among the pictures")
        if not total or 2 * votes[NO_FACE] > total:
            continue
        show(name, done, len(given))
        file = f"pictures/{name}"
        _keep(out / file, cv2.imencode(".png", _framed(pictures[places[name]]))[1].tobytes())
        majority = next((vote for vote in shown if 2 * votes[vote] > total), "")
        yield [file, majority, *(f"{votes[vote] / total:g}" for vote in shown)]


def _framed(face: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A face (48, 48) enlarged, with a grey margin, as the recipe of the packaged checkpoint frames it."""
    import cv2

    large = cv2.resize(face, (FACE_PX, FACE_PX), interpolation=cv2.INTER_CUBIC)
    margin = (MARGIN_PX,) * 4
    framed: NDArray[np.uint8] = cv2.copyMakeBorder(large, *margin, cv2.BORDER_CONSTANT, value=GREY)
    return framed


def _keep(path: Path, content: bytes) -> None:
    """Write a file unless it holds this already: features are kept by a file's time."""
    try:
        if path.read_bytes() == content:
            return
    except FileNotFoundError:
        pass
    atomic_write(path, content)


def _emodb(source: Path, out: Path, show: Callable[[str, int, int], None]) -> Iterator[Sequence[str]]:
    """Arousal and valence by the acted emotion; happiness and sadness as shares of listeners."""
    lines = source.read_text(encoding="utf-8").splitlines()
    header = lines[0].split("\t") if lines else []
    if missing := [name for name in EMODB_COLUMNS if name not in header]:
        raise DataError(f"it has no column {missing[0]}")
    yield ["file", "speaker", "sex", "emotion", "arousal", "valence", "happiness", "sadness"]
    for done, line in enumerate(lines[1:]):
        row = dict(zip(header, line.split("\t"), strict=True))
        show(row["file"], done, len(lines) - 1)
        emotion, speaker = row["emotion"], row["speaker"]
        share = f"{float(row['recognised_percent']) / 100:g}"
        yield [
            str((source.parent / row["file"]).resolve()),
            speaker,
            "m" if speaker in MEN else "f" if speaker in WOMEN else "",
            emotion,
            str(int(emotion in HIGH_AROUSAL)),
            str(int(emotion in HIGH_VALENCE)),
            *(share if emotion == name else "0" for name in ("happiness", "sadness")),
        ]


def _goemotions(source: Path, out: Path, show: Callable[[str, int, int], None]) -> Iterator[Sequence[str]]:
    """The six intensities of each comment, by its labels."""
    names = (source.parent / "labels.txt").read_text(encoding="utf-8").split()
    yield ["text", *LABELS]
    lines = source.read_text(encoding="utf-8").splitlines()
    for done, line in enumerate(lines):
        text, labels, _ = line.split("\t")
        show("comments", done, len(lines))
        chosen = [names[int(label)] for label in labels.split(",")]
        yield [
            text,
            *(f"{max(weights.get(name, 0.0) for name in chosen):g}" for weights in LABELS.values()),
        ]


FOLDERS: Final[
    Mapping[str, Callable[[Path, Path, Callable[[str, int, int], None]], Iterator[Sequence[str]]]]
] = {"ferplus": _ferplus, "emodb": _emodb, "goemotions": _goemotions}
FOLDER_HELP: Final = {
    "ferplus": "valid.csv or train.csv of FER+, with the pictures in valid.npz next to it",
    "emodb": "EmoDB's table (emodb.tsv), with the recordings where it says",
    "goemotions": "dev.tsv or train.tsv of GoEmotions, with labels.txt next to it",
}
