"""The contract of `FusionEngine`, on every engine, and their parity with each other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from emi_engine import EngineError, EngineKind, EngineUnavailableError, FusionEngine, load_engine
from emi_engine.onnxruntime_engine import find_model
from emi_engine.parity import probe_window
from emi_models import MODALITIES
from emi_models.checkpoint import content_hash, packaged_checkpoint
from emi_models.errors import CheckpointError
from emi_models.inputs import COMPACT_SHAPES, TAEMI_SHAPES, FusionInputs, InputError
from emi_models.networks.taemi import TaemiConfig
from tests.engine.conftest import write_checkpoint

KINDS: tuple[EngineKind, ...] = ("torch", "onnxruntime", "incremental")


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest, checkpoint: Path) -> Iterator[FusionEngine]:
    with load_engine(checkpoint, request.param) as loaded:
        yield loaded


def test_an_engine_says_what_it_is(engine: FusionEngine) -> None:
    assert engine.name in ("torch-cpu", "onnxruntime-cpu", "incremental-cpu")
    assert "fp32" in engine.detail
    assert engine.shapes == COMPACT_SHAPES
    assert engine.modalities == engine.header.modalities == MODALITIES


@pytest.mark.parametrize("batch", [1, 3])
def test_six_finite_raw_values_per_window(engine: FusionEngine, batch: int) -> None:
    out = engine.infer(probe_window(COMPACT_SHAPES, batch))
    assert out.shape == (batch, 6)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()


def test_the_result_belongs_to_the_caller(engine: FusionEngine) -> None:
    window = probe_window(COMPACT_SHAPES, 1)
    first = engine.infer(window)
    kept = first.copy()
    engine.infer(probe_window(COMPACT_SHAPES, 1, seed=1))
    assert np.array_equal(first, kept)
    first[:] = 7.0
    assert np.array_equal(engine.infer(window), kept)


def test_windows_are_only_read(engine: FusionEngine) -> None:
    window = probe_window(COMPACT_SHAPES, 2)
    before = [t.clone() for t in window.tensors()]
    engine.infer(window)
    assert all(torch.equal(a, b) for a, b in zip(before, window.tensors(), strict=True))


def test_the_same_window_gives_the_same_bytes(engine: FusionEngine) -> None:
    window = probe_window(COMPACT_SHAPES, 1)
    assert engine.infer(window).tobytes() == engine.infer(window).tobytes()


def test_batch_mates_do_not_matter(engine: FusionEngine) -> None:
    rows = [probe_window(COMPACT_SHAPES, 1, seed=seed) for seed in range(4)]
    alone = np.concatenate([engine.infer(row) for row in rows])
    assert np.abs(engine.infer(FusionInputs.stack(rows)) - alone).max() <= 1e-5


def test_nothing_present_is_finite_and_the_same_for_all(engine: FusionEngine) -> None:
    nothing = engine.infer(probe_window(COMPACT_SHAPES, 2).without(*MODALITIES))
    assert np.isfinite(nothing).all()
    assert np.allclose(nothing[0], nothing[1], atol=1e-6)
    assert np.allclose(engine.infer(FusionInputs.empty(COMPACT_SHAPES)), nothing[:1], atol=1e-6)


def test_present_without_frames_is_missing(engine: FusionEngine) -> None:
    window = probe_window(COMPACT_SHAPES, 2)
    frameless = replace(window, audio_mask=torch.zeros_like(window.audio_mask))
    assert np.allclose(engine.infer(frameless), engine.infer(window.without("audio")), atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("modality", MODALITIES)
def test_values_that_are_not_finite_are_refused(engine: FusionEngine, modality: str, value: float) -> None:
    window = probe_window(COMPACT_SHAPES, 1)
    spoiled = getattr(window, modality).clone()
    spoiled.view(-1)[5] = value
    with pytest.raises(InputError, match=f"{modality} holds 1 of"):
        engine.infer(replace(window, **{modality: spoiled}))
    assert np.isfinite(engine.infer(window)).all()


def test_finite_input_that_overflows_is_an_error_and_never_nan(engine: FusionEngine) -> None:
    window = probe_window(COMPACT_SHAPES, 1)
    huge = replace(window, text=torch.full_like(window.text, 3e38), text_present=torch.tensor([True]))
    with pytest.raises(EngineError, match="finite"):
        engine.infer(huge)


def test_windows_of_another_bundle_are_refused(engine: FusionEngine) -> None:
    with pytest.raises(InputError, match="vision has shape"):
        engine.infer(FusionInputs.empty(TAEMI_SHAPES))


def test_a_closed_engine_says_so(engine: FusionEngine) -> None:
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer(probe_window(COMPACT_SHAPES, 1))


@pytest.mark.slow
def test_parity_on_200_random_windows(checkpoint: Path) -> None:
    worst = 0.0
    with load_engine(checkpoint, "torch") as oracle, load_engine(checkpoint, "onnxruntime") as ort:
        for seed, batch in enumerate([1] * 40 + [8] * 20):
            window = probe_window(COMPACT_SHAPES, batch, seed=seed)
            worst = max(worst, float(np.abs(oracle.infer(window) - ort.infer(window)).max()))
    assert worst <= 1e-5


def test_parity_of_the_packaged_checkpoint_and_its_onnx(tmp_path: Path) -> None:
    path = packaged_checkpoint("compact")
    assert find_model(content_hash(path), path, tmp_path) == path.with_suffix(".onnx").read_bytes()
    with load_engine(path, "torch") as oracle, load_engine(path, "onnxruntime") as ort:
        window = probe_window(oracle.shapes, 32)
        window = replace(window, text=torch.nn.functional.normalize(window.text, dim=1))  # as embeddings are
        assert np.abs(oracle.infer(window) - ort.infer(window)).max() <= 1e-5


def test_auto_reuses_where_it_pays_and_other_names_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with load_engine(checkpoint, threads=2) as engine:
        assert engine.name == "onnxruntime-cpu"
    large = write_checkpoint(tmp_path / "large.safetensors", TaemiConfig(shapes=TAEMI_SHAPES))
    with load_engine(large) as engine:
        assert engine.name == "incremental-cpu"
    with pytest.raises(EngineUnavailableError, match="magic"):
        load_engine(checkpoint, "magic")  # type: ignore[arg-type]  # what a configuration file may hold


def test_what_an_engine_cannot_do_is_refused(checkpoint: Path) -> None:
    with pytest.raises(EngineUnavailableError, match="bf16"):
        load_engine(checkpoint, "incremental", device="cuda", precision="bf16")


def test_encoders_are_compared_at_load(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="other@2"):
        load_engine(checkpoint, expect_encoders={"text": "other@2"})


def test_importing_the_package_loads_no_runtime() -> None:
    code = "import sys, emi_engine, emi_models; sys.exit(bool({'torch', 'onnx'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torch", "onnxruntime"])
def test_the_caller_s_floating_point_is_left_as_it_was(kind: str) -> None:
    """ONNX Runtime can flush subnormals, but then does so in the thread of the program that embeds us."""
    code = (
        "from emi_engine import load_engine; from emi_models.checkpoint import packaged_checkpoint\n"
        f"load_engine(packaged_checkpoint('compact'), {kind!r})\n"
        "print(float.fromhex('0x1p-1022') / 2 > 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
