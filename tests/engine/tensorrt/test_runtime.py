"""A plan at work, on the fake: what is bound and captured once, who owns what, refit, and an orderly end."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from emi_engine import EngineError, EngineUnavailableError
from emi_engine.parity import probe_window
from emi_engine.protocol import TOLERANCES, Precision
from emi_engine.tensorrt.build import PlanJob
from emi_engine.tensorrt.engine import TensorRTEngine, load_tensorrt, run_plan
from emi_engine.tensorrt.plans import Library, Plan
from emi_models import MODALITIES
from emi_models.checkpoint import LoadedCheckpoint, packaged_checkpoint
from emi_models.inputs import FusionInputs
from tests.engine.tensorrt.conftest import Exported, origin_of
from tests.engine.tensorrt.fake import MAGIC, FakeApi, FakeDevice
from tests.models.networks.zoo import SMALL

Load = Callable[[str], LoadedCheckpoint]
MakePlan = Callable[..., Plan]


def expected(checkpoint: LoadedCheckpoint, window: FusionInputs) -> np.ndarray:
    with torch.inference_mode():
        return checkpoint.network(window).numpy()


def start(loaded: Load, plan: Plan, api: FakeApi) -> tuple[TensorRTEngine, FakeDevice]:
    device = FakeDevice()
    return run_plan(loaded("small"), plan, Library.of("tensorrt", api), device), device


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def engine(loaded: Load, plan: MakePlan, api: FakeApi) -> Iterator[TensorRTEngine]:
    with start(loaded, plan(refittable=True), api)[0] as engine:
        yield engine


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_any_batch_gives_the_network_s_numbers(engine: TensorRTEngine, loaded: Load, batch: int) -> None:
    window = probe_window(SMALL, batch, seed=batch)
    out = engine.infer(window)
    assert out.shape == (batch, 6)
    assert out.dtype == np.float32
    assert np.abs(out - expected(loaded("small"), window)).max() <= TOLERANCES["fp32"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_says_what_it_is(loaded: Load, plan: MakePlan, api: FakeApi, precision: Precision) -> None:
    engine, _ = start(loaded, plan(precision), api)
    assert engine.name == f"tensorrt-{precision}-cuda"
    assert (engine.shapes, engine.modalities, engine.batch) == (SMALL, MODALITIES, 2)
    window = probe_window(SMALL, 2)
    worst = np.abs(engine.infer(window) - expected(loaded("small"), window)).max()
    assert worst <= TOLERANCES[precision]


def test_it_binds_once_runs_once_captures_once_and_then_only_replays(
    loaded: Load, plan: MakePlan, api: FakeApi
) -> None:
    engine, device = start(loaded, plan(), api)
    names = [*FusionInputs.names(), "intensities"]
    bound = [call.removeprefix("set_tensor_address ") for call in api.calls if "address" in call]
    assert sorted(bound) == sorted(names)
    assert api.calls.count("execute") == 2  # for real, then under capture
    assert api.calls.index("execute") > api.calls.index(f"set_tensor_address {bound[-1]}")
    before, replays = len(api.calls), device.replays
    for seed in range(5):
        engine.infer(probe_window(SMALL, 2, seed))
    engine.infer(probe_window(SMALL, 5))  # three runs
    assert (len(api.calls), device.captures) == (before, 1)
    assert device.replays - replays == 5 + 3
    engine.enqueue()
    assert device.replays - replays == 9


def test_rows_that_are_filled_up_hold_nothing_of_earlier_windows(
    engine: TensorRTEngine, loaded: Load
) -> None:
    engine.infer(probe_window(SMALL, 2, seed=5))
    one = probe_window(SMALL, 1, seed=6)
    assert np.abs(engine.infer(one) - expected(loaded("small"), one)).max() <= TOLERANCES["fp32"]
    engine.enqueue()  # what lies in the inputs now: that window, and a row of nothing
    nothing = engine.infer(FusionInputs.empty(SMALL))
    padded = engine.infer(FusionInputs.stack([one, FusionInputs.empty(SMALL)]))
    assert np.array_equal(padded[1:], nothing)


def test_the_result_is_the_caller_s_and_the_window_only_read(engine: TensorRTEngine) -> None:
    window = probe_window(SMALL, 2)
    before = [t.clone() for t in window.tensors()]
    first = engine.infer(window)
    kept = first.copy()
    engine.infer(probe_window(SMALL, 2, seed=1))
    assert np.array_equal(first, kept)
    first[:] = 7.0
    assert np.array_equal(engine.infer(window), kept)
    assert all(torch.equal(a, b) for a, b in zip(before, window.tensors(), strict=True))


def test_overflow_is_an_error_and_never_nan(loaded: Load, plan: MakePlan, api: FakeApi) -> None:
    engine, _ = start(loaded, plan("fp16"), api)
    window = probe_window(SMALL, 2)
    beyond_half = window.vision.clone()
    beyond_half[0, 0, 0] = 1e6  # finite, and infinite in fp16
    masks = torch.ones_like(window.vision_mask)
    masked = masks.clone()
    masked[0, 0] = False
    present = {
        n: torch.ones(2, dtype=torch.bool) for n in ("vision_present", "audio_present", "text_present")
    }
    tensors = dict(zip(window.names(), window.tensors(), strict=True)) | {"vision": beyond_half} | present
    with pytest.raises(EngineError, match=r"finite"):
        engine.infer(FusionInputs(**{**tensors, "vision_mask": masks}))
    assert np.isfinite(engine.infer(FusionInputs(**{**tensors, "vision_mask": masked}))).all()


def test_a_stream_that_cannot_be_captured_is_said_and_runs(
    loaded: Load, plan: MakePlan, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        engine, device = start(loaded, plan(), FakeApi(capturable=False))
    assert "cannot be captured as a CUDA graph" in caplog.text
    assert device.captures == 0
    window = probe_window(SMALL, 2)
    assert np.abs(engine.infer(window) - expected(loaded("small"), window)).max() <= TOLERANCES["fp32"]
    _, device = start(loaded, plan(), FakeApi(capturable=True))
    assert device.captures == 1


def test_refit_runs_the_new_checkpoint_from_the_next_window_on(
    engine: TensorRTEngine, api: FakeApi, loaded: Load, exported: Exported
) -> None:
    new = loaded("small, other weights")
    window = probe_window(SMALL, 3)
    old = engine.infer(window)
    engine.refit(new, exported("small, other weights", "fp32"))
    assert np.abs(engine.infer(window) - expected(new, window)).max() <= TOLERANCES["fp32"]
    assert np.abs(engine.infer(window) - old).max() > 10 * TOLERANCES["fp32"]
    assert engine.header is new.header
    assert [call for call in api.calls if "refit" in call] == ["refit_from_bytes", "refit"]
    assert api.calls[-2:] == ["execute", "execute"]  # captured again
    assert sum("address" in call for call in api.calls) == 9  # bound as before


def test_refit_with_weights_of_another_checkpoint_is_caught(
    engine: TensorRTEngine, loaded: Load, exported: Exported
) -> None:
    with pytest.raises(EngineError, match="replacing the weights"):
        engine.refit(loaded("small, other weights"), exported("small", "fp32"))
    with pytest.raises(EngineError, match=r"closed"):
        engine.infer(probe_window(SMALL, 1))


def test_what_cannot_be_refitted_is_refused_and_the_engine_runs_on(
    engine: TensorRTEngine, loaded: Load, plan: MakePlan
) -> None:
    window = probe_window(SMALL, 1)
    before = engine.infer(window)
    with pytest.raises(EngineError, match="another network"):
        engine.refit(loaded("small, wider"))
    assert np.array_equal(engine.infer(window), before)
    plain, _ = start(loaded, plan(), FakeApi())
    with pytest.raises(EngineError, match="not refittable"):
        plain.refit(loaded("small, other weights"))
    assert np.array_equal(plain.infer(window), before)


@pytest.mark.parametrize("call", ["refit_from_bytes", "refit"])
def test_a_refit_that_fails_half_way_closes_the_engine(
    engine: TensorRTEngine, api: FakeApi, loaded: Load, exported: Exported, call: str
) -> None:
    api.fails = call
    with pytest.raises(EngineError, match=rf"new weights: {call}"):
        engine.refit(loaded("small, other weights"), exported("small, other weights", "fp32"))
    with pytest.raises(EngineError, match=r"closed"):
        engine.infer(probe_window(SMALL, 1))


@pytest.mark.parametrize("call", ["deserialize", "create_execution_context", "set_tensor_address", "execute"])
def test_failures_of_the_library_are_one_line(loaded: Load, plan: MakePlan, call: str) -> None:
    with pytest.raises(EngineError, match=call) as caught:
        start(loaded, plan(), FakeApi(fails=call))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_plan_of_another_network_is_caught_by_what_it_takes(
    loaded: Load, plan: MakePlan, api: FakeApi, exported: Exported
) -> None:
    good = plan()
    other = Plan(good.path, good.manifest, MAGIC + exported("compact", "fp16"))
    with pytest.raises(EngineError, match="another network"):
        start(loaded, other, api)


def test_inputs_that_a_network_does_not_use_may_be_gone(
    loaded: Load, api: FakeApi, exported: Exported, tmp_path: Path
) -> None:
    checkpoint = loaded("small, words only")
    data = MAGIC + exported("small, words only", "fp32")
    plan = Plan.write(tmp_path / "x.plan", origin_of(checkpoint), data)
    engine = run_plan(checkpoint, plan, Library.of("tensorrt", api), FakeDevice())
    bound = {call.removeprefix("set_tensor_address ") for call in api.calls if "address" in call}
    assert bound == {"text", "text_present", "intensities"}
    window = probe_window(SMALL, 3)
    assert np.abs(engine.infer(window) - expected(checkpoint, window)).max() <= TOLERANCES["fp32"]


def test_a_plan_that_computes_something_else_is_caught_at_load(
    loaded: Load, plan: MakePlan, api: FakeApi, exported: Exported
) -> None:
    good = plan()
    stale = Plan(good.path, good.manifest, MAGIC + exported("small, other weights", "fp32"))
    with pytest.raises(EngineError, match="old"):
        start(loaded, stale, api)
    gc.collect()
    assert not api.alive


def test_a_closed_engine_says_so_and_has_given_back_what_it_held(
    engine: TensorRTEngine, api: FakeApi
) -> None:
    assert len(api.alive) == 2
    engine.close()
    engine.close()
    gc.collect()
    assert not api.alive
    for use in (lambda: engine.infer(probe_window(SMALL, 1)), engine.enqueue):
        with pytest.raises(EngineError, match=r"closed"):
            use()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_before_the_library_is_asked(rtx: Library, loaded: Load) -> None:
    path = packaged_checkpoint("compact")
    with pytest.raises(EngineUnavailableError, match="no NVIDIA GPU"):
        load_tensorrt(loaded("compact"), path, library=rtx.name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_the_real_library_without_a_driver_is_one_line_and_no_crash(
    rtx: Library, loaded: Load, exported: Exported, tmp_path: Path
) -> None:
    job, checkpoint, model = PlanJob.of(rtx, "fp16"), loaded("compact"), exported("compact", "fp16")
    plan = job.build(tmp_path / "x.plan", job.origin(checkpoint, model), model)
    with pytest.raises(EngineError, match="driver") as caught:
        run_plan(checkpoint, plan, rtx, FakeDevice())
    assert "\n" not in str(caught.value)
