"""Which words were heard rightly: the least number of edits from what was said to what was heard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from emi_models.errors import ModelUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Score", "need_jiwer", "score"]


@dataclass(frozen=True, slots=True)
class Score:
    """Edits, and the words that needed none."""

    words: int  # that were said
    substitutions: int
    deletions: int
    insertions: int
    pairs: tuple[tuple[int, int], ...] = ()  # of words heard rightly: index among those said, and heard

    @property
    def errors(self) -> int:
        """All edits."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float | None:
        """Word error rate; it may exceed 1. None where nothing was said."""
        return self.errors / self.words if self.words else None


def need_jiwer() -> None:
    """Return if word error rates can be had.

    Raises:
        ModelUnavailableError: jiwer is not installed.
    """
    try:
        import jiwer  # noqa: F401
    except ImportError as error:
        raise ModelUnavailableError(
            "word error rates need jiwer, which is not installed: pip install 'emi-live[bench]'"
        ) from error


def score(said: Sequence[str], heard: Sequence[str]) -> Score:
    """Align by least edits (jiwer); both as `emi_bench.speech.words.spoken` gives them."""
    from jiwer import process_words

    found = process_words(" ".join(said), " ".join(heard))
    pairs = [
        pair
        for chunk in found.alignments[0]
        if chunk.type == "equal"
        for pair in zip(
            range(chunk.ref_start_idx, chunk.ref_end_idx),
            range(chunk.hyp_start_idx, chunk.hyp_end_idx),
            strict=True,
        )
    ]
    return Score(len(said), found.substitutions, found.deletions, found.insertions, tuple(pairs))
