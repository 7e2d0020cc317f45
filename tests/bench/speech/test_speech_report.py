"""Pooled figures, and both pages of a report made of the bench's own types."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from emi_bench.measurement import Distribution, Machine, Slope
from emi_bench.render import terminal
from emi_bench.report import main
from emi_bench.speech.report import (
    ClipReport,
    FaceIndependence,
    FaceTimes,
    OfflineResult,
    SpeechReport,
    StreamedClip,
    WordErrors,
    pool,
)


def errors(words: int, substitutions: int, insertions: int = 0) -> WordErrors:
    return WordErrors(words, substitutions, 0, insertions, (substitutions + insertions) / words)


def hearing(found: WordErrors, commit_ms: list[float], committed: int, taken_back: int) -> StreamedClip:
    return StreamedClip(
        clock="aware",
        errors=found,
        text="",
        committed=committed,
        commit_ms=commit_ms,
        first_seen_ms=[ms / 2 for ms in commit_ms],
        audio_s=10.0,
        busy_s=2.5,
        calls=7,
        steps_ms=Distribution.of([1.0, 2.0]),
        max_backlog_s=0.5,
        taken_back=taken_back,
        rewritten=taken_back + 1,
        broken=0,
        lag_ms=Distribution.of([5.0]),
        lag_over_time=[(22.5, 40.0), (37.5, 50.0)],
        lag_slope=Slope(40.0, 3.0, 2),
        counters={"speech.words": committed, "speech.lost_samples": 0},
    )


def clip(name: str, heard: StreamedClip, offline: WordErrors | None) -> ClipReport:
    return ClipReport(
        name=name,
        kind="real",
        seconds=8.0,
        words=heard.errors.words,
        times="aligned",
        note="",
        offline=None if offline is None else OfflineResult(offline, 1.0, ""),
        heard=[heard],
    )


SHORT = clip("short", hearing(errors(2, 1), [100.0], 2, 4), errors(2, 0))
LONG = clip("long", hearing(errors(18, 1, 1), [300.0, 400.0, 500.0], 19, 1), errors(18, 1))


def report() -> SpeechReport:
    values = Distribution.of([10.0, 20.0])
    side = FaceTimes(values, values, values, 29.9, 1.1)
    wordless = clip("silence", hearing(WordErrors(0, 0, 0, 0, None), [], 0, 0), None)
    return SpeechReport(
        machine=Machine.here(),
        load_before=0.1,
        recognizer="whisper | tiny",
        settings={"backend": "whisper", "agreement": None},
        normalisation="lower case",
        tail_s=2.0,
        clips=[SHORT, LONG],
        pooled=pool([SHORT, LONG]),
        conditions=[wordless],
        face=FaceIndependence("face.mp4", 2, side, replace(side, cpu_cores=0.6), 1.01, 1.02),
    )


def test_every_word_counts_the_same_whichever_clip_it_is_in() -> None:
    (row,) = pool([SHORT, LONG])
    assert row.errors.rate == pytest.approx(3 / 20)  # not the mean of 1/2 and 2/18
    assert row.points_lost == pytest.approx(100 * (3 / 20 - 1 / 20))
    assert row.commit_ms is not None
    assert (row.commit_ms.n, row.commit_ms.mean) == (4, 325.0)
    assert row.erasure == pytest.approx(5 / 21)
    assert row.real_time_factor == pytest.approx(0.25)
    assert row.counters == {"speech.words": 21, "speech.lost_samples": 0}


def test_without_all_clips_in_one_piece_nothing_is_held_against_them() -> None:
    (row,) = pool([SHORT, clip("long", LONG.heard[0], None)])
    assert row.offline is None
    assert row.points_lost is None


def test_the_page_in_the_terminal_fits_and_has_all_parts() -> None:
    text = terminal(report().page(), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for part in (
        "15.0 %",
        "+10.0",
        "committed",
        "erasure",
        "+40.0",
        "silence",
        "1.010 at p50",
    ):
        assert part in text


def test_the_page_on_paper_has_all_parts_and_a_figure(tmp_path: Path) -> None:
    path = tmp_path / "speech.json"
    path.write_text(json.dumps(report().to_json()))
    assert main([str(path), "--out", str(tmp_path / "page")]) == 0
    text = (tmp_path / "page.md").read_text()
    assert "| real | aware | 2 | 20 | 2 | 0 | 1 | 15.0 % | 5.0 % | +10.0 |" in text
    assert "| real | committed | aware | 4 | 100 | 325 |" in text
    assert "| short | aware | lag of packets | +40.0 | 3.0 | 2 |" in text
    assert "| silence | aware | 8 | 0 | 0 | - |" in text
    assert "1.010 at p50, 1.020 at p95" in text
    assert "Cores busy: 1.10 / 0.60" in text
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
