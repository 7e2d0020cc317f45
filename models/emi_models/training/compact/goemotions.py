"""GoEmotions as training data: its labels mapped to the six intensities, its comments as written and spoken.

Source: Demszky et al. 2020, "GoEmotions: A Dataset of Fine-Grained Emotions", CC BY 4.0. The files are those
of its filtered release: `train.tsv` and `dev.tsv` (text, comma-separated label numbers, comment id), and
`labels.txt`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models.errors import EmiError
from emi_models.vocabulary import EMOTIONS

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["MAPPING", "Comments", "DataError", "cut_short", "mean_pearson", "pearson", "read_split", "spoken"]

# How much of each emotion a label stands for; reasons in docs/decisions/0004-goemotions-mapping.md.
MAPPING: Final[Mapping[str, Mapping[str, float]]] = {
    "admiration": {"admiration": 1.0},
    "amusement": {"amusement": 1.0},
    "determination": {"optimism": 1.0, "desire": 0.5},
    "empathic_pain": {"sadness": 1.0, "grief": 1.0, "remorse": 1.0, "caring": 0.5},
    "excitement": {"excitement": 1.0},
    "joy": {"joy": 1.0},
}

# What stands for the data's [NAME], so that a spoken sentence has a name where one was said.
NAMES: Final = (
    *("alex", "anna", "ben", "chris", "dan", "david", "emma", "james", "john", "julia"),
    *("kate", "laura", "lisa", "maria", "mary", "michael", "nina", "sam", "sarah", "tom"),
)


class DataError(EmiError, ValueError):
    """Training data are not there, or are not in the form that their publisher gives them."""


@dataclass(frozen=True, slots=True)
class Comments:
    """One split: texts as written, and their intensities, (len(texts), 6) in the order of `EMOTIONS`."""

    texts: tuple[str, ...]
    targets: NDArray[np.float32]


def read_split(folder: Path, split: str) -> Comments:
    """The comments of `train` or `dev`, in the file's order.

    Raises:
        DataError: a file is missing, or a line is not text, label numbers and id.
    """
    names = _lines(folder / "labels.txt")
    if unknown := {label for labels in MAPPING.values() for label in labels} - set(names):
        raise DataError(
            f"{folder / 'labels.txt'} lacks {', '.join(sorted(unknown))}; take GoEmotions' own file"
        )
    weights = np.array(
        [[MAPPING[emotion].get(name, 0.0) for emotion in EMOTIONS] for name in names], np.float32
    )
    path = folder / f"{split}.tsv"
    texts, targets = [], []
    for number, line in enumerate(_lines(path), start=1):
        match line.split("\t"):
            case [text, labels, _] if re.fullmatch(r"\d+(,\d+)*", labels):
                rows = [int(label) for label in labels.split(",")]
            case _:
                raise DataError(
                    f"{path}:{number} is not text, label numbers and id; take GoEmotions' own file"
                )
        if max(rows) >= len(names):
            raise DataError(f"{path}:{number} has label {max(rows)}, labels.txt only {len(names)} names")
        texts.append(text)
        targets.append(weights[rows].max(axis=0))
    if not texts:
        raise DataError(f"{path} is empty; take GoEmotions' own file")
    return Comments(tuple(texts), np.stack(targets))


def spoken(text: str, choice: random.Random) -> str:
    """A comment as a speech recogniser would give it: lower case, words and apostrophes only."""
    text = re.sub(r"https?://\S+", " ", text)
    text = re.sub(r"\[NAME\]", lambda _: choice.choice(NAMES), text)
    text = (
        text.replace("[RELIGION]", "religion")
        .replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
        .replace("&", " and ")
    )
    text = re.sub(r"(?<!\w)/s\b", " ", text, flags=re.IGNORECASE)  # the mark of sarcasm, which is not spoken
    text = re.sub(r"[^a-z0-9' ]+", " ", text.lower())
    text = re.sub(r"(?<!\w)'|'(?!\w)", " ", text)  # quotation marks; apostrophes stay
    return " ".join(text.split())


def cut_short(text: str, choice: random.Random) -> str:
    """The first 40 to 90 % of the words, three at least: a sentence while it is being said."""
    words = text.split()
    return " ".join(words[: max(3, round(len(words) * choice.uniform(0.4, 0.9)))])


def pearson(predicted: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.float64]:
    """Pearson's correlation of each column, (6,); 0 where a column does not vary."""
    a = predicted.astype(np.float64) - predicted.mean(axis=0, dtype=np.float64)
    b = truth.astype(np.float64) - truth.mean(axis=0, dtype=np.float64)
    scale = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    product: NDArray[np.float64] = (a * b).sum(axis=0)
    correlation: NDArray[np.float64] = np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)
    return correlation


def mean_pearson(predicted: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """The field's score: Pearson's correlation, averaged over the six emotions."""
    return float(pearson(predicted, truth).mean())


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; give the folder of GoEmotions' files") from error
    return (
        text.removesuffix("\n").split("\n") if text else []
    )  # not splitlines(): comments hold odd separators
