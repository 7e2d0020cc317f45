"""What a network estimates of a clip: the six emotions, or labels of one's own, each with its name and range.

Files of ratings, tables and estimates have a target's own units; networks, losses and engines have its share
of the range, 0 at the low end and 1 at the high end. The six emotions go from 0 to 1, so both are the same.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from emi_models import EMOTIONS
from emi_models.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "AMBIVALENCE",
    "EMI_TARGETS",
    "MAX_TARGETS",
    "Target",
    "TargetClips",
    "parse_target_list",
    "ranges_of",
    "shown_values",
    "targets_named",
    "targets_of",
]

MAX_TARGETS: Final = 32  # a screen shows no more
LONGEST: Final = 40  # characters of a name
_NAME: Final = re.compile(rf"[A-Za-z][A-Za-z0-9_]{{0,{LONGEST - 1}}}")
_TAKEN: Final = frozenset({"id", "filename", "split", "duration_s", "features"})  # columns of tables of clips
AMBIVALENCE: Final = "ambivalence"  # what a network of the task `bah` gives the probability of


@dataclass(frozen=True, slots=True)
class Target:
    """One label that a network estimates; ratings lie from `low` to `high`.

    Raises:
        ValueError: the name is not a word of letters, digits and underscores, or the range is empty.
    """

    name: str
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name) or self.name.lower() in _TAKEN:
            raise ValueError(
                f"{str(self.name)[:LONGEST]!r} cannot name a target: give a letter, then letters, digits and "
                f"underscores, {LONGEST} in all, and none of {', '.join(sorted(_TAKEN))}"
            )
        ends = (self.low, self.high)
        if (
            not all(isinstance(end, int | float) and abs(end) <= 1e6 for end in ends)
            or not self.low < self.high
        ):
            raise ValueError(
                f"{self.name} has the range {self.low!r}..{self.high!r}; give two numbers, the lower first"
            )

    @property
    def span(self) -> float:
        """How far the range reaches, in the target's units."""
        return self.high - self.low

    def share(self, value: float) -> float:
        """Where in the range a rating lies: 0 at the low end, 1 at the high end."""
        return (value - self.low) / self.span

    def value(self, share: float) -> float:
        """The rating that a share of the range stands for."""
        return self.low + share * self.span


EMI_TARGETS: Final = tuple(Target(name) for name in EMOTIONS)


@runtime_checkable
class TargetClips(Protocol):
    """A `ClipSet` that says what its ratings are of; one that does not is rated for the six emotions."""

    @property
    def rated(self) -> tuple[Target, ...]:
        """The targets, in the order of the columns of `targets(split)`."""


def targets_of(clips: object) -> tuple[Target, ...]:
    """What a set of clips is rated for."""
    return clips.rated if isinstance(clips, TargetClips) else EMI_TARGETS


def shown_values(
    raw: NDArray[np.float32], targets: Sequence[Target], task: str = "emi"
) -> NDArray[np.float64]:
    """What users see of a network's raw values (B, K): in the targets' units, never beyond their ranges.

    For the task `bah` the raw value is a logit, and what is shown is the probability.
    """
    import numpy as np  # here, since reading a checkpoint's header needs none

    if task == "bah":
        share = 1.0 / (1.0 + np.exp(-np.clip(raw.astype(np.float64), -50.0, 50.0)))
    else:
        share = np.clip(raw, 0.0, 1.0).astype(np.float64)
    low, high = np.array([(t.low, t.high) for t in targets], np.float64).T
    # Clipped again, since rounding may lead beyond an end.
    shown: NDArray[np.float64] = np.clip(low + share * (high - low), low, high)
    return shown


def parse_target_list(text: str) -> tuple[Target, ...]:
    """Targets as a command line names them: `arousal:-1..1,valence:-1..1,joy`; without a range, 0..1.

    Raises:
        DataError: a name or a range cannot be understood, a name comes twice, or there are too many.
    """
    found = []
    for word in text.split(","):
        name, colon, ends = (part.strip() for part in word.partition(":"))
        low, dots, high = ends.partition("..")
        if colon and not dots:
            raise DataError(f"{word.strip()!r} has no range; write it as {name or 'arousal'}:-1..1")
        try:
            found.append(Target(name, _number(low), _number(high)) if colon else Target(name))
        except ValueError as error:
            raise DataError(f"{word.strip()!r} is not a target: {error}") from error
    return _checked(found)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # refused by `Target` with better words


def targets_named(names: Iterable[str], ranges: Mapping[str, object] | None = None) -> tuple[Target, ...]:
    """Targets from their names and from the ranges [low, high] of those that do not go from 0 to 1.

    Raises:
        ValueError: a name or a range is impossible, or a range is of no target.
    """
    ranges = dict(ranges or {})
    found = []
    for name in names:
        ends = ranges.pop(name, (0.0, 1.0))
        if not isinstance(ends, list | tuple) or len(ends) != 2:
            raise ValueError(f"the range of {name} is {ends!r}, not two numbers")
        found.append(Target(name, *ends))
    if ranges:
        raise ValueError(f"a range is given for {next(iter(ranges))!r}, which is not a target")
    try:
        return _checked(found)
    except DataError as error:
        raise ValueError(str(error)) from error


def ranges_of(targets: Iterable[Target]) -> dict[str, tuple[float, float]]:
    """The ranges of those targets that do not go from 0 to 1, by name."""
    return {t.name: (float(t.low), float(t.high)) for t in targets if (t.low, t.high) != (0.0, 1.0)}


def _checked(targets: list[Target]) -> tuple[Target, ...]:
    names = [target.name for target in targets]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"the target {twice[0]} is named twice; name it once")
    if not 1 <= len(targets) <= MAX_TARGETS:
        raise DataError(f"{len(targets)} targets are named; give from 1 to {MAX_TARGETS}")
    return tuple(targets)
