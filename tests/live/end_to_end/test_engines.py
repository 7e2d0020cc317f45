"""Which engine runs in live use: said at the start, changed between two windows, asked for contributions."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from emi_engine import EngineUnavailableError
from emi_live import Estimate, LiveConfig, LiveEngine, SharedEngine, worker
from emi_live.bus import Bus
from emi_live.demo import demo_stages
from emi_live.errors import ConfigurationError, StageError
from emi_live.stages import Stage
from emi_live.worker import blas_threads
from emi_models import EMOTIONS
from emi_models.checkpoint import CheckpointHeader, load_checkpoint, packaged_checkpoint, save_checkpoint
from emi_models.encoders import COMPACT_ENCODERS
from emi_models.errors import CheckpointError, EmiError
from emi_models.inputs import COMPACT_SHAPES
from emi_models.networks import describe_config
from emi_models.networks.taemi import Taemi
from tests.engine.conftest import CONFIG, write_checkpoint
from tests.support.fakes import SMALL_SHAPES, FakeEngine

pytestmark = pytest.mark.slow


def script(bus: Bus) -> list[Stage]:
    return demo_stages(bus, 12.0)


def run(seconds: float, **fusion: object) -> tuple[list[Estimate], list[str]]:
    config = LiveConfig.model_validate({"duration_s": seconds, "fusion": fusion})
    with LiveEngine(config, make_stages=script) as live:
        return list(live.estimates()), live.announcements


def missed(live: LiveEngine) -> int:
    """The hops that a busy machine was too late for."""
    return live.health.snapshot().counters.get("fusion.missed_hops", 0)


def answered(live: LiveEngine) -> int:
    """The hops until the end of the run: each has its estimate, or is counted as missed."""
    return len(list(live.estimates())) + missed(live)


def test_the_banner_names_engine_precision_and_what_is_reused() -> None:
    for engine, name, detail in (
        ("auto", "onnxruntime-cpu", "fp32"),
        ("incremental", "incremental-cpu", "fp32, each hop computes only its new frames"),
    ):
        estimates, said = run(0.4, engine=engine)
        assert said[-1].startswith(f"fusion: {name} ({detail}), taemi checkpoint compact.safetensors")
        assert {estimate.engine for estimate in estimates} == {name}


def test_an_engine_that_does_not_load_is_named_with_what_runs_in_its_place() -> None:
    estimates, said = run(0.4, engine="incremental", precision="bf16")
    assert said[0].startswith(
        "fusion: incremental: unavailable: the engine `incremental` runs on cpu in fp32"
    )
    assert said[1] == "fusion: onnxruntime-cpu runs in its place"
    assert estimates[0].engine == "onnxruntime-cpu"


def test_auto_is_not_replaced_by_anything() -> None:
    with pytest.raises(EmiError, match=r"onnxruntime.*fp32"):
        run(0.4, precision="bf16")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["auto", "incremental"])
def test_contributions_are_what_is_lost_without_each_modality(engine: str) -> None:
    with_them, _ = run(5.0, engine=engine, contributions=True)
    used = [name for e in with_them for name, report in e.modalities.items() if report.used]
    assert set(used) == {"vision", "text", "audio"}
    for estimate in with_them:
        entries = estimate.to_json()["modalities"]
        for name, report in estimate.modalities.items():
            assert report.contribution is not None
            assert tuple(entries[name]["contribution"]) == EMOTIONS
            assert all(
                value - 1 <= part <= value
                for value, part in zip(estimate.intensities, report.contribution, strict=True)
            )
            if not report.used:
                assert max(map(abs, report.contribution)) <= 1e-6
    assert max(abs(v) for e in with_them for v in e.modalities["vision"].contribution or ()) > 0.1
    assert all("contribution" not in str(e.to_json()) for e in run(0.4)[0])


@pytest.mark.slow
def test_a_checkpoint_changes_between_two_windows_and_no_estimate_is_missed(tmp_path: Path) -> None:
    """The other one says 0.9 to everything, so that every estimate shows which of them answered."""
    packaged = load_checkpoint(packaged_checkpoint("compact"))
    with torch.no_grad():
        packaged.network.head[3].bias.fill_(0.9)  # type: ignore[index, union-attr]  # a Linear
        packaged.network.head[3].weight.zero_()  # type: ignore[index, union-attr]  # as above
    save_checkpoint(other := tmp_path / "other.safetensors", packaged.network, packaged.header)
    estimates: list[Estimate] = []
    config = LiveConfig.model_validate({"duration_s": 4.0, "fusion": {"engine": "incremental"}})
    with LiveEngine(config, make_stages=script) as live:
        for estimate in live.estimates():
            estimates.append(estimate)
            if len(estimates) == 5:
                live.swap(other)
        counters = live.health.snapshot().counters
    assert counters.get("fusion.missed_hops", 0) == 0
    assert all(after.t_s - before.t_s == pytest.approx(0.2) for before, after in pairwise(estimates))
    swapped = [estimate.intensities == pytest.approx((0.9,) * 6) for estimate in estimates]
    assert not any(swapped[:5])
    assert swapped[-1]
    assert swapped == sorted(swapped)


def test_a_baseline_that_is_not_the_checkpoints_is_said(tmp_path: Path) -> None:
    loaded = load_checkpoint(packaged_checkpoint("compact"))
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, loaded.network, replace(loaded.header, notes={"baseline": "calibrate"}))
    for mode, said in (
        ("off", ["baseline: off, and own.safetensors was trained with calibrate: use --baseline calibrate"]),
        (
            "running",
            ["baseline: running, and own.safetensors was trained with calibrate: use --baseline calib"],
        ),
        ("calibrate", []),
    ):
        config = LiveConfig.model_validate(
            {"duration_s": 0.2, "fusion": {"checkpoint": path}, "window": {"baseline": mode}}
        )
        with LiveEngine(config, make_stages=script) as live:
            found = [line for line in live.announcements if "was trained with" in line]
            assert len(found) == len(said)
            assert all(line.startswith(part) for line, part in zip(found, said, strict=True))
            assert live.announcements[-1].startswith(("fusion: ", "baseline: "))


@pytest.mark.slow
def test_a_checkpoint_of_the_bundle_with_other_windows_swaps_in_by_its_name(tmp_path: Path) -> None:
    """As `emi train` makes one on compact features, whose windows are those of its clips."""
    shapes = replace(COMPACT_SHAPES, vision_frames=150, audio_frames=300)
    config = replace(CONFIG, shapes=shapes)
    header = CheckpointHeader(
        system="taemi",
        config=describe_config(config),
        modalities=config.modalities,
        encoders=COMPACT_ENCODERS,
        data="none",
        licence="Apache-2.0",
        scores={},
        created_by="test",
    )
    save_checkpoint(trained := tmp_path / "trained.safetensors", Taemi(config), header)
    estimates: list[Estimate] = []
    with LiveEngine(LiveConfig(duration_s=3.0), make_stages=script) as live:
        for estimate in live.estimates():
            estimates.append(estimate)
            if len(estimates) == 3:
                live.swap(str(trained))
        live.check()
    assert live.announcements[-1].startswith("fusion: ")
    assert "trained.safetensors, which uses: vision, audio, text" in live.announcements[-1]
    assert len(estimates) + missed(live) == 15


def test_a_checkpoint_for_other_features_or_encoders_is_refused_and_the_run_goes_on(tmp_path: Path) -> None:
    class Other(FakeEngine):
        """Takes windows of other shapes."""

    with LiveEngine(LiveConfig(duration_s=1.0), make_stages=script) as live:
        with pytest.raises(CheckpointError, match="test@1"):
            live.swap(write_checkpoint(tmp_path / "foreign.safetensors"))
        assert live._parts is not None
        with pytest.raises(ConfigurationError, match=r"vision_dim=3"):
            live._parts.loop.swap(Other(SMALL_SHAPES))
        assert answered(live) == 5


def test_a_swap_that_fails_moves_nobody_to_another_engine() -> None:
    """At the start a named engine that does not load is replaced and said so; a run that goes on is not."""
    config = LiveConfig.model_validate({"duration_s": 1.0, "fusion": {"engine": "tensorrt-rtx"}})
    with LiveEngine(config, make_stages=script) as live:
        if live.announcements[0].startswith("fusion: tensorrt-rtx: unavailable"):  # no such GPU, as on CI
            with pytest.raises(EngineUnavailableError):
                live.swap(packaged_checkpoint("compact"))
        assert answered(live) == 5


def test_an_engine_that_breaks_is_replaced_by_the_next_and_said() -> None:
    live = LiveEngine(LiveConfig(duration_s=1.0), make_stages=script)
    live.load()
    assert live._parts is not None
    engine = live._parts.loop._engine
    first = engine.name
    engine.close()  # every window is refused from now on
    with live:
        estimates = list(live.estimates())
        part = live.health.status("fusion")
    names = {estimate.engine for estimate in estimates}
    assert len(names) == 1
    assert first not in names
    assert any(line.startswith(f"fusion: {first} failed: ") for line in live.announcements)
    assert part.state in ("running", "ended")


def test_strict_knows_no_other_engine_than_the_one_named() -> None:
    live = LiveEngine(LiveConfig(duration_s=1.0), make_stages=script)
    object.__setattr__(live.config.fusion, "strict", True)
    with live:
        assert live._parts is not None
        assert live._builder._fall_back(live._parts.loop._engine, RuntimeError("broken")) is None


def test_two_live_engines_share_one_network() -> None:
    from emi_engine import load_engine

    with SharedEngine(load_engine(packaged_checkpoint("compact"), "torch")) as shared:
        configs = [LiveConfig(duration_s=1.0)] * 2
        with (
            LiveEngine(configs[0], make_stages=script, engine=shared.lend(within_s=0.2)) as one,
            LiveEngine(configs[1], make_stages=script, engine=shared.lend(within_s=0.2)) as other,
        ):
            estimates = [list(live.estimates()) for live in (one, other)]
            assert [len(got) + missed(live) for got, live in zip(estimates, (one, other), strict=True)] == [
                5,
                5,
            ]
        assert shared.rows == sum(map(len, estimates)) > 0


def test_numpy_s_threads_are_what_they_were_once_the_last_engine_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from threadpoolctl import ThreadpoolController, threadpool_limits

    monkeypatch.setattr(worker, "_users", 0)  # on a busy machine an engine of another test may have been left
    monkeypatch.setattr(worker, "_held", [])

    def threads() -> set[int]:
        blas = ThreadpoolController().select(user_api="blas")
        return {int(library["num_threads"]) for library in blas.info()}

    np.ones((2, 2)) @ np.ones((2, 2))
    with threadpool_limits(2, user_api="blas"):
        first, second = blas_threads(1), blas_threads(1)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert threads() == {1}
        second.__exit__(None, None, None)
        assert threads() == {2}


def test_a_live_run_with_no_engine_left_ends_within_seconds() -> None:
    live = LiveEngine(LiveConfig(duration_s=60.0), make_stages=script)
    object.__setattr__(live.config.fusion, "strict", True)
    with live:
        assert live._parts is not None
        live._parts.loop._engine.close()  # every window is refused from now on
        started_s = time.monotonic()
        with pytest.raises(StageError, match="fusion"):
            list(live.estimates())
        assert time.monotonic() - started_s < 6
