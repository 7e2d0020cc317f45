"""The comparison as a page of its own: what was run, on what, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from emi_models.vocabulary import MODALITIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from emi_bench.systems import Comparison
    from emi_bench.systems_summary import Row

__all__ = ["page"]

HEADINGS: Final = {
    "system": "The systems",
    "ablation": "TAEMI with one of its parts changed",
    "reference": "For comparison: TAEMI that is trained without a modality",
}
ORDER: Final = tuple(reversed(MODALITIES))  # text first, as the papers have it

SYNTHETIC: Final = """\
> **These clips are synthetic.** `emi synth` made them, and nobody is in them. The corpus exists to show that
> the machinery learns and that each mechanism does what it is for. Nothing here says how good a system is on
> people, and no number here can be put beside a paper's.

In this corpus a clip's words carry its emotions, noisily, and its topic. Its voice and face are cut into
moments: half of them bear the mark of the clip's topic and show its emotions, the others are distractors of
other topics, with other emotions. So the words tell where to listen and to look. The generator was fixed by
the published statistics of Hume-Vidmimic2, and by what one modality alone gives a linear reader (below; the
papers have words at 0.4 to 0.5, voices at about 0.35, faces at 0.13 to 0.16), before any network was trained
on it; it was not changed afterwards."""
METHOD: Final = """\
Every variant is trained by `emi_models.training` as its paper's recipe says, but for the settings above, the
same for all stages of all variants, and for the networks' widths, which are small as the features are. The
epoch is chosen on the valid clips and the scores are on the same, which flatters all variants alike.

- rho: Pearson's correlation over all valid clips, the mean of the six emotions'
- ±: the standard deviation between seeds, which change weights, order and dropout, never the clips
- without text: rho when the words are taken away from every valid clip; likewise the others
- lost with text: rho with all modalities less rho without text, seed by seed; likewise the others

In place of a modality that is absent TAEMI has a learned token, its variants without tokens have zeros."""

AVOIDABLE: Final = """\
What a modality tells is gone when it is missing, whatever stands in for it. So this compares with TAEMI that
never had that modality: its rho, less the variant's when the modality is missing, seed by seed. 0 or less:
the variant does as well without it as a network that was trained for that."""


def page(comparison: Comparison) -> str:
    """All of it as Markdown; `systems.png` is expected beside it."""
    return "\n".join(_lines(comparison)) + "\n"


def _lines(comparison: Comparison) -> Iterator[str]:
    c = comparison
    yield from ("# Which system, and what is each part of it for?", "")
    if c.synthetic:
        yield from (SYNTHETIC, "")
    yield from (f"`emi bench systems` on {c.data}.", "", *_setting(c), "", METHOD, "")
    if c.expectations:
        yield from ("## What was expected, and what came", "", "| expected | found | so? |", "|---|---|---|")
        yield from (f"| {e.expected} | {e.found} | **{e.verdict}** |" for e in c.expectations)
        yield ""
    yield from ("![correlation, and what is lost with a modality](systems.png)", "")
    for kind, heading in HEADINGS.items():
        if chosen := [row for row in c.rows if row.variant.kind == kind]:
            yield from (f"## {heading}", "", *_table(chosen), "")
    if c.avoidable:
        yield from ("## What need not have been lost", "", AVOIDABLE, "", *_bare(c))
        yield f"| variant | {' | '.join(ORDER)} | in sum |"
        yield "|---" * (len(ORDER) + 2) + "|"
        for row in c.avoidable:
            yield f"| {row.variant.label} | {' | '.join(str(row.loss[m]) for m in ORDER)} | {row.total} |"
        yield ""
    if c.probes:
        yield from (
            "## What one modality alone gives a linear reader",
            "",
            "| ridge regression on | rho valid |",
        )
        yield from ("|---|---|", *(f"| {probe.reads} | {probe.rho:.3f} |" for probe in c.probes), "")
    yield "Every run, with its settings and each emotion's correlation, is in `systems.json`."


def _bare(c: Comparison) -> Iterator[str]:
    """How much of its loss TAEMI without tokens and dropout could have been spared."""
    lost = {row.variant.name: row.total_loss for row in c.rows}
    for row in c.avoidable:
        if row.variant.name == "neither":
            total = lost["neither"]
            yield f"Of the {total} that TAEMI with neither loses in sum, {row.total} need not have"
            yield from (
                "been lost; the rest a network trained without the modality does not have either.",
                "",
            )


def _setting(c: Comparison) -> Iterator[str]:
    libraries = ", ".join(f"{name} {number}" for name, number in c.libraries.items())
    training = ", ".join(f"{name} {value}" for name, value in c.training.items())
    yield f"- clips: {c.clips['train']} to train on, {c.clips['valid']} to validate"
    yield f"- {len(c.runs)} runs: {len(c.rows)} variants, {c.seeds} seeds; {c.jobs} at a time, a core each"
    wall, cpu = (sum(getattr(run, unit) for run in c.runs) / 60 for unit in ("wall_s", "cpu_s"))
    yield f"- the trainings took {wall:.1f} minutes, one after the other, {cpu:.1f} of processor time"
    before = f"{c.resumed} runs had been done before it" if c.resumed else "evaluation and this page included"
    yield f"- the command took {c.wall_s / 60:.1f} minutes; {before}"
    yield f"- each stage: {training}"
    yield f"- {c.machine.line()}, {libraries}"


def _table(table: Sequence[Row]) -> Iterator[str]:
    without = " | ".join(f"without {m}" for m in ORDER)
    lost = " | ".join(f"lost with {m}" for m in ORDER)
    yield f"| variant | seeds | rho valid | {without} | {lost} | lost in sum | parameters | CPU s |"
    yield "|---" * (2 * len(ORDER) + 6) + "|"
    for row in table:
        cells = [
            row.variant.label,
            str(len(row.seeds)),
            f"**{row.rho.mean:.3f}** ± {row.rho.sd:.3f}",
            *(str(row.without[m]) for m in ORDER),
            *(str(row.loss[m]) for m in ORDER),
            str(row.total_loss),
            f"{row.parameters:,}",
            f"{row.cpu_s.mean:.0f}",
        ]
        yield f"| {' | '.join(cells)} |"
