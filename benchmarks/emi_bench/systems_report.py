"""The report of `emi bench systems`: what was trained on what, and how the systems compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from emi_bench.render import Bullets, Column, Figure, Heading, Page, Panel, Paragraph, Strong, Table
from emi_bench.report import BenchReport
from emi_models import Modality

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

    from emi_bench.render import Block

__all__ = [
    "Avoidable",
    "Expectation",
    "LinearProbe",
    "Spread",
    "SystemsReport",
    "TrainingRun",
    "Variant",
    "VariantRow",
    "Verdict",
]

VariantKind = Literal["system", "ablation", "beyond", "reference"]
Verdict = Literal["yes", "no", "cannot be told apart", "too few seeds"]

HEADINGS: Final[Mapping[VariantKind, str]] = {
    "system": "The systems",
    "ablation": "TAEMI with one of its parts changed",
    "beyond": "TAEMI with one thing more, of none of the papers",
    "reference": "For comparison: TAEMI that is trained without a modality",
}
ORDER: Final[tuple[Modality, ...]] = ("text", "audio", "vision")  # as in the papers
SYNTHETIC: Final = "These clips are synthetic."
NOT_PEOPLE: Final = (
    "`emi synth` made them, and no person is in them. The corpus exists to show "
    "that training works and that each mechanism has its effect. Nothing here says how good a system is on "
    "people, and no number here can be compared with a paper's."
)
CORPUS: Final = (
    "In this corpus a clip's words carry its emotions, with noise, and its topic. Its voice and face are cut "
    "into moments: half of them bear the mark of the clip's topic and show its emotions, the others are "
    "distractors of other topics, with other emotions. So the words tell which moments count. The generator "
    "was fixed by the published statistics of Hume-Vidmimic2, and by what one modality alone gives a linear "
    "reader (below; the papers have words at 0.4 to 0.5, voices at about 0.35, faces at 0.13 to 0.16), "
    "before any network was trained on it; it was not changed afterwards."
)
METHOD: Final = (
    "Every variant is trained by `emi_models.training` with its paper's recipe, except for the settings "
    "above, which are the same for all stages of all variants, and for the widths of the networks, which "
    "are small because the features are. The epoch is chosen on the valid clips and the scores are on the "
    "same clips, which makes all variants look better than they are, by about the same amount."
)
TERMS: Final = (
    "rho: Pearson's correlation over all valid clips, the mean of the six emotions",
    "±: the standard deviation between seeds, which change weights, order and dropout, never the clips",
    "without text: rho if the words are removed from every valid clip; likewise the others",
    "lost with text: rho with all modalities minus rho without text, seed by seed; likewise the others",
    "in place of an absent modality TAEMI has a learned token; its variants without tokens have zeros",
)
AVOIDABLE: Final = (
    "The information of a modality is gone if the modality is missing, whatever replaces it. So this "
    "compares with a TAEMI that never had that modality: its rho minus the variant's when the modality is "
    "missing, seed by seed. 0 or less: the variant does as well without the modality as a network that was "
    "trained without it."
)
KIND_COLOURS: Final = {
    "system": "tab:blue",
    "ablation": "tab:cyan",
    "beyond": "tab:olive",
    "reference": "tab:grey",
}
BEYOND: Final = (
    "Whatever is ahead here proves nothing about people: how ratings come about in this corpus was written "
    "down by its makers, zeros and raters included."
)
MODALITY_COLOURS: Final = {"text": "tab:red", "audio": "tab:orange", "vision": "tab:green"}
VARIANT_COLUMNS: Final = (
    Column("variant", words=True),
    Column("seeds", detail=2),
    Column("rho valid"),
    *(Column(f"without {modality}", detail=3) for modality in ORDER),
    *(Column(f"lost with {modality}", detail=1) for modality in ORDER),
    Column("lost in sum"),
    Column("parameters", detail=4),
    Column("CPU s", detail=5),
)


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over seeds, and the standard deviation between them (0 for one seed)."""

    mean: float
    sd: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of one value for each seed."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else 0.0)

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.sd:.3f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One row of the comparison: a system and its network's settings."""

    name: str  # in file names
    label: str  # in tables and figures
    kind: VariantKind
    system: str
    network: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)  # in addition to `TRAINING`
    raters: bool = False  # clips count by their raters, whose numbers are in the folder's raters.csv


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """The result of one training. Correlations are Pearson's on the valid clips, the mean of six emotions."""

    variant: str
    seed: int
    settings: Mapping[str, Any]
    parameters: int
    epochs: Mapping[str, int]  # of each stage
    wall_s: float  # of the training
    cpu_s: float  # likewise, of this process
    n: int  # valid clips
    rho: float
    rho_each: tuple[float, ...]  # in the order of EMOTIONS
    rho_without: Mapping[Modality, float]  # if the modality is absent from every clip
    rho_alone: Mapping[Modality, float]  # if the other two are absent from every clip


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantRow:
    """A variant over its seeds. `loss` of a modality: rho with all minus rho without it, seed by seed."""

    variant: Variant
    seeds: tuple[int, ...]
    rhos: tuple[float, ...]  # in the order of `seeds`
    rho: Spread
    rhos_without: Mapping[Modality, tuple[float, ...]]
    without: Mapping[Modality, Spread]
    loss: Mapping[Modality, Spread]
    total_loss: Spread  # the sum of the three
    parameters: int
    cpu_s: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Avoidable:
    """What a variant loses without a modality beyond TAEMI trained without it, seed by seed."""

    variant: Variant
    loss: Mapping[Modality, Spread]
    total: Spread  # the sum of the three


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What was expected before anything was trained, what was found, and whether it agrees."""

    expected: str
    found: str
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearProbe:
    """A ridge regression's correlation on the valid clips, the mean of six emotions."""

    reads: str
    rho: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemsReport(BenchReport):
    """All trainings and their comparison."""

    bench: ClassVar[str] = "systems"

    libraries: dict[str, str]  # the training libraries and their versions
    data: str
    synthetic: bool
    clips: dict[str, int]  # by split
    training: dict[str, Any]
    seeds: int
    jobs: int
    wall_s: float  # of this command; less than all runs took if some had been done before
    resumed: int  # runs that had been done before
    probes: list[LinearProbe]
    runs: list[TrainingRun]
    rows: list[VariantRow]
    expectations: list[Expectation]
    avoidable: list[Avoidable]

    def page(self) -> Page:
        """What was expected, a table of each kind of variant, and what need not be lost."""
        libraries = ", ".join(f"{name} {number}" for name, number in self.libraries.items())
        title = "Which system, and what is each part of it for?"
        return Page(title, f"{self.where_and_when()}, {libraries}", list(self._blocks()), self._figure())

    def _blocks(self) -> Iterator[Block]:
        if self.synthetic:
            yield Paragraph(Strong(SYNTHETIC))
            yield Paragraph(NOT_PEOPLE)
            yield Paragraph(CORPUS)
        yield Paragraph(f"`emi bench systems` on {self.data}.")
        yield Bullets(list(self._setting()))
        yield Paragraph(METHOD)
        yield Bullets(TERMS)
        if self.expectations:
            yield Heading("What was expected, and what was found")
            columns = [Column(name, words=True) for name in ("expected", "found", "so?")]
            yield Table(columns, [[e.expected, e.found, Strong(e.verdict)] for e in self.expectations])
        for kind, heading in HEADINGS.items():
            if chosen := [row for row in self.rows if row.variant.kind == kind]:
                yield Heading(heading)
                if kind == "beyond" and self.synthetic:
                    yield Paragraph(Strong(BEYOND))
                yield Table(VARIANT_COLUMNS, [_cells(row) for row in chosen])
        if self.avoidable:
            yield from self._avoidable()
        if self.probes:
            yield Heading("What one modality alone gives a linear reader")
            columns = [Column("ridge regression on", words=True), Column("rho valid")]
            yield Table(columns, [[probe.reads, f"{probe.rho:.3f}"] for probe in self.probes])
        yield Paragraph("Every run, with its settings and each emotion's correlation, is in `systems.json`.")

    def _setting(self) -> Iterator[str]:
        training = ", ".join(f"{name} {value}" for name, value in self.training.items())
        yield f"clips: {self.clips['train']} to train on, {self.clips['valid']} to validate"
        variants = f"{len(self.rows)} variants, {self.seeds} seeds"
        yield f"{len(self.runs)} runs: {variants}; {self.jobs} at a time, each on one core"
        wall, cpu = sum(run.wall_s for run in self.runs) / 60, sum(run.cpu_s for run in self.runs) / 60
        yield f"all trainings together took {wall:.1f} minutes, {cpu:.1f} of processor time"
        before = "evaluation and this page included"
        if self.resumed:
            before = f"{self.resumed} runs had been done before it"
        yield f"the command took {self.wall_s / 60:.1f} minutes; {before}"
        yield f"each stage: {training}"

    def _avoidable(self) -> Iterator[Block]:
        yield Heading("What need not be lost")
        yield Paragraph(AVOIDABLE)
        lost = {row.variant.name: row.total_loss for row in self.rows}
        for row in self.avoidable:
            if row.variant.name == "neither":
                yield Paragraph(
                    f"Of the {lost['neither']} that TAEMI with neither loses in sum, {row.total} need not be "
                    "lost; a network trained without the modality does not have the rest either."
                )
        columns = [Column("variant", words=True), *map(Column, ORDER), Column("in sum")]
        rows = [
            [row.variant.label, *(str(row.loss[modality]) for modality in ORDER), str(row.total)]
            for row in self.avoidable
        ]
        yield Table(columns, rows)

    def _figure(self) -> Figure | None:
        if not self.rows:
            return None
        panels = [
            Panel(self._draw_rho, x_label="rho on valid (mean of six): seeds and their mean", grid="x"),
            Panel(
                self._draw_losses,
                x_label="rho lost when a modality is missing, ± sd over seeds",
                grid="x",
                legend="best",
            ),
        ]
        return Figure(self.data, [panels], 1.6 + 0.42 * len(self.rows))

    def _draw_rho(self, axes: Axes) -> None:
        shown = list(reversed(self.rows))  # the first row on top
        for place, row in enumerate(shown):  # no bars, because the axis does not begin at 0
            colour = KIND_COLOURS[row.variant.kind]
            axes.plot([row.rho.mean], [place], "|", color=colour, markersize=16, markeredgewidth=3)
            axes.plot(row.rhos, [place] * len(row.rhos), "o", color=colour, markersize=4, alpha=0.7)
        axes.set_yticks(range(len(shown)), [row.variant.label for row in shown])
        axes.set_ylim(-0.7, len(shown) - 0.3)

    def _draw_losses(self, axes: Axes) -> None:
        shown = list(reversed(self.rows))
        height = 0.8 / len(ORDER)
        for index, modality in enumerate(ORDER):
            axes.barh(
                [place + (1 - index) * height for place in range(len(shown))],
                [row.loss[modality].mean for row in shown],
                height,
                xerr=[row.loss[modality].sd for row in shown],
                color=MODALITY_COLOURS[modality],
                label=f"without {modality}",
            )
        axes.axvline(0.0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(shown)), [""] * len(shown))
        axes.set_ylim(-0.7, len(shown) - 0.3)


def _cells(row: VariantRow) -> list[str]:
    return [
        row.variant.label,
        str(len(row.seeds)),
        Strong(str(row.rho)),
        *(str(row.without[modality]) for modality in ORDER),
        *(str(row.loss[modality]) for modality in ORDER),
        str(row.total_loss),
        f"{row.parameters:,}",
        f"{row.cpu_s.mean:.0f}",
    ]
