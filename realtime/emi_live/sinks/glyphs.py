"""The characters of the terminal view, for terminals with Unicode and for those without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.box import ASCII, ROUNDED, Box

from emi_live.messages import ModalityState
from emi_models.printable import IN_ASCII

__all__ = ["ASCII_GLYPHS", "UNICODE_GLYPHS", "Glyphs", "glyphs_for"]


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One set of characters, and the encoding that everything shown must fit."""

    encoding: str
    bar: str  # a cell of a bar, from almost empty to full
    track: str  # a cell that the bar does not reach
    levels: str  # a cell of a history, from lowest to full
    states: Mapping[ModalityState, str]
    box: Box
    dot: str
    dash: str
    times: str
    ellipsis: str

    def meter(self, value: float, width: int) -> tuple[str, str]:
        """A bar of `width` cells for a value in [0, 1]: the filled part and the rest."""
        steps = round(max(0.0, min(1.0, value)) * width * len(self.bar))
        full, part = divmod(steps, len(self.bar))
        filled = self.bar[-1] * full + (self.bar[part - 1] if part else "")
        return filled, self.track * (width - len(filled))

    def history(self, values: Sequence[float | None], rows: int = 1) -> list[str]:
        """A graph of values in [0, 1], a column each, `rows` lines from the top; None leaves a column blank.

        The lowest level is drawn for any value, so that a line shows where there was one.
        """
        steps = len(self.levels)
        heights = [
            0 if value is None else max(1, round(min(1.0, max(0.0, value)) * steps * rows))
            for value in values
        ]
        lines = []
        for row in reversed(range(rows)):
            cells = (min(steps, height - row * steps) for height in heights)
            lines.append("".join(self.levels[cell - 1] if cell > 0 else " " for cell in cells))
        return lines

    def printable(self, text: str) -> str:
        """The text with everything that a terminal might obey, or could not show, replaced."""
        clean = "".join(character if character.isprintable() else " " for character in text)
        if self.encoding == "ascii":
            clean = clean.translate(IN_ASCII)
        return clean.encode(self.encoding, "replace").decode(self.encoding)


UNICODE_GLYPHS: Final = Glyphs(
    encoding="utf-8",
    bar="▏▎▍▌▋▊▉█",
    track="╌",
    levels="▁▂▃▄▅▆▇█",
    states={"live": "●", "missing": "○", "failed": "✖", "unavailable": "◌"},
    box=ROUNDED,
    dot="·",
    dash="–",  # noqa: RUF001 # the dash is meant
    times="×",  # noqa: RUF001 # the sign is meant
    ellipsis="…",
)

ASCII_GLYPHS: Final = Glyphs(
    encoding="ascii",
    bar="#",
    track=".",
    levels="_.-=+*#@",
    states={"live": "*", "missing": "o", "failed": "x", "unavailable": "-"},
    box=ASCII,
    dot="-",
    dash="-",
    times="x",
    ellipsis="...",
)


def glyphs_for(encoding: str) -> Glyphs:
    """The richest set that a terminal of this encoding shows."""
    return UNICODE_GLYPHS if encoding.lower().replace("-", "").startswith("utf") else ASCII_GLYPHS
