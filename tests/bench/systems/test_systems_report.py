from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from emi_bench.measurement import Machine
from emi_bench.render import draw_figures, markdown
from emi_bench.systems import VARIANTS, avoidable, expectations, rows
from emi_bench.systems_report import SystemsReport, TrainingRun

if TYPE_CHECKING:
    from pathlib import Path


def run(
    variant: str, seed: int, rho: float, lost: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> TrainingRun:
    without = {m: rho - loss for m, loss in zip(("vision", "audio", "text"), lost, strict=True)}
    return TrainingRun(
        variant=variant,
        seed=seed,
        settings={},
        parameters=1234,
        epochs={"fusion": 3},
        wall_s=2.0,
        cpu_s=1.0,
        n=100,
        rho=rho,
        rho_each=(rho,) * 6,
        rho_without=without,  # type: ignore[arg-type]  # keys are modalities
        rho_alone={},
    )


def seeds(
    variant: str, *rhos: float, lost: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> list[TrainingRun]:
    return [run(variant, seed, rho, lost) for seed, rho in enumerate(rhos)]


def test_a_row_has_mean_and_sample_deviation_over_seeds_and_losses_seed_by_seed() -> None:
    (row,) = rows([run("taemi", 1, 0.6, (0.1, 0.2, 0.3)), run("taemi", 0, 0.5, (0.3, 0.2, 0.1))])
    assert row.seeds == (0, 1)
    assert row.rhos == (0.5, 0.6)
    assert row.rho.mean == pytest.approx(0.55)
    assert row.rho.sd == pytest.approx(0.0707, abs=1e-4)
    assert row.loss["vision"].mean == pytest.approx(0.2)
    assert row.loss["vision"].sd == pytest.approx(0.1414, abs=1e-4)
    assert row.total_loss.mean == pytest.approx(0.6)
    assert row.total_loss.sd == pytest.approx(
        0.0, abs=1e-9
    )  # what one seed loses more of, the other loses less


def test_rows_come_in_the_order_of_the_variants() -> None:
    table = rows([run("neither", 0, 0.4), run("taemi", 0, 0.5), run("two_stage", 0, 0.3)])
    assert [row.variant.name for row in table] == ["taemi", "two_stage", "neither"]


@pytest.mark.parametrize(
    ("audio", "vision", "verdicts"),
    [
        ((0.4, 0.41, 0.42), (0.3, 0.31, 0.32), ["yes", "yes"]),
        ((0.6, 0.61, 0.62), (0.5, 0.52, 0.51), ["no", "yes"]),
        ((0.51, 0.49, 0.50), (0.51, 0.49, 0.50), ["cannot be told apart", "cannot be told apart"]),
        ((0.4, 0.7, 0.3), (0.2, 0.2, 0.2), ["cannot be told apart", "yes"]),
    ],
)
def test_anchors_are_compared_seed_by_seed_and_within_their_spread_not_at_all(
    audio: tuple[float, ...], vision: tuple[float, ...], verdicts: list[str]
) -> None:
    runs = seeds("taemi", 0.5, 0.5, 0.5) + seeds("anchor_audio", *audio) + seeds("anchor_vision", *vision)
    assert [expectation.verdict for expectation in expectations(rows(runs))] == verdicts


def test_the_loss_must_be_less_than_half_and_is_judged_for_each_modality_and_the_sum() -> None:
    kept = seeds("taemi", 0.5, 0.5, 0.5, lost=(0.049, 0.1, 0.05))
    bare = seeds("neither", 0.5, 0.5, 0.5, lost=(0.1, 0.1, -0.1))
    found = expectations(rows(kept + bare))
    said = {expectation.expected.partition(",")[0]: expectation.verdict for expectation in found}
    assert said == {
        "without vision": "yes",
        "without audio": "no",
        "without text": "no",  # nothing was lost, of which there is no half
        "sum of the three": "no",
    }
    assert "0.49 of it" in found[2].found
    assert "loses nothing" in found[0].found


def test_too_few_seeds_say_nothing() -> None:
    found = expectations(rows(seeds("taemi", 0.5, 0.6) + seeds("neither", 0.4, 0.4, lost=(0.1, 0.1, 0.1))))
    assert found
    assert {expectation.verdict for expectation in found} == {"too few seeds"}


def test_nothing_is_expected_of_what_was_not_run() -> None:
    assert expectations(rows(seeds("two_stage", 0.5, 0.5, 0.5))) == []


def test_what_need_not_be_lost_is_measured_against_a_network_that_never_had_the_modality() -> None:
    references = (
        seeds("never_text", 0.4, 0.3) + seeds("never_audio", 0.5, 0.5) + seeds("never_vision", 0.6, 0.6)
    )
    mine = seeds("taemi", 0.6, 0.6, lost=(0.0, 0.2, 0.3))
    (found,) = avoidable(rows([*references, *mine, *seeds("two_stage", 0.5, 0.5), *seeds("neither", 0.5)]))
    assert found.variant.name == "taemi"
    assert found.loss["vision"].mean == pytest.approx(0.0)
    assert found.loss["audio"].mean == pytest.approx(0.1)
    assert found.loss["text"].mean == pytest.approx(0.05)
    assert found.loss["text"].sd == pytest.approx(0.0707, abs=1e-4)
    assert found.total.mean == pytest.approx(0.15)
    assert avoidable(rows(mine)) == []


def comparison(runs: list[TrainingRun], synthetic: bool = True) -> SystemsReport:
    table = rows(runs)
    return SystemsReport(
        machine=Machine.here(),
        libraries={"lightning": "2.6"},
        data="synthetic corpus of 100 clips",
        synthetic=synthetic,
        clips={"train": 64, "valid": 36},
        training={"max_epochs": 1},
        seeds=3,
        jobs=2,
        wall_s=60.0,
        resumed=2,
        probes=[],
        runs=runs,
        rows=table,
        expectations=expectations(table),
        avoidable=avoidable(table),
    )


def test_the_page_says_that_the_clips_are_synthetic_what_failed_and_what_was_done_before() -> None:
    runs = [
        *seeds("taemi", 0.5, 0.5, 0.5, lost=(0.1, 0.1, 0.1)),
        *seeds("neither", 0.4, 0.4, 0.4, lost=(0.1, 0.1, 0.1)),
        *seeds("never_text", 0.3, 0.3, 0.3),
    ]
    text = markdown([comparison(runs).page()])
    assert "These clips are synthetic" in text
    assert "**no**" in text
    assert "2 runs had been done before it" in text
    assert "| TAEMI, trained without text | 3 | **0.300 ± 0.000** |" in text
    widths = {
        line.count("|")
        for line in text.splitlines()
        if line.startswith(("| variant", "| TAEMI:", "|---|---|---|---|"))
    }
    assert len(widths) == 1
    assert "synthetic" not in markdown([comparison(runs, synthetic=False).page()]).replace(
        "synthetic corpus of 100 clips", ""
    )


def test_the_picture_is_a_png_for_any_rows(tmp_path: Path) -> None:
    for runs in (
        seeds("taemi", 0.5),
        [run(v.name, s, 0.5, (0.1, -0.1, 0.2)) for v in VARIANTS for s in (0, 1)],
    ):
        path = tmp_path / "systems.png"
        draw_figures(path, [comparison(runs).page()])
        assert path.read_bytes().startswith(b"\x89PNG")
