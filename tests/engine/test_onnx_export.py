"""ONNX files: used only if they belong to the checkpoint, kept where they can be, and proved at load."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx
import pytest

from emi_engine import EngineError, load_engine
from emi_engine.onnx_export import HASH_KEY, onnx_model
from emi_engine.onnxruntime_engine import OnnxRuntimeEngine
from emi_engine.parity import prove_parity
from emi_models.checkpoint import content_hash, load_checkpoint
from emi_models.inputs import FusionInputs
from tests.engine.conftest import CONFIG, write_checkpoint


def test_an_export_names_its_inputs_its_checkpoint_and_no_path_of_this_machine(checkpoint: Path) -> None:
    data = checkpoint.with_suffix(".onnx").read_bytes()
    model = onnx.load_from_string(data)
    assert [i.name for i in model.graph.input] == list(FusionInputs.names())
    assert [o.name for o in model.graph.output] == ["intensities"]
    assert {p.key: p.value for p in model.metadata_props}[HASH_KEY] == content_hash(checkpoint)
    assert str(Path(__file__).parents[2]).encode() not in data
    assert b"site-packages" not in data


@pytest.mark.slow
def test_an_export_is_made_once_and_then_found(checkpoint: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    elsewhere = tmp_path / "net.safetensors"  # nothing lies next to it
    model = onnx_model(loaded, elsewhere, tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept.read_bytes() == model
    stamp = kept.stat().st_mtime_ns
    assert onnx_model(loaded, elsewhere, tmp_path / "cache") == model
    assert kept.stat().st_mtime_ns == stamp


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_costs_only_time(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert onnx_model(load_checkpoint(checkpoint), tmp_path / "net.safetensors", tmp_path / "cache / onnx")
    assert onnx_model(load_checkpoint(checkpoint), tmp_path / "net.safetensors", tmp_path / "cache")


@pytest.mark.slow
@pytest.mark.parametrize("beside", ["other", "garbage"])
def test_a_foreign_file_beside_is_not_used_and_that_is_said(
    checkpoint: Path, tmp_path: Path, beside: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = write_checkpoint(tmp_path / "other.safetensors", CONFIG, seed=1)
    stray = checkpoint.with_suffix(".onnx").read_bytes() if beside == "other" else b"\xff" * 1000
    other.with_suffix(".onnx").write_bytes(stray)
    with (
        caplog.at_level(logging.WARNING),
        load_engine(other, "onnxruntime", cache=tmp_path / "cache") as engine,
    ):
        prove_parity(engine, load_checkpoint(other))
    assert "does not belong to the checkpoint" in caplog.text


def test_a_file_that_lies_about_its_origin_is_caught_at_load(checkpoint: Path, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other.safetensors", CONFIG, seed=1)
    model = onnx.load(checkpoint.with_suffix(".onnx"))
    for entry in model.metadata_props:
        entry.value = content_hash(other)
    onnx.save(model, other.with_suffix(".onnx"))
    with pytest.raises(EngineError, match="stale"):
        load_engine(other, "onnxruntime")


@pytest.mark.parametrize("size", [0, 1000])
def test_a_model_that_onnx_runtime_cannot_read_is_an_engine_error(checkpoint: Path, size: int) -> None:
    model = checkpoint.with_suffix(".onnx").read_bytes()[:size]
    with pytest.raises(EngineError, match="ONNX Runtime"):
        OnnxRuntimeEngine(load_checkpoint(checkpoint), model)
