"""GoEmotions as training data: its labels mapped to the six intensities, its comments as written and spoken.

Source: Demszky et al. 2020, "GoEmotions: A Dataset of Fine-Grained Emotions", CC BY 4.0. The files are those
of its filtered release: `train.tsv` and `dev.tsv` (text, comma-separated label numbers, comment id), and
`labels.txt`.

`embed` computes the sentence embeddings of a training set once and keeps them in the user's cache.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models import EMOTIONS
from emi_models.encoders.sentence import ENCODER_ID, SENTENCE_DIM
from emi_models.errors import EmiError
from emi_models.files import replacing, user_cache

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from emi_models.encoders.sentence import SentenceEncoder

__all__ = [
    "MAPPING",
    "Comments",
    "DataError",
    "cut_short",
    "embed",
    "mean_pearson",
    "pearson",
    "read_split",
    "spoken",
]

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
    """One split: texts as written, and what people said of them.

    `targets` are intensities, (len(texts), 6) in the order of `EMOTIONS`; `labels` is 1 where a comment has
    a label of `labels.txt`, (len(texts), labels).
    """

    texts: tuple[str, ...]
    targets: NDArray[np.float32]
    labels: NDArray[np.float32]


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
    one_each = np.eye(len(names), dtype=np.float32)
    texts, targets, given = [], [], []
    for number, line in enumerate(_lines(path), start=1):
        match line.split("\t"):
            case [text, numbers, _] if re.fullmatch(r"\d+(,\d+)*", numbers):
                rows = [int(label) for label in numbers.split(",")]
            case _:
                raise DataError(
                    f"{path}:{number} is not text, label numbers and id; take GoEmotions' own file"
                )
        if max(rows) >= len(names):
            raise DataError(f"{path}:{number} has label {max(rows)}, labels.txt only {len(names)} names")
        texts.append(text)
        targets.append(weights[rows].max(axis=0))
        given.append(one_each[rows].max(axis=0))
    if not texts:
        raise DataError(f"{path} is empty; take GoEmotions' own file")
    return Comments(tuple(texts), np.stack(targets), np.stack(given))


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


CHUNK: Final = 2048  # texts between two reports of progress

_log = logging.getLogger(__name__)


def embed(
    texts: Sequence[str],
    encoder: Callable[[], SentenceEncoder],
    advance: Callable[[int], None],
    cache: Path | None = None,
) -> NDArray[np.float32]:
    """Embeddings of the texts, (len(texts), 384), from the cache if the very same texts were embedded before.

    Args:
        texts: what to embed.
        encoder: gives the encoder; not called when the cache has everything.
        advance: told how many more texts are done.
        cache: where embeddings are kept; default: `emi-live/embeddings` in the user's cache.
    """
    digest = hashlib.sha256("\n".join([ENCODER_ID, *texts]).encode()).hexdigest()
    path = (cache or user_cache(os.environ) / "embeddings") / f"{digest[:32]}.npy"
    kept = _read(path, len(texts))
    if kept is not None:
        advance(len(texts))
        return kept
    # Neighbours in length share a batch without padding, and progress then moves in chunks of like cost.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    result = np.empty((len(texts), SENTENCE_DIM), dtype=np.float32)
    model = encoder()
    for start in range(0, len(order), CHUNK):
        rows = order[start : start + CHUNK]
        result[rows] = model.encode([texts[i] for i in rows])
        advance(len(rows))
    try:
        with replacing(path) as part, part.open("wb") as file:
            np.save(file, result)
    except OSError as error:
        _log.info("embeddings are not kept, so the next run computes them again: %s", error)
    return result


def _read(path: Path, rows: int) -> NDArray[np.float32] | None:
    try:
        kept: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return kept if kept.shape == (rows, SENTENCE_DIM) and kept.dtype == np.float32 else None
