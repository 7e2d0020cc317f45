"""Networks to make plans of: both bundles' real sizes for the real library, a small one for the fake."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from emi_engine.onnx_export import export_onnx
from emi_engine.protocol import Precision
from emi_engine.tensorrt.plans import Library, Plan, PlanOrigin, find_library
from emi_models.checkpoint import LoadedCheckpoint, load_checkpoint, packaged_checkpoint
from emi_models.inputs import TAEMI_SHAPES
from emi_models.networks.taemi import TaemiConfig
from tests.engine.conftest import CONFIG, write_checkpoint
from tests.engine.tensorrt.fake import L4, MAGIC
from tests.models.networks.zoo import SMALL

Exported = Callable[[str, Precision], bytes]
CONFIGS = {
    "compact, random": CONFIG,  # of the compact bundle's full size, where the packaged one is shown less
    "taemi": TaemiConfig(shapes=TAEMI_SHAPES),
    "small": TaemiConfig(shapes=SMALL, d_model=16, mlp_hidden=16),
    "small, words only": TaemiConfig(shapes=SMALL, d_model=16, mlp_hidden=16, modalities=("text",)),
    "small, wider": TaemiConfig(shapes=SMALL, d_model=32, mlp_hidden=16),
}
SEEDS = {
    "small, other weights": ("small", 1),
    "compact, random": ("compact, random", 2),  # its windows differ enough to be told apart in bf16
}


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LoadedCheckpoint]:
    """Checkpoints by name: `compact` is the packaged one, the others have random weights."""

    @cache
    def load(name: str) -> LoadedCheckpoint:
        if name == "compact":
            return load_checkpoint(packaged_checkpoint(name))
        config, seed = SEEDS.get(name, (name, 0))
        path = tmp_path_factory.mktemp("checkpoint") / "net.safetensors"
        return load_checkpoint(write_checkpoint(path, CONFIGS[config], seed))

    return load


@pytest.fixture(scope="session")
def exported(loaded: Callable[[str], LoadedCheckpoint]) -> Exported:
    """ONNX by checkpoint and precision, each exported once: for one window, the small ones for two."""

    @cache
    def export(name: str, precision: Precision) -> bytes:
        return export_onnx(loaded(name), precision, 2 if name.startswith("small") else 1)

    return export


@pytest.fixture(scope="session")
def rtx() -> Library:
    """The real TensorRT-RTX, which builds without a GPU."""
    pytest.importorskip(
        "tensorrt_rtx_bindings", reason="the extra tensorrt-rtx has wheels for Linux x86-64 only"
    )
    return find_library("tensorrt-rtx")


def origin_of(checkpoint: LoadedCheckpoint, **other: object) -> PlanOrigin:
    """An origin for the fake library on the fake card, but for what is given."""
    metadata: dict[str, object] = {
        "checkpoint_sha256": checkpoint.content_hash,
        "onnx_sha256": "0" * 64,
        "library": "tensorrt",
        "library_version": "11.4.0",
        "gpu": L4.name,
        "capability": L4.target,
        "targets": (),
        "shapes": checkpoint.network.config.shapes,
        "batch": 2,
        "precision": "fp32",
        "refittable": False,
    }
    return PlanOrigin(**{**metadata, **other})  # type: ignore[arg-type]  # named above


@pytest.fixture
def plan(
    loaded: Callable[[str], LoadedCheckpoint], exported: Exported, tmp_path: Path
) -> Callable[..., Plan]:
    """Plans of the fake library for the small network; what is given differs in their manifests."""

    def make(precision: Precision = "fp32", **other: object) -> Plan:
        origin = origin_of(loaded("small"), precision=precision, **other)
        return Plan.write(tmp_path / "small.plan", origin, MAGIC + exported("small", precision))

    return make
