"""The view: `render` draws a state as lines of a terminal, `to_svg` as a picture; `PictureSink` saves one."""

from __future__ import annotations

import errno
import io
import re
from pathlib import Path
from typing import Final

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from emi_live.clock import MonotonicClock
from emi_live.errors import ConfigurationError, LiveError
from emi_live.health import Health
from emi_live.messages import Estimate, ModalityReport, ModalityState
from emi_live.sinks.viewstate import (
    AMBER,
    FRAME_COUNTER,
    HISTORY_BIN_S,
    NOTICE,
    UNICODE_GLYPHS,
    Glyphs,
    Progress,
    StateKeeper,
    ViewState,
    colour_of,
)
from emi_models import EMOTIONS, MODALITIES, Modality

__all__ = ["PictureSink", "render", "to_svg"]

STATE_STYLES: Final[dict[ModalityState, str]] = {
    "live": "green",
    "missing": "yellow",
    "failed": "bold red",
    "unavailable": "bright_black",
}
TRACK: Final = "grey35"
BAND: Final = "grey62"
TALL: Final = 3  # lines per value at most: two of bar and history, and one between
LABEL: Final = max(len(name) for name in EMOTIONS)
LONGEST_LABEL: Final = 24  # of a name that a user gave; the rest is cut
NUMBER: Final = len("0.00")
SILENT_S: Final = 2.0  # without an estimate for this long, the view says so
MIN_TEXT_ROWS: Final = 4  # lines of words kept before the bars grow taller
LINES_AROUND: Final = 4  # header, rates, losses, notice
MIN_KEYS_HEIGHT: Final = 16  # lines, from which on the keys have one next to the notice; else they replace it
WORKING_S: Final = 5.0  # exact mode: after this long without a step, the view says for how long
LEAST_BAR: Final = 10  # cells of the progress
MOST_BAR: Final = 40
LOST: Final = "trying again"  # in the reason of a device that was lost and is being reopened
HELP: Final = (
    ("q", "quit, with a summary"),
    ("space", "pause the view; capture goes on"),
    ("m", "set a marker: counted here, and named in the next line of --json"),
    ("?", "this help; any key closes it"),
    ("Ctrl-C", "stop at once, with a summary"),
    ("Ctrl-Z", "suspend; fg goes on"),
)


