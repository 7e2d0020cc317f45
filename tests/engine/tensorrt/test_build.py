"""The real TensorRT-RTX parses and builds what we export, without a GPU; the other library is a fake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from emi_engine import EngineError, EngineUnavailableError
from emi_engine.protocol import Precision
from emi_engine.tensorrt.build import PlanJob, build_plan, check_targets, portable_targets
from emi_engine.tensorrt.plans import Library, Plan, find_library
from emi_models.checkpoint import LoadedCheckpoint
from tests.engine.tensorrt.conftest import Exported
from tests.engine.tensorrt.fake import FakeApi


@pytest.mark.parametrize(
    ("bundle", "precision"),
    [
        pytest.param("compact", "fp16", marks=pytest.mark.slow),
        pytest.param("compact", "fp32", marks=pytest.mark.slow),
        pytest.param("taemi", "bf16", marks=pytest.mark.slow),
    ],
)
def test_plans_of_each_bundle_and_of_each_precision_are_built_without_a_gpu(
    rtx: Library,
    loaded: Callable[[str], LoadedCheckpoint],
    exported: Exported,
    bundle: str,
    precision: Precision,
    tmp_path: Path,
) -> None:
    job = PlanJob.of(rtx, precision)
    checkpoint, model = loaded(bundle), exported(bundle, precision)
    origin = job.origin(checkpoint, model)
    job.build(tmp_path / "x.plan", origin, model)
    plan = Plan.read(tmp_path / "x.plan")
    weights = sum(p.numel() for p in checkpoint.network.parameters()) * (4 if precision == "fp32" else 2)
    assert len(plan.data) > weights
    manifest = plan.manifest
    assert manifest.differs(origin) is None
    assert (manifest.library, manifest.library_version) == ("tensorrt-rtx", rtx.version)
    assert manifest.checkpoint_sha256 == checkpoint.content_hash
    assert (manifest.shapes, manifest.batch) == (checkpoint.network.config.shapes, 1)
    assert (manifest.precision, manifest.gpu) == (precision, "")
    assert set(manifest.targets) >= {"sm86", "sm89", "sm120"}
    assert ("sm75" in manifest.targets) is (precision == "fp16")


def test_targets_are_what_the_library_and_the_precision_have(rtx: Library) -> None:
    assert check_targets(rtx, "bf16", ["SM89", "sm86"]) == ("sm86", "sm89")
    with pytest.raises(ValueError, match="sm75, sm90"):
        check_targets(rtx, "bf16", ["sm75", "sm89", "sm90"])
    other = Library.of("tensorrt", FakeApi())
    assert portable_targets(other, "fp16") == ()
    with pytest.raises(ValueError, match="leave targets out"):
        check_targets(other, "fp16", ["sm89"])


@pytest.mark.slow
def test_a_precision_that_the_target_lacks_is_one_line_with_the_library_s_reason(
    rtx: Library, exported: Exported
) -> None:
    with pytest.raises(EngineError, match="sm75") as caught:
        build_plan(rtx, exported("compact", "bf16"), targets=["sm75"])
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_models_that_cannot_be_parsed_are_one_line(rtx: Library, exported: Exported) -> None:
    model = exported("compact", "fp16")
    for damaged in (b"", b"\xff" * 1000, model[: len(model) // 2]):
        with pytest.raises(EngineError, match="parse") as caught:
            build_plan(rtx, damaged, targets=["sm89"])
        assert "\n" not in str(caught.value)
    unknown = onnx.load_from_string(model)
    unknown.graph.node[5].op_type = "Levitate"
    with pytest.raises(EngineError, match="Levitate"):
        build_plan(rtx, unknown.SerializeToString(), targets=["sm89"])


def test_a_build_says_how_far_it_is_and_can_be_ended(rtx: Library, exported: Exported) -> None:
    seen: list[tuple[int, int, str]] = []

    def note(done: int, total: int, phase: str) -> bool:
        seen.append((done, total, phase))
        return True

    build_plan(rtx, exported("compact", "fp16"), targets=["sm89"], progress=note)
    assert all(0 < done <= total for done, total, _ in seen if total)
    assert len({phase for _, _, phase in seen}) > 3
    with pytest.raises(EngineError, match=r"canceled by user"):
        build_plan(rtx, exported("compact", "fp16"), targets=["sm89"], progress=lambda *_: False)


def test_what_needs_a_gpu_says_so_where_there_is_none(rtx: Library) -> None:
    with pytest.raises(EngineUnavailableError, match="refittable"):
        PlanJob.of(rtx, "fp16", refit=True)
    with pytest.raises(EngineUnavailableError, match=r"^tensorrt builds"):
        PlanJob.of(Library.of("tensorrt", FakeApi()), "fp16")
    with pytest.raises(ValueError, match=r"batch of 0"):
        PlanJob.of(rtx, "fp16", batch=0)


@pytest.mark.slow
@pytest.mark.parametrize(("version", "flags"), [("10.9.0.34", 2), ("11.4.0.106", 0)])
def test_the_other_library_is_asked_for_strong_typing_where_it_has_to_be(
    exported: Exported, version: str, flags: int
) -> None:
    api = FakeApi(version)
    plan = build_plan(Library.of("tensorrt", api), exported("small", "fp32"))
    assert plan.endswith(exported("small", "fp32"))
    assert f"create_network {flags}" in api.calls
    assert "flags []" in api.calls  # no TF32: fp32 means fp32
    build_plan(Library.of("tensorrt", api), exported("small", "fp32"), refit=True)
    assert "flags ['REFIT']" in api.calls


@pytest.mark.parametrize("call", ["parse", "build_serialized_network"])
def test_failures_of_the_other_library_are_one_line(exported: Exported, call: str) -> None:
    library = Library.of("tensorrt", FakeApi(fails=call))
    with pytest.raises(EngineError, match=rf"cannot .*{call}"):
        build_plan(library, exported("small", "fp32"))


def test_a_library_that_is_absent_says_how_it_is_had() -> None:
    with pytest.raises(EngineUnavailableError, match="imported"):
        find_library("tensorrt")
