"""One page, three forms: what is left out in a narrow terminal, and what is escaped in Markdown."""

from __future__ import annotations

import pytest

from emi_bench.measurement import Distribution
from emi_bench.render import (
    Bullets,
    Code,
    Column,
    Heading,
    Page,
    Paragraph,
    Strong,
    Table,
    markdown,
    number,
    spark_line,
    statistics,
    terminal,
)

TABLE = Table(
    (Column("engine", words=True), Column("median"), Column("p90", detail=1), Column("mean", detail=2)),
    [[Code("torch-cpu"), "12.5", "13.0", "12.6"], [Strong("a|b"), "1", "2", "3"]],
)
PAGE = Page(
    "Title",
    "a machine",
    [Heading("Part"), Paragraph(Strong("A warning.")), Bullets(["one", "two"]), TABLE],
)


def test_markdown_has_all_columns_and_escapes_what_would_break_a_table() -> None:
    lines = markdown([PAGE], "page.png").splitlines()
    assert lines[0] == "![The same as a figure](page.png)"
    assert {"## Title", "a machine.", "### Part", "**A warning.**", "- one"} <= set(lines)
    assert lines[-4:] == [
        "| engine | median | p90 | mean |",
        "| --- | --: | --: | --: |",
        "| `torch-cpu` | 12.5 | 13.0 | 12.6 |",
        "| **a\\|b** | 1 | 2 | 3 |",
    ]


@pytest.mark.parametrize(
    ("width", "head"),
    [
        (80, "engine    median  p90 mean"),
        (23, "engine    median  p90"),
        (18, "engine    median"),
    ],
)
def test_a_narrow_terminal_leaves_the_details_out_first(width: int, head: str) -> None:
    lines = terminal(PAGE, width).splitlines()
    assert head in lines
    assert max(map(len, lines)) <= width
    assert "torch-cpu" in lines[-2]
    assert not any("\x1b" in line for line in lines)


def test_text_that_is_too_wide_for_its_column_is_wrapped() -> None:
    columns = (Column("name", words=True), Column("counters", words=True))
    text = terminal(Page("T", "m", [Table(columns, [["music", "words 3, " * 8]])]), 40)
    assert max(map(len, text.splitlines())) <= 40
    assert " ".join(text.split()).count("words 3,") == 8


def test_colour_marks_what_is_strong() -> None:
    assert "\x1b[1mA warning.\x1b[0m" in terminal(PAGE, 80, colour=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0"),
        (0.01234, "0.0123"),
        (1.0, "1.00"),
        (99.96, "100.0"),
        (123.4, "123"),
        (1e6, "1000000"),
    ],
)
def test_numbers_have_three_figures_and_no_exponent(value: float | None, text: str) -> None:
    assert number(value) == text


def test_a_distribution_that_is_absent_has_cells_too() -> None:
    assert len(statistics(None)) == len(statistics(Distribution.of([1.0]))) == 8


def test_a_line_of_blocks_rises_with_the_values_and_is_never_too_long() -> None:
    assert spark_line([1.0, 4.0, 8.0]) == "▂▅█"
    assert len(spark_line([1.0] * 1_000)) == 40
    assert spark_line([]) == spark_line([0.0]) == ""


def test_no_text_of_a_file_can_steer_the_terminal() -> None:
    evil = "clip\x1b]0;owned\x07\x9b31m.mp4"
    table = Table((Column("name", words=True),), [[evil], [Code(evil)]])
    page = Page(evil, evil, [Heading(evil), Paragraph(Strong(evil)), Bullets([evil]), table])
    text = terminal(page, 200)
    assert not {"\x1b", "\x07", "\x9b"} & set(text)
    assert text.count("clip\\x1b]0;owned\\x07") == 7
    assert "\x1b[1mclip\\x1b]0" in terminal(page, 200, colour=True)
