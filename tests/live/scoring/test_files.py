"""Each kind of file, read by the reader that its users have."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from emi_live.errors import ConfigurationError
from emi_live.scoring.files import FORMATS, above, lines_of, read_scores, summary_of, write_summary
from tests.live.scoring.scores import SAID, made_up


def written(folder: Path, kind: str, cut: float = 0.5) -> Path:
    path = folder / f"clip{FORMATS[kind].ending}"
    FORMATS[kind].write(made_up(bands=True), path, cut)
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_comes_back_as_it_was(tmp_path: Path, kind: str) -> None:
    scores, found = made_up(bands=True), read_scores(written(tmp_path, kind))
    assert list(found) == list(scores)
    assert found.targets == scores.targets
    for name, column in scores.items():
        if isinstance(column, np.ndarray):
            np.testing.assert_allclose(found[name], column, rtol=1e-5)
        elif name not in ("seq", "schema"):
            assert found[name] == [cell or None for cell in column] or found[name] == column
    assert [(word.text, word.committed) for word in found.words] == [
        (text, number < 5) for number, (text, *_) in enumerate(SAID)
    ]
    assert found.hop_s == 0.2
    assert found.duration_s == pytest.approx(5.0)


def test_parquet_is_typed_and_the_unknown_is_null(tmp_path: Path) -> None:
    from pyarrow import parquet, types

    table = parquet.read_table(written(tmp_path, "parquet"))
    assert types.is_floating(table.schema.field("joy").type)
    assert types.is_boolean(table.schema.field("vision_used").type)
    assert table.column("f0_hz").null_count == 5
    assert table.column("vision_reason").null_count == 22


def test_a_row_is_for_people_too(tmp_path: Path) -> None:
    with written(tmp_path, "csv").open(encoding="utf-8", newline="") as file:
        first = next(csv.DictReader(file))
    assert first["t"] == "0.2"
    assert first["f0_hz"] == ""
    assert first["partial"] == 'Ask, "not"'


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_subtitles_are_read_by_pysubs2(tmp_path: Path, kind: str) -> None:
    import pysubs2

    events = list(pysubs2.load(str(written(tmp_path, kind)), encoding="utf-8"))
    assert [(event.plaintext, event.start, event.end) for event in events] == [
        ("Ask not what.", 400, 1500),
        ("Ask über me", 3000, 4000),
    ]


def test_lines_are_short_and_end_with_sentences_and_pauses() -> None:
    lines = lines_of([*made_up().words] * 4)
    assert all(len(line.text) <= 42 and line.end_s - line.start_s <= 6.0 for line in lines)
    assert " ".join(line.text for line in lines).split() == [text for text, *_ in SAID] * 4


def test_praat_s_grid_has_words_and_high_values(tmp_path: Path) -> None:
    from praatio import textgrid

    grid = textgrid.openTextgrid(str(written(tmp_path, "textgrid")), includeEmptyIntervals=False)
    assert grid.maxTimestamp == pytest.approx(5.0)
    assert [entry.label for entry in grid.getTier("words").entries] == [text for text, *_ in SAID]
    (joy,) = grid.getTier("joy").entries
    assert (joy.start, joy.end, joy.label) == (pytest.approx(1.0), pytest.approx(3.0), "0.75")
    assert not grid.getTier("amusement").entries


def test_elan_s_document_has_the_same_and_names_the_clip(tmp_path: Path) -> None:
    import pympi

    path = written(tmp_path, "elan")
    FORMATS["elan"].write(made_up(), path, 0.5)  # again: nothing else is left in the folder
    document = pympi.Elan.Eaf(str(path))
    assert document.get_linked_files()[0]["MEDIA_URL"] == "clip.mp4"
    assert document.get_annotation_data_for_tier("joy") == [(1000, 3000, "0.75")]
    assert [text for *_, text in document.get_annotation_data_for_tier("words")] == [
        "Ask not what.",
        "Ask über me",
    ]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_physio_file_is_as_its_description_says(tmp_path: Path) -> None:
    path = written(tmp_path, "bids")
    about = json.loads((tmp_path / "clip_physio.json").read_text())
    rows = [line.split("\t") for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    assert (about["SamplingFrequency"], about["StartTime"]) == (5.0, 0.2)
    assert {len(row) for row in rows} == {len(about["Columns"])}
    joy, f0 = about["Columns"].index("joy"), about["Columns"].index("f0_hz")
    assert [row[joy] for row in rows[4:7]] == ["0.25", "0.75", "0.75"]
    assert rows[0][f0] == "n/a"
    assert about["f0_hz"]["Units"] == "Hz"


def test_the_summary_counts_what_is_above_the_cut(tmp_path: Path) -> None:
    scores = made_up()
    row = summary_of(scores, "a/clip.mp4", 0.5)
    assert row["joy_above_s"] == pytest.approx(2.0)
    assert row["joy_peak"] == 0.75
    assert row["joy_peak_at_s"] == pytest.approx(1.2)
    assert row["joy_mean"] == pytest.approx(0.25 + 0.5 * 10 / 25)
    assert (row["words"], row["vision_live"]) == (6, 0.88)
    assert not above(scores, "joy", 0.75)
    write_summary([row, {**row, "file": "b.mp4"}], tmp_path / "summary.csv")
    with (tmp_path / "summary.csv").open(encoding="utf-8", newline="") as file:
        assert [found["file"] for found in csv.DictReader(file)] == ["a/clip.mp4", "b.mp4"]


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "no table at all"])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.csv"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="table"):
        read_scores(path)
