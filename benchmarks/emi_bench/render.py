"""The one renderer: a page of text, tables and a figure, to the terminal, to Markdown and to a PNG.

A bench describes its page once, as a `Page`. `print_page` shows it in a terminal, `markdown` writes it, and
`draw_figures` draws its figure. Nothing here needs more than the standard library, but for the figure
matplotlib.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

from emi_models.console import printable
from emi_models.errors import EmiError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import SubFigure

    from emi_bench.measurement import Distribution

__all__ = [
    "STATISTICS",
    "Bullets",
    "Code",
    "Column",
    "Figure",
    "Heading",
    "Page",
    "Panel",
    "Paragraph",
    "ReportError",
    "Strong",
    "Table",
    "draw_figures",
    "markdown",
    "need_matplotlib",
    "number",
    "print_page",
    "spark_line",
    "statistics",
    "terminal",
]

FIGURE_WIDTH: Final = 15.0  # inches
BLOCKS: Final = "▁▂▃▄▅▆▇█"
SPARK_COLUMNS: Final = 40
LONGEST: Final = 10_000  # characters of a paragraph or cell in a terminal
LEAST_WRAPPED: Final = 12  # characters of a column whose text is wrapped
BOLD, DIM, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


class ReportError(EmiError, ValueError):
    """A file is not the report of a benchmark, or its page or figure cannot be made."""


class Strong(str):
    """A text or cell that must be noticed: bold."""

    __slots__ = ()


class Code(str):
    """A cell that names something one types: in Markdown between backticks."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Heading:
    """The heading of a section."""

    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph; `Strong` for a warning."""

    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list of short sentences."""

    items: Sequence[str]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        name: its heading.
        words: it holds text, so it is aligned to the left and may be wrapped; else it holds numbers.
        detail: in a terminal that is too narrow, the columns with the largest `detail` are left out first;
            a column with 0 always stays.
    """

    name: str
    words: bool = False
    detail: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """A table of cells that are written already."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot of a figure. `draw` puts the marks on the axes; the renderer does all else."""

    draw: Callable[[Axes], None]
    title: str = ""
    x_label: str = ""
    y_label: str = ""
    log: Literal["", "x", "y"] = ""
    grid: Literal["x", "y", "both"] = "both"
    legend: Literal["none", "best", "lower right", "above"] = "none"
    width: float = 1.0  # as a share of its row


@dataclass(frozen=True, slots=True)
class Figure:
    """Rows of panels under a title; `height` in inches."""

    title: str
    rows: Sequence[Sequence[Panel]]
    height: float


Block = Heading | Paragraph | Bullets | Table


@dataclass(frozen=True, slots=True)
class Page:
    """A report for readers.

    Attributes:
        title: its heading.
        measured_on: machine and versions, in one line.
        blocks: text and tables, in order.
        figure: the same as a figure; None if there is nothing to draw.
    """

    title: str
    measured_on: str
    blocks: Sequence[Block] = field(default_factory=list)
    figure: Figure | None = None


# The columns of a distribution.
STATISTICS: Final = (
    Column("n"),
    Column("min", detail=4),
    Column("mean", detail=2),
    Column("median"),
    Column("p90", detail=3),
    Column("p95"),
    Column("p99", detail=5),
    Column("max", detail=1),
)


def statistics(values: Distribution | None) -> list[str]:
    """A distribution as cells, in the order of `STATISTICS`."""
    if values is None:
        return ["0", *["-"] * (len(STATISTICS) - 1)]
    return [str(values.n), *(number(getattr(values, column.name)) for column in STATISTICS[1:])]


