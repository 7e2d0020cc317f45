"""README, model card and truth.md show what the last run measured, and it was the packaged checkpoint."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from emi_bench.render import ReportError
from emi_models.checkpoint import content_hash, packaged_checkpoint
from recipes.compact import VERSION
from recipes.compact.pages import DOCS, PAGES, rewritten, write_pages
from recipes.compact.tables import TABLES, Run, read_run, shown


@pytest.fixture(scope="module")
def run() -> Run:
    return read_run(DOCS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_shows_the_numbers_of_the_last_run(run: Run, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == rewritten(text, run), "run: python -m recipes.compact.pages"
    # A line that begins with a comment is HTML to Markdown: its links and emphasis would not be seen.
    assert not re.search(r"^[ >*-]*<!--(?!table |/)[a-z]", text, re.MULTILINE)


def test_the_last_run_measured_the_packaged_checkpoint(run: Run) -> None:
    assert run.scores.sha256 == content_hash(packaged_checkpoint("compact")), (
        "run: python -m recipes.compact --checkpoint FILE --figures docs/benchmarks"
    )
    assert run.scores.version == VERSION


def test_a_number_and_a_table_are_written_anew(run: Run) -> None:
    score = shown(run.scores.scores["ferplus_joy"])
    page = "r <!--scores.ferplus_joy-->0.1<!--/-->, of:\n\n<!--table steps-->\nold\n<!--/-->\nend\n"
    new = rewritten(page, run)
    assert new.startswith(f"r <!--scores.ferplus_joy-->{score}<!--/-->, of:\n\n<!--table steps-->\n| what")
    assert new.endswith("|\n<!--/-->\nend\n")
    assert "old" not in new
    assert rewritten(new, run) == new


def test_a_table_says_where_a_simple_rule_is_better(run: Run) -> None:
    lines = TABLES["simpler"](run)[2:]
    for line in lines:
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        assert any(cells), name
        for cell in filter(None, cells):
            own, other = cell.split(", ")
            assert float(own) < float(other.split()[-1])
    values = run.values()
    for name, row in ((name, row) for name, report in run.truth.items() for row in report.rows):
        place = f"{name}.{row.pair.replace(' / ', '.')}"
        if row.by == "ridge" and round(row.agreement.r or 0, 3) > round(values[f"{place}.r"], 3):  # type: ignore[arg-type]  # a number
            assert any(f"{name}: {row.pair} |" in line and "ridge" in line for line in lines)


def test_voices_are_shown_with_and_without_a_neutral_of_their_own(run: Run) -> None:
    head, _, first, *_ = TABLES["voices"](run)
    assert head.endswith("| r, running | AUC, running | r, calibrate | AUC, calibrate |")
    assert first.count("|") == head.count("|")
    found = next(row for row in run.neutral["running"].rows if row.by == "checkpoint").agreement
    assert f"**{shown(found.r)}** | **{shown(found.auc)}**" in first


@pytest.mark.parametrize(
    ("value", "low", "high", "reached"),
    [
        (0.8, 0.76, 0.84, "yes"),
        (0.8, 0.74, 0.84, "yes, not certain"),
        (0.7, 0.6, 0.76, "**no**, not certain"),
        (0.7, 0.6, 0.74, "**no**"),
        (0.7504, 0.7496, 0.8, "yes"),  # the digits that are shown
    ],
)
def test_an_aim_is_not_certain_if_its_interval_holds_the_bar(
    run: Run, value: float, low: float, high: float, reached: str
) -> None:
    joy = {"emodb_joy_auc": value, "emodb_joy_auc_low": low, "emodb_joy_auc_high": high}
    scores = replace(run.scores, scores=run.scores.scores | joy)
    page = rewritten("<!--table aims-->\n<!--/-->", replace(run, scores=scores))
    row = next(line for line in page.splitlines() if line.startswith("| joy, AUC |"))
    assert row.endswith(f"| {low:.3f} to {high:.3f} | {reached} |")


@pytest.mark.parametrize("named", ["scores.ferplus_jo", "table nothing"])
def test_a_number_that_no_run_gives_is_an_error(run: Run, named: str) -> None:
    with pytest.raises(ReportError, match=named.split()[-1]):
        rewritten(f"<!--{named}-->1<!--/-->", run)


def test_another_folder_gets_copies(run: Run, tmp_path: Path) -> None:
    for path in DOCS.glob("truth-*.json"):
        shutil.copy(path, tmp_path)
    scores = tmp_path / "truth-scores.json"
    scores.write_text(re.sub(r'"ferplus_joy": [\d.]+', '"ferplus_joy": 0.123', scores.read_text()))
    before = [page.read_bytes() for page in PAGES]
    assert write_pages(tmp_path) == [tmp_path / page.name for page in PAGES]
    assert "**.123**" in (tmp_path / "compact.md").read_text()
    assert [page.read_bytes() for page in PAGES] == before


def test_a_run_that_is_not_whole_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"truth-scores\.json cannot be read"):
        write_pages(tmp_path)


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (0.8567, ".3f", "0.857"),
        (0.8567, ".2", ".86"),
        (-0.476, ".2", "-.48"),
        (1.25, ".1", "1.2"),
        (0.999, ".2", "1.00"),
        (0.764, "%", "76 %"),
        (3279, ",", "3,279"),
        (None, ".3f", "-"),
        ("0.84 to 0.87", ".3f", "0.84 to 0.87"),
    ],
)
def test_numbers_look_as_their_place_says(value: float | str | None, form: str, text: str) -> None:
    assert shown(value, form) == text
