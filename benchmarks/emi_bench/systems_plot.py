"""The comparison as a picture, drawn without a display."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from emi_models.vocabulary import MODALITIES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from emi_bench.systems_summary import Row

__all__ = ["draw_systems"]

COLOURS: Final = {"system": "tab:blue", "ablation": "tab:cyan", "reference": "tab:grey"}
MODALITY_COLOURS: Final = {"text": "tab:red", "audio": "tab:orange", "vision": "tab:green"}


def draw_systems(path: Path, table: Sequence[Row], title: str) -> None:
    """Write a PNG: correlation by variant, each seed's; and what is lost by the modality that is missing."""
    shown = list(reversed(table))  # the first row on top
    figure = Figure(figsize=(12.0, 1.6 + 0.42 * len(shown)), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(shown))
    for place, row in zip(places, shown, strict=True):  # no bars: the axis does not begin at 0
        colour = COLOURS[row.variant.kind]
        left.plot([row.rho.mean], [place], "|", color=colour, markersize=16, markeredgewidth=3)
        left.plot(row.rhos, [place] * len(row.rhos), "o", color=colour, markersize=4, alpha=0.7)
    left.grid(axis="x", alpha=0.3)
    left.set_yticks(list(places), [row.variant.label for row in shown])
    left.set_xlabel("rho on valid (mean of six): seeds and their mean")
    height = 0.8 / len(MODALITIES)
    for number, modality in enumerate(reversed(MODALITIES)):
        right.barh(
            [place + (1 - number) * height for place in places],
            [row.loss[modality].mean for row in shown],
            height,
            xerr=[row.loss[modality].sd for row in shown],
            color=MODALITY_COLOURS[modality],
            label=f"without {modality}",
        )
    right.axvline(0.0, color="black", linewidth=0.8)
    right.set_xlabel("rho lost when a modality is missing, ± sd over seeds")
    right.legend(frameon=False)
    FigureCanvasAgg(figure).print_png(path)