def number(value: float | None, digits: int = 3) -> str:
    """A value with so many significant digits, without an exponent; a dash for None."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:.0f}"
    decimals = 0
    while abs(value) * 10**decimals < 10 ** (digits - 1) and decimals < 6:
        decimals += 1
    return f"{value:.{decimals}f}"


def spark_line(values: Sequence[float]) -> str:
    """Values over time as a line of blocks, from 0 to the largest, at most `SPARK_COLUMNS` characters."""
    if not values or max(values) <= 0:
        return ""
    width = min(SPARK_COLUMNS, len(values))
    edges = [round(index * len(values) / width) for index in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    top = max(means)
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int(len(BLOCKS) * mean / top))] for mean in means)


# --- Markdown ---


def markdown(pages: Sequence[Page], picture: str | None = None) -> str:
    """All pages as one Markdown text; `picture` is the file name of their figure."""
    lines = [] if picture is None else [f"![The same as a figure]({picture})", ""]
    for page in pages:
        lines += [f"## {page.title}", "", f"{page.measured_on}.", ""]
        for block in page.blocks:
            lines += [*_markdown_block(block), ""]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_block(block: Block) -> Iterator[str]:
    if isinstance(block, Heading):
        yield f"### {block.text}"
    elif isinstance(block, Paragraph):
        yield _markdown_text(block.text)
    elif isinstance(block, Bullets):
        yield from (f"- {_markdown_text(item)}" for item in block.items)
    else:
        yield _markdown_row([column.name for column in block.columns])
        yield _markdown_row(["---" if column.words else "--:" for column in block.columns])
        yield from (_markdown_row(row) for row in block.rows)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_markdown_text(cell).replace("|", "\\|") for cell in cells) + " |"


def _markdown_text(text: str) -> str:
    if isinstance(text, Strong):
        return f"**{text}**"
    return f"`{text}`" if isinstance(text, Code) else text


# --- terminal ---


def print_page(page: Page) -> None:
    """Show a page on standard output, as wide as the terminal; 80 columns where that is unknown."""
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    sys.stdout.write(terminal(page, shutil.get_terminal_size().columns, colour=colour))
    sys.stdout.flush()


def terminal(page: Page, width: int, *, colour: bool = False) -> str:
    """A page as plain text of at most `width` columns; with `colour`, bold and dim by ANSI codes.

    Names of files and labels cannot steer the terminal: what is not visible is escaped.
    """
    page = _escaped(page)
    lines = [_styled(page.title, BOLD, colour)]
    lines += [_styled(line, DIM, colour) for line in textwrap.wrap(page.measured_on, width)]
    for block in page.blocks:
        lines.append("")
        if isinstance(block, Heading):
            lines.append(_styled(block.text, BOLD, colour))
        elif isinstance(block, Paragraph):
            lines += [_terminal_text(block.text, line, colour) for line in textwrap.wrap(block.text, width)]
        elif isinstance(block, Bullets):
            for item in block.items:
                wrapped = textwrap.wrap(item, width, initial_indent="- ", subsequent_indent="  ")
                lines += [_terminal_text(item, line, colour) for line in wrapped]
        else:
            lines += _terminal_table(block, width, colour)
    return "\n".join(lines) + "\n"


def _escaped(page: Page) -> Page:
    """The page with escapes in place of every character that a terminal would obey."""
    blocks: list[Block] = []
    for block in page.blocks:
        if isinstance(block, Heading):
            blocks.append(Heading(_safe(block.text)))
        elif isinstance(block, Paragraph):
            blocks.append(Paragraph(_safe(block.text)))
        elif isinstance(block, Bullets):
            blocks.append(Bullets([_safe(item) for item in block.items]))
        else:
            columns = [replace(column, name=_safe(column.name)) for column in block.columns]
            blocks.append(Table(columns, [[_safe(cell) for cell in row] for row in block.rows]))
    return Page(_safe(page.title), _safe(page.measured_on), blocks, page.figure)


def _safe(text: str) -> str:
    """The text with escapes; it stays `Strong` or `Code`."""
    return type(text)(printable(text, LONGEST))


def _terminal_table(table: Table, width: int, colour: bool) -> Iterator[str]:
    shown = [*range(len(table.columns))]
    widths: list[int] = [
        max(len(cells[index]) for cells in [[each.name for each in table.columns], *table.rows])
        for index in shown
    ]

    def total() -> int:
        needed: int = sum(widths[index] + 1 for index in shown) - 1
        return needed

    while total() > width and (detail := max(table.columns[index].detail for index in shown)):
        shown = [index for index in shown if table.columns[index].detail != detail]
    while total() > width:
        texts = [i for i in shown if table.columns[i].words and widths[i] > LEAST_WRAPPED]
        if not texts:
            break
        widths[max(texts, key=lambda index: widths[index])] -= 1  # its text is wrapped
    for number_of_row, cells in enumerate([[column.name for column in table.columns], *table.rows]):
        wrapped = {index: textwrap.wrap(cells[index], widths[index]) or [""] for index in shown}
        for line in range(max(map(len, wrapped.values()))):
            parts = []
            for index in shown:
                text = wrapped[index][line] if line < len(wrapped[index]) else ""
                words = table.columns[index].words
                aligned = text.ljust(widths[index]) if words else text.rjust(widths[index])
                style = DIM if number_of_row == 0 else BOLD if isinstance(cells[index], Strong) else ""
                parts.append(_styled(aligned, style, colour))
            yield " ".join(parts).rstrip()


def _terminal_text(text: str, line: str, colour: bool) -> str:
    return _styled(line, BOLD if isinstance(text, Strong) else "", colour)


def _styled(text: str, style: str, colour: bool) -> str:
    return f"{style}{text}{PLAIN}" if colour and style else text


# --- figure ---


def need_matplotlib() -> None:
    """Return if figures can be drawn.

    Raises:
        ReportError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ReportError(
            "the figure needs matplotlib, which is not installed; install the extra `bench` "
            "(pip install 'emi-live[bench]') or matplotlib itself, or leave the figure out with --no-figure"
        )


