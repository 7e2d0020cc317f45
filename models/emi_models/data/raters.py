"""How many people rated each clip, and how often training shows it for that.

The ratings of a clip are means over people, and their error falls with the root of how many there were. With
`data.raters=FILE` a clip of N raters is shown √N times as often as one of a single rater: on average over
epochs, every loss then weighs it so, and one that compares the clips of a batch needs no weights of its own.

None of the papers weighs clips; the authors of TAEMI have an unused option of this kind in their code.
Hume-Vidmimic2 does not come with the number of raters. FILE is a CSV with the columns `id` and `raters`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from torch.utils.data import Sampler

from emi_models.data.clip import csv_rows, normal_id
from emi_models.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["MOST_RATERS", "Weighed", "read_raters", "weights_by_raters"]

MOST_RATERS: Final = 10_000


def read_raters(path: Path) -> dict[str, int]:
    """The number of raters of each clip, from a CSV with the columns `id` and `raters` among others.

    Raises:
        DataError: it has no such columns, a clip comes twice, or a number is not whole or not in 1..10000.
    """
    rows = csv_rows(path)
    number, header = next(rows, (1, []))
    if missing := [name for name in ("id", "raters") if header.count(name) != 1]:
        raise DataError(f"{path}:{number} lacks the column {missing[0]!r}, or has it twice; give id,raters")
    places = header.index("id"), header.index("raters")
    found: dict[str, int] = {}
    for number, row in rows:
        if len(row) <= max(places):
            raise DataError(f"{path}:{number} has {len(row)} cells, fewer than its header; correct the line")
        clip_id, cell = normal_id(row[places[0]]), row[places[1]].strip()
        if clip_id in found:
            raise DataError(f"{path}:{number} has clip {clip_id} again; keep one line of a clip")
        if not (cell.isascii() and cell.isdigit() and 1 <= int(cell) <= MOST_RATERS):
            raise DataError(
                f"{path}:{number} has {cell!r} raters; give a whole number from 1 to {MOST_RATERS}"
            )
        found[clip_id] = int(cell)
    return found


def weights_by_raters(ids: Sequence[str], raters: Mapping[str, int]) -> NDArray[np.float64]:
    """How often each clip is shown in an epoch, (N,), 1 on average: the root of its raters over their mean.

    Raises:
        DataError: a clip has no number of raters.
    """
    if gone := [clip_id for clip_id in ids if normal_id(clip_id) not in raters]:
        raise DataError(
            f"data.raters has no line of clip {gone[0]} and {len(gone) - 1} others that train; "
            "give the number of raters of each"
        )
    roots = np.sqrt([raters[normal_id(clip_id)] for clip_id in ids])
    return np.asarray(roots / roots.mean(), np.float64)


class Weighed(Sampler[int]):
    """As many numbers as there are weights, in random order: number i `weights[i]` times on average.

    In one epoch it comes that often rounded down or up, so that chance adds as little as it can. `seed` alone
    decides. Weights are 1 on average.
    """

    def __init__(self, weights: NDArray[np.float64], seed: int) -> None:
        self.weights = weights
        self.seed = seed

    def __len__(self) -> int:
        return len(self.weights)

    def __iter__(self) -> Iterator[int]:
        draw = np.random.default_rng(self.seed)
        place = draw.permutation(len(self.weights))  # so that neighbours are not rounded together
        ends = np.cumsum(self.weights[place])
        marks = np.floor(ends / ends[-1] * len(place) + draw.random())
        marks[-1] = len(place)
        counts = np.diff(marks, prepend=0.0).astype(np.int64)
        yield from draw.permutation(np.repeat(place, counts)).tolist()
