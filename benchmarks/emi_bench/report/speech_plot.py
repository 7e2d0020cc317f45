"""The figure of `emi bench speech`: one panel for each thing that was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

__all__ = ["draw_speech", "panels"]

COLOURS: Final = {
    "in one piece": "tab:grey",
    "unaware": "tab:green",
    "aware": "tab:blue",
    "real": "tab:red",
}
DASHES: Final = ("-", "--", "-.", ":")  # kinds of clips


def panels(found: Mapping[str, Any]) -> list[Callable[[Axes, Mapping[str, Any]], None]]:
    """What can be drawn of a report."""
    drawn: list[Callable[[Axes, Mapping[str, Any]], None]] = []
    if any(heard["commit_ms"] for clip in found["clips"] for heard in clip["heard"]):
        drawn += [_lateness, _errors]
    if any(heard["lag_over_time"] for clip in found["clips"] for heard in clip["heard"]):
        drawn.append(_lag)
    if found["face"] is not None:
        drawn.append(_faces)
    return drawn


def draw_speech(figure: SubFigure, found: Mapping[str, Any]) -> None:
    """All panels, side by side."""
    drawn = panels(found)
    if not drawn:
        return
    grid = figure.subplots(1, len(drawn), squeeze=False)[0]
    for axes, panel in zip(grid, drawn, strict=True):
        panel(axes, found)


def _lateness(axes: Axes, found: Mapping[str, Any]) -> None:
    """Which share of the words was certain after so many seconds; thin: was shown."""
    kinds = list(dict.fromkeys(clip["kind"] for clip in found["clips"]))
    for kind, clock, clips in _groups(found):
        for key, width, label in (("commit_ms", 2.0, f"{kind}, {clock}"), ("first_seen_ms", 0.8, None)):
            late = sorted(ms / 1e3 for heard in clips for ms in heard[key])
            shares = [(index + 1) / len(late) for index in range(len(late))]
            axes.step(
                late,
                shares,
                where="post",
                color=COLOURS[clock],
                linestyle=DASHES[kinds.index(kind) % len(DASHES)],
                linewidth=width,
                label=label,
            )
    axes.set_title("Words that are there", fontsize="medium")
    axes.set_xlabel("s after the word's end; thick: certain, thin: first shown", fontsize="small")
    axes.set_ylim(0.0, 1.0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small", frameon=False, loc="lower right")


def _errors(axes: Axes, found: Mapping[str, Any]) -> None:
    """Word error rates, in one piece and by each clock."""
    bars: dict[tuple[str, str], float] = {}
    for row in found["pooled"]:
        for name, errors in (("in one piece", row["offline"]), (row["clock"], row["errors"])):
            if errors is not None and errors["rate"] is not None:
                bars[row["kind"], name] = 100 * errors["rate"]
    for place, ((_, name), rate) in enumerate(bars.items()):
        axes.bar(place, rate, color=COLOURS[name])
        axes.annotate(f"{rate:.1f}", (place, rate), ha="center", va="bottom", fontsize="x-small")
    labels = [f"{kind}\n{name}" for kind, name in bars]
    axes.set_xticks(range(len(bars)), labels, fontsize="x-small", rotation=0 if len(bars) < 6 else 60)
    axes.set_title("Word error rate, %", fontsize="medium")
    axes.margins(y=0.15)
    axes.grid(axis="y", alpha=0.3)


def _lag(axes: Axes, found: Mapping[str, Any]) -> None:
    """Means of the packets' lag over a long clip."""
    for clip in found["clips"]:
        for heard in clip["heard"]:
            points = heard["lag_over_time"]
            if len(points) > 1:
                axes.plot(
                    [at_s / 60 for at_s, _ in points],
                    [ms for _, ms in points],
                    color=COLOURS[heard["clock"]],
                    label=f"{clip['name']}, {heard['clock']}",
                )
    axes.set_title("Lag of packets, ms", fontsize="medium")
    axes.set_xlabel("minutes", fontsize="small")
    axes.set_ylim(bottom=0.0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small", frameon=False)


def _faces(axes: Axes, found: Mapping[str, Any]) -> None:
    """Medians, with a line to the 95th percentile."""
    for place, (side, colour) in enumerate((("off", "tab:grey"), ("on", "tab:blue"))):
        values = found["face"][side]["capture_to_estimate_ms"]
        if values is not None:
            axes.bar(place, values["median"], color=colour)
            axes.plot([place, place], [values["median"], values["p95"]], color="black")
    axes.set_xticks((0, 1), ("without words", "with words"), fontsize="small")
    axes.set_title("Newest picture to estimate, ms: median, p95", fontsize="medium")
    axes.grid(axis="y", alpha=0.3)


def _groups(found: Mapping[str, Any]) -> Iterator[tuple[str, str, list[Mapping[str, Any]]]]:
    """Clips by kind and clock, of those with known times."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for clip in found["clips"]:
        for heard in clip["heard"]:
            if heard["commit_ms"]:
                groups.setdefault((clip["kind"], heard["clock"]), []).append(heard)
    for (kind, clock), clips in groups.items():
        yield kind, clock, clips