def render(state: ViewState, width: int, height: int, glyphs: Glyphs = UNICODE_GLYPHS) -> RenderableType:
    """The view, at most `width` × `height` cells.

    It is complete from 50 × 14; below that, lines are cut. Each colour has a word or a place next to it, so
    that nothing is lost with `NO_COLOR`.
    """
    footer = _footer(state, width, height, glyphs)
    around = LINES_AROUND - 1 + len(footer)
    count = min(len(state.names), max(1, height - around - len(MODALITIES) - 1))
    borders = width >= 50 and height > around + count + len(MODALITIES) + 6
    frame = 2 if borders else 0
    left = height - around - count - len(MODALITIES) - 3 * frame
    rows = 1 + max(0, min(TALL - 1, (left - MIN_TEXT_ROWS) // count))
    text_rows = max(1, left - (rows - 1) * count + (rows == TALL))
    inner = width - (4 if borders else 2)
    columns = _history_columns(inner - _label(state) - _number(state) + LABEL + NUMBER)
    span = f"history of {columns * HISTORY_BIN_S:g} s" if columns else ""
    parts: list[RenderableType] = [
        _header(state, width, glyphs),
    ]
    if state.helping:
        parts += _section("keys", "", _help(height - around - frame, inner, glyphs), borders, glyphs)
        return Group(*parts, _rates(state, width, glyphs), _losses(state, width, glyphs), *footer)
    parts += [
        *_section(_heading(state), span, _bars(state, inner, count, rows, columns, glyphs), borders, glyphs),
        *_section("modality", "", _modalities(state.estimate, inner, glyphs), borders, glyphs),
        *_section("words", "", _words(state.estimate, inner, text_rows, glyphs), borders, glyphs),
        _rates(state, width, glyphs),
        _losses(state, width, glyphs),
        *footer,
    ]
    return Group(*parts)


def _footer(state: ViewState, width: int, height: int, glyphs: Glyphs) -> list[Text]:
    """The notice, and the keys where there are any."""
    notice = _join(glyphs.printable(state.notice).split(f" {glyphs.dot} "), "dim", width, glyphs)
    if state.keys is None:
        return [notice]
    pieces = ["q quit", "space go on" if state.paused else "space pause", "m marker", "? help"]
    keys = _join([*(pieces if state.keys else ()), "Ctrl-C stops"], "", width, glyphs)
    return [notice, keys] if height >= MIN_KEYS_HEIGHT else [keys]


def _help(rows: int, inner: int, glyphs: Glyphs) -> list[Text]:
    lines = [
        _fit(Text(f"{key:<8}", style="bold").append(does, style="not bold"), inner, glyphs)
        for key, does in HELP
    ]
    return [*lines, *[Text("")] * (rows - len(lines))][: max(1, rows)]


def _section(
    title: str, subtitle: str, lines: list[Text], borders: bool, glyphs: Glyphs
) -> list[RenderableType]:
    if not borders:
        return [Text(" ").append_text(line) for line in lines]
    heading = Text().append(title, style="bold")
    if subtitle:
        heading.append(f" {glyphs.dot} {subtitle}", style="dim")
    return [
        Panel(Group(*lines), title=heading, title_align="left", box=glyphs.box, border_style="bright_black")
    ]


def _header(state: ViewState, width: int, glyphs: Glyphs) -> Text:
    estimate = state.estimate
    start = Text(" ").append("emi-live", style="bold")
    if state.source:
        start.append(f"  {glyphs.printable(state.source)}")
    end = Text()
    if estimate is not None:
        if state.paused:
            end.append("PAUSED", style="bold reverse").append("  ")
        elif state.silent_s >= SILENT_S and state.progress is None:
            end.append(f"no estimate for {state.silent_s:.0f} s  ", style=AMBER)
        if estimate.baseline is not None and (to_rest_s := estimate.baseline.to_rest_s):
            end.append(f"rest your face: {to_rest_s:.0f} s", style="bold reverse").append("  ")
        if state.markers:
            end.append(f"marker {state.markers}  ", style="bold")
        minutes, seconds = divmod(estimate.t_s, 60)
        end.append(f"{int(minutes):02d}:{seconds:04.1f}", style="bold")
        engine = f"  {estimate.bundle} {glyphs.dot} {estimate.engine}"
        if start.cell_len + end.cell_len + len(engine) + 3 <= width:
            end.append(glyphs.printable(engine), style="dim")
    room = width - end.cell_len - 2
    return _pad(_fit(start, room, glyphs), room).append_text(end).append(" ")


def _history_columns(inner: int) -> int:
    room = inner - LABEL - NUMBER - 4
    return 0 if room < 18 else min(80, room * 2 // 5)


def _heading(state: ViewState) -> str:
    """What the bars show: intensities, a probability, or values of one's own labels."""
    if state.estimate is not None and state.estimate.task == "bah":
        return "probability"
    return "intensity" if set(state.names) <= set(EMOTIONS) else "value"


def _label(state: ViewState) -> int:
    """Cells of the longest name."""
    if set(state.names) <= set(EMOTIONS):
        return LABEL
    return min(LONGEST_LABEL, max(1, *(cell_len(name) for name in state.names)))


def _number(state: ViewState) -> int:
    """Cells of the longest value."""
    ends = () if state.estimate is None else state.estimate.limits
    return max([NUMBER, *(len(f"{end:.2f}") for pair in ends for end in pair)])


def _bars(state: ViewState, inner: int, count: int, rows: int, columns: int, glyphs: Glyphs) -> list[Text]:
    """Bars of as many values as there is room for; the last of `count` places says how many have none."""
    label, digits = _label(state), _number(state)
    bar_width = max(1, inner - label - digits - 2 - (columns + 2 if columns else 0))
    lines: list[Text] = []
    fits = len(state.names) if len(state.names) <= count else count - 1
    for index, name in enumerate(state.names[:fits]):
        colour = colour_of(name, index)
        called = _fit(Text(glyphs.printable(name.replace("_", " "))), label, glyphs)
        estimate = state.estimate
        filled, rest = glyphs.meter(0.0 if estimate is None else estimate.shares[index], bar_width)
        every = None if estimate is None else estimate.intervals
        band = None if every is None else every[index]
        graph = glyphs.history(state.history_of(index, columns), min(rows, 2))
        number = (glyphs.dash if estimate is None else f"{estimate.intensities[index]:.2f}").rjust(digits)
        for row in range(min(rows, 2)):
            line = Text()
            line.append(_pad(called, label + 1) if row == 0 else Text(" " * (label + 1)))
            cells = Text()
            if rows < TALL:
                cells.append(filled if row == 0 else " " * len(filled), style=colour)
                cells.append(rest if row == 0 else " " * len(rest), style=TRACK)
            else:  # a bar of two rows, its track on the line between them
                cells.append(filled, style=colour)
                cells.append((glyphs.levels[0] if row == 0 else " ") * len(rest), style=TRACK)
            if band is not None and row == 0:
                mark = glyphs.band if rows < TALL else glyphs.levels[1]
                cells = _with_band(cells, len(filled), band, mark, colour)
            line.append_text(cells)
            line.append(f" {number}" if row == 0 else " " * (digits + 1), style="bold")
            if columns and row < len(graph):
                line.append("  ").append(graph[row], style=colour)
            lines.append(_fit(line, inner, glyphs))
        if rows == TALL and name != state.names[-1]:
            lines.append(Text(""))
    if fits < len(state.names):
        rest = f"{glyphs.ellipsis} and {len(state.names) - fits} more; --json has all"
        lines.append(_fit(Text(rest, style="dim"), inner, glyphs))
    return lines


def _with_band(cells: Text, filled: int, band: tuple[float, float], mark: str, colour: str) -> Text:
    """A bar with its 90 % interval, faint: dim where the bar may be too long, a line as far as it may go."""
    width = len(cells)
    low, high = min(filled, round(band[0] * width)), max(filled, round(band[1] * width))
    sure, unsure = cells[:low], cells[low:filled]
    unsure.stylize(f"dim {colour}")
    return Text.assemble(sure, unsure, (mark * (high - filled), BAND), cells[high:])


def _modalities(estimate: Estimate | None, inner: int, glyphs: Glyphs) -> list[Text]:
    lines = []
    for name in MODALITIES:
        line = Text(f"{name:<7}")
        if estimate is None:
            line.append(glyphs.dash, style="dim")
        else:
            report = estimate.modalities[name]
            unused = report.state == "live" and not report.used
            style = STATE_STYLES[report.state]
            lost = report.state == "failed" and LOST in (report.reason or "")
            line.append(f"{glyphs.states[report.state]} {'lost' if lost else report.state:<12}", style=style)
            line.append(f"{_age(report.age_ms, glyphs):>7}  ", style="dim" if unused else "")
            detail = _detail(report, estimate.names, glyphs)
            if report.state == "live":
                detail += _own_neutral(estimate, name, glyphs)
            line.append(glyphs.printable(detail), style="dim" if unused else "")
        lines.append(_fit(line, inner, glyphs))
    return lines


def _age(age_ms: float | None, glyphs: Glyphs) -> str:
    if age_ms is None:
        return glyphs.dash
    return f"{age_ms:.0f} ms" if abs(age_ms) < 1000 else f"{age_ms / 1000:.1f} s"


def _detail(report: ModalityReport, names: tuple[str, ...], glyphs: Glyphs) -> str:
    if report.state != "live":
        return report.reason or "its missing token stands in"
    if not report.used:
        return "shown, not used by this checkpoint"
    pieces = ["used"]
    if report.frames is not None:
        pieces.append(f"{report.frames} frames")
    if report.contribution is not None:  # the largest one, whether it added or took away
        value, name = max(zip(report.contribution, names, strict=True), key=lambda pair: abs(pair[0]))
        pieces.append(f"{name.replace('_', ' ')} {value:+.2f}")
    return f" {glyphs.dot} ".join(pieces)


def _own_neutral(estimate: Estimate, modality: Modality, glyphs: Glyphs) -> str:
    """How far the person's own neutral is known, if it is learned."""
    found = None if estimate.baseline is None or modality == "text" else getattr(estimate.baseline, modality)
    if found is None:
        return ""
    known = "own neutral" if found.ready else f"learning neutral: {found.seconds:.1f} s"
    return f" {glyphs.dot} {known}"


def _words(estimate: Estimate | None, inner: int, rows: int, glyphs: Glyphs) -> list[Text]:
    if estimate is None:
        lines = [Text(f"waiting for the first estimate{glyphs.ellipsis}", style="dim")]
    else:
        report = estimate.modalities["text"]
        text = Text().append(glyphs.printable(report.committed or "").strip(), style="bold")
        why = Text(glyphs.printable(report.reason or "no words yet"), style="dim")
        partial = glyphs.printable(report.partial or "").strip()
        if partial:
            text.append(" " if text.plain else "").append(partial, style="dim italic")
        lines = _wrap(text, max(1, inner), rows, glyphs) if text.plain else [_fit(why, inner, glyphs)]
    return [*lines, *[Text("")] * (rows - len(lines))][:rows]


def _wrap(text: Text, width: int, rows: int, glyphs: Glyphs) -> list[Text]:
    """The last `rows` lines of the text, with an ellipsis in front if something was left out."""
    lines: list[Text] = []
    line = Text()
    for word in text.split(" "):
        while word.cell_len > width:  # a word longer than the line
            head, word = word.divide([max(1, _cut(word, width))])
            lines.extend([line] if line.plain else [])
            lines.append(head)
            line = Text()
        if line.plain and line.cell_len + 1 + word.cell_len > width:
            lines.append(line)
            line = Text()
        line = (line.append(" ") if line.plain else line).append_text(word)
    lines.append(line)
    if len(lines) <= rows:
        return lines
    kept = lines[-rows:]
    mark = Text(f"{glyphs.ellipsis} ", style="dim").append_text(kept[0])
    return [_fit(mark, width, glyphs), *kept[1:]]


def _rates(state: ViewState, width: int, glyphs: Glyphs) -> Text:
    estimate = state.estimate
    if state.progress is not None:
        return _progress(state, state.progress, width, glyphs)
    pieces: list[str] = []
    if state.estimate_rate_hz is not None:
        pieces.append(f"{state.estimate_rate_hz:.1f} estimates/s")
    if estimate is not None:
        sensed = estimate.latency.capture_to_estimate
        if sensed is not None:
            pieces.append(f"{sensed:.0f} ms from capture")
        elif state.speed is not None:
            pieces.append(f"{state.speed:.1f}{glyphs.times} real time")
        if state.frame_rate_hz:
            pieces.append(f"{state.frame_rate_hz:.0f} frames/s")
        pieces.append(f"window {estimate.latency.window:.1f} fusion {estimate.latency.fusion:.1f} ms")
    return _join(pieces, "", width, glyphs)


def _progress(state: ViewState, progress: Progress, width: int, glyphs: Glyphs) -> Text:
    """A bar and what it means; no bar if the length of the file is not known."""
    pieces = progress.pieces(glyphs)
    if state.silent_s >= WORKING_S:
        pieces.append(f"{state.silent_s:.0f} s since the last step")
    share = progress.share
    if share is None or width < 2 * LEAST_BAR:
        return _join(pieces, "", width, glyphs)
    size = max(LEAST_BAR, min(MOST_BAR, width // 3))
    filled, rest = glyphs.meter(share, size)
    line = Text(" ").append(filled, style="cyan").append(rest, style=TRACK)
    return line.append_text(_join(pieces, "", width - size - 1, glyphs))


def _losses(state: ViewState, width: int, glyphs: Glyphs) -> Text:
    faults = [glyphs.printable(loss.words) for loss in state.losses if loss.fault]
    skipped = [glyphs.printable(loss.words) for loss in state.losses if not loss.fault]
    if not faults:
        return _join(["nothing lost", *skipped], "dim", width, glyphs)
    return _join([*faults, *skipped], AMBER, width, glyphs, plain_from=len(faults))


def _join(
    pieces: list[str], style: str, width: int, glyphs: Glyphs, *, plain_from: int | None = None
) -> Text:
    """As many of the pieces as fit on one line, the first ones first; those from `plain_from` on are dim."""
    line = Text("")
    for index, piece in enumerate(pieces):
        dim = plain_from is not None and index >= plain_from
        start = f" {glyphs.dot} " if index else " "
        if index and line.cell_len + cell_len(start + piece) > width:
            return _fit(line.append(f" {glyphs.ellipsis}", style=style), width, glyphs)
        line.append(start + piece, style="dim" if dim else style)
    return _fit(line, width, glyphs)


def _fit(line: Text, width: int, glyphs: Glyphs) -> Text:
    """The line on one row, cut at `width` cells."""
    line.no_wrap, line.overflow = True, "crop"
    if line.cell_len > width > len(glyphs.ellipsis):
        mark = len(glyphs.ellipsis)
        line = line[: _cut(line, width - mark)].append(glyphs.ellipsis)
    return line


def _cut(line: Text, width: int) -> int:
    """How many characters of the line fit in `width` cells."""
    count = min(len(line), width)
    while count and line[:count].cell_len > width:
        count -= 1
    return count


def _pad(line: Text, width: int) -> Text:
    return line.append(" " * max(0, width - line.cell_len))


REMOTE_FONT: Final = re.compile(r',\s*url\("https?://[^"]*"\) format\("[^"]*"\)')


def to_svg(state: ViewState, width: int = 100, height: int = 30, title: str = "emi-live") -> str:
    """The view at `width` × `height` cells as an SVG that refers to nothing on the network."""
    console = Console(
        record=True,
        width=width,
        height=height,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
        no_color=False,
    )
    console.print(render(state, width, height))
    return REMOTE_FONT.sub("", console.export_svg(title=title, unique_id="emi"))


class PictureSink:
    """Saves the view as it stands when the run ends."""

    name = "picture"
    finished = False  # a file can always be written

    def __init__(self, path: Path, health: Health, *, source: str = "") -> None:
        """Check that the file can be written.

        Args:
            path: the SVG file, overwritten.
            health: where drops and frames are counted.
            source: what is watched, in words.

        Raises:
            ConfigurationError: it is not a path of an SVG file, or no file can be written there.
        """
        if path.suffix != ".svg" or not path.parent.is_dir():
            raise ConfigurationError(
                f"--picture {path} cannot be written: name an .svg file in a folder that exists"
            )
        try:
            existed = path.exists()
            with path.open("ab"):
                pass
            if not existed:
                path.unlink()
        except OSError as error:
            raise ConfigurationError(
                f"--picture {path} cannot be written: {error.strerror}; name another file or folder"
            ) from error
        self._path = path
        self._health = health
        self._keeper: StateKeeper | None = StateKeeper(MonotonicClock(), source, NOTICE)

    def open(self) -> None:
        """Nothing to open."""

    def write(self, estimate: Estimate) -> None:
        """Remember one estimate."""
        if self._keeper is not None:
            self._keeper.add(estimate, self._health.snapshot().counters.get(FRAME_COUNTER, 0))

    def idle(self) -> None:
        """Nothing is due."""

    def close(self) -> None:
        """Write the picture.

        Raises:
            LiveError: the disk is full or has failed.
        """
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        picture = to_svg(keeper.state(self._health.snapshot()))
        try:
            self._path.write_text(picture, encoding="utf-8")
        except OSError as error:
            remedy = "free some space" if error.errno == errno.ENOSPC else "choose another file"
            raise LiveError(f"--picture {self._path}: {error.strerror}; {remedy}") from error
