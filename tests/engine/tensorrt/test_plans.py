"""Plans on disk: a manifest next to each, and none is used that is damaged or does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from emi_engine import EngineError
from emi_engine.cuda import Gpu
from emi_engine.tensorrt.engine import run_plan
from emi_engine.tensorrt.plans import Library, Plan, PlanError, manifest_path, read_manifest
from emi_models.checkpoint import LoadedCheckpoint
from emi_models.inputs import COMPACT_SHAPES
from tests.engine.tensorrt.conftest import origin_of
from tests.engine.tensorrt.fake import L4, FakeApi, FakeDevice

MakePlan = Callable[..., Plan]
RUNS = Library.of("tensorrt", FakeApi())


@pytest.mark.slow
def test_a_plan_comes_back_as_it_was_written(plan: MakePlan) -> None:
    written = plan(refittable=True)
    read = Plan.read(written.path)
    assert (read.manifest, read.data) == (written.manifest, written.data)
    assert json.loads(manifest_path(written.path).read_text())["shapes"] == asdict(read.manifest.shapes)
    assert sorted(p.name for p in written.path.parent.iterdir()) == ["small.plan", "small.plan.json"]


def test_each_part_of_an_origin_changes_its_key(loaded: Callable[[str], LoadedCheckpoint]) -> None:
    origin = origin_of(loaded("small"))
    others = [
        replace(origin, checkpoint_sha256="1" * 64),
        replace(origin, onnx_sha256="1" * 64),
        replace(origin, library="tensorrt-rtx"),
        replace(origin, library_version="11.4.1"),
        replace(origin, gpu="NVIDIA L40"),
        replace(origin, capability="sm90"),
        replace(origin, targets=("sm89",)),
        replace(origin, shapes=COMPACT_SHAPES),
        replace(origin, batch=1),
        replace(origin, precision="bf16"),
        replace(origin, refittable=True),
    ]
    assert len(others) == len(asdict(origin))
    assert len({origin.key(), *(other.key() for other in others)}) == len(others) + 1
    assert all(other.differs(origin) for other in others)
    assert replace(origin).key() == origin.key()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "checkpoint": ({"checkpoint_sha256": "a" * 64}, r"it has checkpoint_sha256 aaaaaaaaaaaa…, not \w{12}…"),
    "library": ({"library": "tensorrt-rtx"}, "it has library tensorrt-rtx, not tensorrt"),
    "version": ({"library_version": "10.9"}, "it has library_version 10.9, not 11.4.0"),
    "shapes": ({"shapes": COMPACT_SHAPES}, "it has shapes vision_frames 400, .*, not vision_frames 10, "),
    "precision": ({"precision": "bf16"}, "it has precision bf16, not fp32"),
    "batch": ({"batch": 4}, "it has batch 4, not 2"),
    "card": ({"gpu": "NVIDIA L40"}, r"for the GPU NVIDIA L40 \(sm89\), not NVIDIA L4 \(sm89\)"),
    "capability": ({"capability": "sm90"}, r"for the GPU NVIDIA L4 \(sm90\), not NVIDIA L4 \(sm89\)"),
    "targets": (
        {"gpu": "", "targets": ("sm86", "sm120")},
        r"for sm86, sm120, and this GPU \(NVIDIA L4\) is sm89",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_plan_that_does_not_fit_is_refused_with_the_reason(
    loaded: Callable[[str], LoadedCheckpoint], plan: MakePlan, what: str
) -> None:
    differing, reason = REFUSED[what]
    good = plan()
    unfit = Plan(good.path, replace(good.manifest, **differing), good.data)
    with pytest.raises(PlanError, match=reason):
        run_plan(loaded("small"), unfit, RUNS, FakeDevice(), precision="fp32", batch=2)


def test_a_portable_plan_fits_each_of_its_targets(
    plan: MakePlan, loaded: Callable[[str], LoadedCheckpoint]
) -> None:
    manifest = plan(library="tensorrt-rtx", gpu="", capability="", targets=("sm86", "sm120")).manifest
    for gpu, fits in ((Gpu("NVIDIA A10", (8, 6)), True), (Gpu("RTX 5090", (12, 0)), True), (L4, False)):
        reason = manifest.unfit(
            checkpoint_sha256=manifest.checkpoint_sha256,
            library="tensorrt-rtx",
            library_version=manifest.library_version,
            gpu=gpu,
            shapes=manifest.shapes,
        )
        assert (reason is None) is fits


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_plan_that_is_cut_off_is_refused(plan: MakePlan, size: int) -> None:
    path = plan().path
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(PlanError, match="truncated"):
        Plan.read(path)


def test_a_missing_plan_or_manifest_is_named(plan: MakePlan) -> None:
    path = plan().path
    path.unlink()
    with pytest.raises(PlanError, match=r"plan .* read"):
        Plan.read(path)
    manifest_path(path).unlink()
    with pytest.raises(PlanError, match=r"manifest .* read"):
        Plan.read(path)


BROKEN: dict[str, Callable[[dict[str, object]], object]] = {
    "not an object": lambda metadata: [metadata],
    "of another format": lambda metadata: {**metadata, "format": 2},
    "without batch": lambda metadata: {k: v for k, v in metadata.items() if k != "batch"},
    "batch of a half": lambda metadata: {**metadata, "batch": 0.5},
    "unknown precision": lambda metadata: {**metadata, "precision": "int8"},
    "unknown library": lambda metadata: {**metadata, "library": "openvino"},
    "hash that is a number": lambda metadata: {**metadata, "plan_sha256": 7},
    "no shapes": lambda metadata: {**metadata, "shapes": {}},
    "odd shapes": lambda metadata: {**metadata, "shapes": {**asdict(COMPACT_SHAPES), "text_dim": -1}},
    "targets and a gpu": lambda metadata: {**metadata, "targets": ["sm89"]},
    "neither": lambda metadata: {**metadata, "gpu": ""},
    "targets of numbers": lambda metadata: {**metadata, "targets": [89], "gpu": ""},
    "refittable perhaps": lambda metadata: {**metadata, "refittable": "perhaps"},
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_manifest_that_is_broken_is_one_line(plan: MakePlan, how: str) -> None:
    path = plan().path
    metadata = json.loads(manifest_path(path).read_text())
    manifest_path(path).write_text(json.dumps(BROKEN[how](metadata)))
    with pytest.raises(PlanError, match="understood") as caught:
        read_manifest(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 60000, b" " * 70000])
def test_a_manifest_that_is_no_json_is_one_line(plan: MakePlan, text: bytes) -> None:
    path = plan().path
    manifest_path(path).write_bytes(text)
    with pytest.raises(PlanError, match="understood") as caught:
        read_manifest(path)
    assert len(str(caught.value)) < 400


def test_a_foreign_plan_with_a_fitting_manifest_is_refused_by_the_library(
    loaded: Callable[[str], LoadedCheckpoint], tmp_path: Path
) -> None:
    foreign = Plan.write(tmp_path / "x.plan", origin_of(loaded("small")), b"not a plan at all")
    with pytest.raises(EngineError, match="magic tag"):
        run_plan(loaded("small"), foreign, RUNS, FakeDevice())


def test_a_place_that_cannot_be_written_is_named(
    loaded: Callable[[str], LoadedCheckpoint], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match="cannot be written"):
        Plan.write(tmp_path / "file" / "x.plan", origin_of(loaded("small")), b"plan")
