"""The report of `emi bench face`: what a picture costs, and how far the backends are from each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from emi_bench.render import Column, Figure, Page, Panel, Paragraph, Table
from emi_bench.report import BenchReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from emi_bench.render import Block

__all__ = ["FaceCost", "FaceDifference", "FaceReport"]

COST_COLUMNS: Final = (
    Column("backend", words=True),
    Column("faces"),
    Column("n"),
    Column("with a face"),
    Column("load, CPU s"),
    Column("CPU mean"),
    Column("p50"),
    Column("p95"),
    Column("wall p50", detail=1),
)
DIFFERENCE_COLUMNS: Final = (
    Column("faces"),
    Column("n"),
    Column("other count"),
    Column("mean"),
    Column("p95"),
    Column("most"),
    Column("pose", detail=1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceCost:
    """One backend over the clip's pictures; milliseconds a picture, without the first ten."""

    backend: str
    max_faces: int
    n: int
    with_face: int
    load_cpu_s: float  # imports and networks; 0 if the process had loaded them before
    cpu_mean_ms: float  # of all threads of the process
    cpu_p50_ms: float
    cpu_p95_ms: float
    wall_p50_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceDifference:
    """LiteRT against MediaPipe: of each picture, the greatest difference of its 52 blendshapes."""

    max_faces: int
    n: int  # pictures in which both see a face
    other_count: int  # pictures in which they see different numbers of faces
    mean: float
    p95: float
    most: float
    pose_most: float  # of radians and of 60 cm


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceReport(BenchReport):
    """All backends over one clip."""

    bench: ClassVar[str] = "face"

    clip: str
    width: int
    height: int
    costs: list[FaceCost]
    differences: list[FaceDifference]

    def page(self) -> Page:
        """One table of costs, one of differences; in the figure the mean cost of each."""
        blocks: list[Block] = [
            Paragraph(f"{self.clip}, {self.width} x {self.height}. Milliseconds a picture:"),
            Table(COST_COLUMNS, [_cost(cost) for cost in self.costs]),
        ]
        if self.differences:
            blocks += [
                Paragraph("LiteRT against MediaPipe, greatest difference of a picture's blendshapes:"),
                Table(DIFFERENCE_COLUMNS, [_difference(each) for each in self.differences]),
            ]
        panel = Panel(self._draw, x_label="CPU ms a picture, mean", grid="x")
        return Page(
            "The face",
            self.where_and_when(),
            blocks,
            Figure("What a picture of a face costs", [[panel]], 2.4),
        )

    def _draw(self, axes: Axes) -> None:
        costs = list(reversed(self.costs))  # the first on top
        axes.barh(range(len(costs)), [cost.cpu_mean_ms for cost in costs])
        axes.set_yticks(range(len(costs)), [f"{cost.backend}, {cost.max_faces}" for cost in costs])


def _cost(cost: FaceCost) -> list[str]:
    return [
        cost.backend,
        str(cost.max_faces),
        str(cost.n),
        str(cost.with_face),
        f"{cost.load_cpu_s:.2f}",
        *(f"{ms:.1f}" for ms in (cost.cpu_mean_ms, cost.cpu_p50_ms, cost.cpu_p95_ms, cost.wall_p50_ms)),
    ]


def _difference(each: FaceDifference) -> list[str]:
    return [
        str(each.max_faces),
        str(each.n),
        str(each.other_count),
        *(f"{value:.4f}" for value in (each.mean, each.p95, each.most, each.pose_most)),
    ]