def draw_figures(path: Path, pages: Sequence[Page]) -> None:
    """Write the figures of all pages, at least one, as one PNG, one below the other; no display is needed.

    Raises:
        ReportError: matplotlib is not installed.
    """
    need_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    drawn = [(page, page.figure) for page in pages if page.figure is not None]
    heights = [figure.height + 0.6 for _, figure in drawn]
    canvas = Canvas(figsize=(FIGURE_WIDTH, sum(heights)), layout="constrained", dpi=110)
    parts = canvas.subfigures(len(drawn), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (page, figure) in zip(parts, drawn, strict=True):
        part.suptitle(figure.title, fontsize="large")
        _draw_rows(part, figure.rows)
        part.supxlabel("\n".join(textwrap.wrap(page.measured_on, 180)), fontsize="x-small", color="0.3")
    FigureCanvasAgg(canvas).print_png(path)


def _draw_rows(part: SubFigure, rows: Sequence[Sequence[Panel]]) -> None:
    grid = part.subplots(
        len(rows), len(rows[0]), squeeze=False, width_ratios=[panel.width for panel in rows[0]]
    )
    for row, panels in zip(grid, rows, strict=True):
        for axes, panel in zip(row, panels, strict=True):
            panel.draw(axes)
            _finish(axes, panel)


def _finish(axes: Axes, panel: Panel) -> None:
    """Scales, grid, labels and legend, which are the same in all figures."""
    if panel.log == "x" and axes.has_data():
        axes.set_xscale("log")
        _plain_ticks(axes.xaxis)
    elif panel.log == "y" and axes.has_data():
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis)
    axes.grid(axis=panel.grid, alpha=0.3)
    axes.set_title(panel.title, fontsize="medium")
    axes.set_xlabel(panel.x_label, fontsize="small")
    axes.set_ylabel(panel.y_label, fontsize="small")
    labels = axes.get_legend_handles_labels()[1]
    if panel.legend == "above" and labels:
        axes.legend(fontsize="x-small", frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    elif panel.legend != "none" and labels:
        columns = 1 if len(labels) <= 5 else 2
        axes.legend(fontsize="x-small", frameon=False, ncols=columns, loc=panel.legend, handlelength=3)


def _plain_ticks(axis: Axis) -> None:
    """Ticks at 1, 2, 5, 10, 20, …, or 1, 10, … on a long axis, written without exponents."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 5.0) if high < 200 * low else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
