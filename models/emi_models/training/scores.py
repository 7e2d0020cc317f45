"""What an evaluation has found, as numbers that JSON can hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from emi_models.training.metrics import concordance, mean_squared, pearson, weighted_f1
from emi_models.training.published import HEADING
from emi_models.vocabulary import EMOTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from emi_models.networks.base import Task
    from emi_models.training.published import Published
    from emi_models.vocabulary import Modality

__all__ = ["Evaluation", "PrefixScores", "Scores"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores over n clips: Pearson, concordance and squared error, six each in the order of `EMOTIONS`.

    For ambivalence and hesitancy these are empty, and `weighted_f1` is the score.
    """

    n: int
    pearson: tuple[float, ...] = ()
    ccc: tuple[float, ...] = ()
    mse: tuple[float, ...] = ()
    weighted_f1: float | None = None

    @classmethod
    def of(cls, predicted: Tensor, truth: Tensor, task: Task = "emi") -> Scores:
        """The scores of predictions (N, K) against ratings (N, K)."""
        n = len(truth)
        if task == "bah":
            return cls(n=n, weighted_f1=float(weighted_f1(predicted, truth)))
        columns = (measure(predicted, truth).tolist() for measure in (pearson, concordance, mean_squared))
        rho, ccc, mse = (tuple(column) for column in columns)
        return cls(n=n, pearson=rho, ccc=ccc, mse=mse)

    @property
    def mean_pearson(self) -> float:
        """The field's score: Pearson's correlation averaged over the six emotions."""
        return sum(self.pearson) / len(self.pearson)

    @property
    def score(self) -> float:
        """What the network is judged by: mean Pearson, or weighted F1."""
        return self.mean_pearson if self.weighted_f1 is None else self.weighted_f1

    def to_json(self) -> dict[str, Any]:
        """Means beside each emotion's own."""
        if self.weighted_f1 is not None:
            return {"n": self.n, "weighted_f1": self.weighted_f1}
        columns = {"pearson": self.pearson, "ccc": self.ccc, "mse": self.mse}
        return {"n": self.n} | {
            name: {"mean": sum(values) / len(values), **dict(zip(EMOTIONS, values, strict=True))}
            for name, values in columns.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixScores:
    """Scores when no clip is shown beyond `seconds`; `cut` clips are longer, the others are shown whole."""

    seconds: float
    cut: int
    scores: Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a network does on the clips of one split."""

    system: str
    task: Task
    data: str  # the set's description
    split: str  # and where it comes from
    n: int  # rated clips
    whole: Scores  # every clip as it ends, or at 12 s
    prefixes: tuple[PrefixScores, ...]
    without: Mapping[Modality, Scores] = field(default_factory=dict)  # whole clips, one modality taken away
    alone: Mapping[Modality, Scores] = field(default_factory=dict)  # whole clips, the others taken away
    published: tuple[Published, ...] = ()  # empty where the data are others

    def to_json(self) -> dict[str, Any]:
        """All of it, for machines."""
        return {
            "system": self.system,
            "task": self.task,
            "data": self.data,
            "split": self.split,
            "n": self.n,
            "whole": self.whole.to_json(),
            "prefixes": [{"seconds": p.seconds, "cut": p.cut, **p.scores.to_json()} for p in self.prefixes],
            "without": {modality: scores.to_json() for modality, scores in self.without.items()},
            "alone": {modality: scores.to_json() for modality, scores in self.alone.items()},
            "published": {"heading": HEADING, "rows": [asdict(row) for row in self.published]},
        }
