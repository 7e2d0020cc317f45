"""`emi bench serve` on a clip, with one session."""

from __future__ import annotations

import asyncio
import json
import selectors
from dataclasses import replace
from pathlib import Path

import pytest

from emi_bench.cli import app
from emi_bench.measurement import Distribution, Machine
from emi_bench.render import markdown
from emi_bench.report import read_report
from emi_bench.serve import _batches, _enter, _sums, measure_serve
from emi_bench.serve_report import Load, ServeReport, cost_of
from emi_bench.serve_report import Simulated as Case
from emi_bench.serve_simulation import run_machine
from emi_live.cli.errors import run_app
from emi_live.errors import SourceError, StageError
from emi_live.web.broadcast import FullError
from emi_live.web.client import EmiClient
from emi_live.web.figures import Figures, Report
from emi_live.web.sessions import Session
from tests.live.web.conftest import serving


@pytest.mark.assets
@pytest.mark.slow
def test_a_number_of_sessions_is_measured(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMI_MODEL_DIR", str(assets / "mediapipe"))
    path = tmp_path / "serve.json"
    args = ["serve", "--input", str(assets / "av/face_and_speech.mp4"), "--sessions", "2", "--seconds", "2"]
    args += ["--set", "speech.backend=none", "--set", "models.offline=true", "--json", str(path)]
    with pytest.raises(SystemExit) as ended:
        run_app(app, args, "emi bench")
    assert ended.value.code == 0
    (load,) = json.loads(path.read_text())["loads"]
    assert load["sessions"] == len(load["rates"]) == 2
    assert min(load["rates"]) > 0
    assert load["age_ms"]["n"] > 0
    assert load["pictures"] > 0
    assert load["pss_mib"] > 0
    assert load["health_ms"] > 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    assert isinstance(read_report(path), ServeReport)


@pytest.mark.assets
@pytest.mark.slow
def test_a_server_that_does_not_start_is_an_error_with_its_reason(assets: Path) -> None:
    clip = assets / "av/face_and_speech.mp4"
    with pytest.raises(StageError, match="engine"):
        measure_serve(clip, [1], 1.0, 15.0, ["fusion.engine=none"], lambda *_: None)


def test_a_clip_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(SourceError, match="pictures"):
        measure_serve(tmp_path / "empty.mp4", [1], 1.0, 15.0, [], lambda *_: None)


def load(sessions: int, rate: float, cores: float, mib: float, replicas: int = 0) -> Load:
    age = Distribution.of([5.0, 6.0])
    return Load(
        *(sessions, 10.0, [rate] * sessions, age, 150, None, None, 9, cores, mib), replicas=replicas, missed=3
    )


def test_the_cost_of_a_person_is_that_of_the_most_who_got_their_estimates() -> None:
    loads = [load(1, 5.0, 0.5, 300.0), load(4, 4.9, 1.6, 450.0), load(8, 3.6, 1.9, 650.0)]
    cost = cost_of([*loads, load(16, 5.0, 1.0, 100.0, replicas=2)])
    assert cost is not None
    assert cost.cores == pytest.approx(0.4)
    assert (cost.mib, cost.base_mib) == (50.0, 250.0)
    assert cost_of(loads[:1]) is None, "one number of people has no slope"


def test_the_mean_size_of_a_batch_is_that_of_the_calls() -> None:
    busy = replace(load(8, 3.0, 1.9, 650.0), hypotheses={"1": 10, "2": 8, "4": 24}, behind=8, health_ms=120.0)
    assert busy.together == 42 / 20
    assert load(1, 5.0, 0.5, 300.0).together is None
    before, after = {"hypotheses_in_batch_of_2": 4}, {"hypotheses_in_batch_of_2": 10, "estimates": 5}
    assert _batches(before, after) == {"2": 6}


def test_counters_of_replicas_are_added_if_all_have_answered() -> None:
    def answer(silent: int) -> str:
        return (
            Report([Figures(1, 4, 0, {"estimates": 5 + n}, f"r{n}") for n in (1, 2)], silent)
            .metrics()
            .decode()
        )

    assert _sums(answer(0)) == {"estimates": 13}
    assert _sums(answer(1)) is None
    assert _sums(Report([Figures(1, 4, 0, {"estimates": 7})]).metrics().decode()) == {"estimates": 7}


def test_a_machine_that_refused_somebody_is_not_one_on_which_all_got_their_estimates() -> None:
    assert load(4, 5.0, 1.6, 450.0).kept
    assert not replace(load(4, 5.0, 1.6, 450.0), refused=1).kept
    assert not replace(load(4, 5.0, 1.6, 450.0), lost=1).kept


def test_who_is_refused_because_the_machine_is_full_is_counted_and_who_has_no_server_is_not() -> None:
    with serving(most=2) as served, EmiClient.open(served.url) as first:
        reason = "this machine is full: its 1 sessions get 40 % of their estimates"

        async def refuse() -> Session:
            raise FullError(reason)

        served.sessions.open = refuse  # type: ignore[method-assign]
        assert _enter(served.url, [first]) is None
        with pytest.raises(SourceError, match="machine is full"):
            _enter(served.url, [])
    with pytest.raises(SourceError, match="reached"):
        _enter(served.url, [first])


def test_the_page_says_what_is_calculated_and_what_is_simulated() -> None:
    simulated = [Case("one machine fewer", 1000, 30, 16, 15.0, 4900.0, 80.0, 0.02)]
    report = ServeReport(
        machine=Machine.here(),
        load_before=0.1,
        clip="talk.mp4",
        pictures_per_s=15.0,
        width=640,
        settings=[],
        loads=[load(1, 5.0, 0.5, 300.0), load(4, 4.9, 1.6, 450.0, replicas=0)],
        simulated=simulated,
        recognizers=3,
        networks=1,
    )
    page = markdown([report.page()])
    assert "all share 1 network and 3 recognisers" in page
    assert "calculated, not measured" in page
    # 70 % of 16 cores at 0.4 each; 80 % of 64 GiB less 250 MiB at 50 each.
    assert "| 16 | 64 | 28 | 1043 | cores | 36 |" in page
    assert "sleep for the measured cost" in page
    assert "| 1000 | 30 | 16 | 4900 |" in page


class Simulated(asyncio.SelectorEventLoop):
    """Time passes when there is nothing to do, and at once: a test that sleeps takes no time."""

    class Selector(selectors.DefaultSelector):
        now_s = 0.0

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            self.now_s += timeout or 0.0
            return super().select(0)

    def __init__(self) -> None:
        self.waits = self.Selector()
        super().__init__(self.waits)

    def time(self) -> float:
        return self.waits.now_s


def machine(sessions: int, cores: int, cost_s: float) -> tuple[list[float], int]:
    with asyncio.Runner(loop_factory=Simulated) as runner:
        return runner.run(run_machine(sessions, cores, cost_s, 0.2, 1.0, 0))


def test_sessions_that_are_too_many_for_the_cores_miss_hops_and_others_do_not() -> None:
    few, missed = machine(4, 2, 0.02)
    assert (len(few), missed) == (20, 0)
    many, missed = machine(20, 1, 0.04)  # 0.8 s of work each 0.2 s
    assert missed > len(many)
    assert max(many) > 0.2
