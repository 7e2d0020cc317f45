"""Sentence embeddings of a training set, computed once and kept in the user's cache."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models.encoders.sentence import ENCODER_ID, SENTENCE_DIM
from emi_models.store.places import user_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from emi_models.encoders.sentence import SentenceEncoder

__all__ = ["embed"]

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
        _write(path, result)
    except OSError as error:
        _log.info("embeddings are not kept, so the next run computes them again: %s", error)
    return result


def _read(path: Path, rows: int) -> NDArray[np.float32] | None:
    try:
        kept: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return kept if kept.shape == (rows, SENTENCE_DIM) and kept.dtype == np.float32 else None


def _write(path: Path, result: NDArray[np.float32]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        np.save(file, result)
    os.replace(file.name, path)
