"""ONNX files: used only if they belong to the checkpoint, kept where they can be, and proved at load."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from emi_engine import EngineError, load_engine, onnx_export
from emi_engine.onnx_export import _with_whole_lstms, export_onnx, onnx_model
from emi_engine.onnxruntime_engine import ANSWERS_KEY, HASH_KEY, OnnxRuntimeEngine, metadata
from emi_engine.parity import prove_parity
from emi_models.checkpoint import (
    LoadedCheckpoint,
    content_hash,
    load_checkpoint,
    packaged_checkpoint,
    read_header,
)
from emi_models.inputs import FusionInputs, FusionShapes
from emi_models.networks.semantic_matters import SemanticMatters, SemanticMattersConfig
from emi_models.networks.taemi import TaemiConfig
from tests.engine.conftest import write_checkpoint
from tests.models.networks.zoo import SMALL

WORDS = TaemiConfig(shapes=SMALL, d_model=16, mlp_hidden=16, modalities=("text",))  # the quickest to export


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with nothing next to it."""
    return write_checkpoint(tmp_path_factory.mktemp("words") / "net.safetensors", WORDS)


@pytest.fixture(scope="module")
def words_model(words: Path) -> bytes:
    """What the export makes of it: seconds, once for all tests here."""
    return export_onnx(load_checkpoint(words))


@pytest.fixture
def exports(words: Path, words_model: bytes, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes of the checkpoints that are exported from now on: only `words` can be, at once."""
    asked: list[str] = []

    def export(checkpoint: LoadedCheckpoint, *_: object) -> bytes:
        asked.append(checkpoint.content_hash)
        return {content_hash(words): words_model}[checkpoint.content_hash]

    monkeypatch.setattr(onnx_export, "export_onnx", export)
    return asked


def test_an_export_names_its_inputs_its_checkpoint_and_no_path_of_this_machine(checkpoint: Path) -> None:
    data = checkpoint.with_suffix(".onnx").read_bytes()
    model = onnx.load_from_string(data)
    assert [i.name for i in model.graph.input] == list(FusionInputs.names())
    assert [o.name for o in model.graph.output] == ["intensities"]
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said[HASH_KEY] == content_hash(checkpoint)
    assert metadata(data) == said
    assert str(Path(__file__).parents[2]).encode() not in data
    assert b"site-packages" not in data


@pytest.mark.slow
def test_an_export_is_made_once_and_then_found(words: Path, tmp_path: Path, exports: list[str]) -> None:
    loaded = load_checkpoint(words)
    model = onnx_model(loaded, words, tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept.read_bytes() == model
    stamp = kept.stat().st_mtime_ns
    assert onnx_model(loaded, words, tmp_path / "cache") == model
    assert kept.stat().st_mtime_ns == stamp
    assert exports == [loaded.content_hash]


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_costs_only_time(
    words: Path, words_model: bytes, tmp_path: Path, exports: list[str]
) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    for place in (tmp_path / "cache" / "onnx", tmp_path / "cache"):
        assert onnx_model(load_checkpoint(words), words, place) == words_model
    assert len(exports) == 2


@pytest.mark.slow
@pytest.mark.parametrize("beside", ["other", "garbage"])
def test_a_foreign_file_next_to_it_is_not_used_and_reported(
    checkpoint: Path,
    words: Path,
    tmp_path: Path,
    beside: str,
    exports: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = Path(shutil.copy(words, tmp_path))
    stray = checkpoint.with_suffix(".onnx").read_bytes() if beside == "other" else b"\xff" * 1000
    other.with_suffix(".onnx").write_bytes(stray)
    with (
        caplog.at_level(logging.WARNING),
        load_engine(other, "onnxruntime", cache=tmp_path / "cache") as engine,
    ):
        prove_parity(engine, load_checkpoint(other))
    assert "does not belong to the checkpoint" in caplog.text
    assert len(exports) == 1


def test_a_network_that_answers_otherwise_than_pytorch_did_is_caught_at_load(
    checkpoint: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copy(checkpoint, tmp_path))
    model = onnx.load(checkpoint.with_suffix(".onnx"))
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.raw_data = np.frombuffer(weight.raw_data, np.float32)[::-1].tobytes()
    onnx.save(model, copy.with_suffix(".onnx"))
    with pytest.raises(EngineError, match="stale"):
        load_engine(copy, "onnxruntime")


@pytest.mark.parametrize("answers", ["", "[]", "[[1, 2]]", "[[NaN, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]"])
def test_answers_that_are_none_are_an_engine_error(checkpoint: Path, tmp_path: Path, answers: str) -> None:
    copy = Path(shutil.copy(checkpoint, tmp_path))
    model = onnx.load(checkpoint.with_suffix(".onnx"))
    next(entry for entry in model.metadata_props if entry.key == ANSWERS_KEY).value = answers
    onnx.save(model, copy.with_suffix(".onnx"))
    with pytest.raises(EngineError, match="stale"):
        load_engine(copy, "onnxruntime")


@given(noise=st.binary(max_size=60))
def test_a_damaged_file_has_no_metadata_and_is_no_error(checkpoint: Path, noise: bytes) -> None:
    model = checkpoint.with_suffix(".onnx").read_bytes()
    for damaged in (noise, model[: len(model) // 2], model[:-1], noise + model[-100:]):
        assert metadata(damaged).get(HASH_KEY) is None


@pytest.mark.slow
def test_the_packaged_onnx_is_what_the_export_makes_of_the_packaged_checkpoint() -> None:
    """If this fails: python -m emi_engine.onnx_export models/emi_models/checkpoints/compact.safetensors."""
    path = packaged_checkpoint("compact")
    packaged = path.with_suffix(".onnx").read_bytes()
    exported = export_onnx(load_checkpoint(path))
    assert onnx.load_from_string(exported).graph == onnx.load_from_string(packaged).graph
    ours, theirs = metadata(exported), metadata(packaged)
    assert theirs[HASH_KEY] == ours[HASH_KEY] == content_hash(path)
    assert json.loads(theirs[ANSWERS_KEY]) == [
        pytest.approx(row, abs=1e-5) for row in json.loads(ours[ANSWERS_KEY])
    ]


@pytest.mark.parametrize("size", [0, 1000])
def test_a_model_that_onnx_runtime_cannot_read_is_an_engine_error(checkpoint: Path, size: int) -> None:
    model = checkpoint.with_suffix(".onnx").read_bytes()[:size]
    with pytest.raises(EngineError, match="ONNX Runtime"):
        OnnxRuntimeEngine(read_header(checkpoint), model)


def test_the_exporter_never_sees_an_lstm_of_pytorch() -> None:
    """PyTorch traces it frame by frame: 90 to 150 CPU seconds for the 599 frames of a window."""
    torch.manual_seed(0)
    shapes = FusionShapes(vision_frames=9, vision_dim=4, audio_frames=9, audio_dim=4, text_dim=4)
    network = SemanticMatters(SemanticMattersConfig(shapes=shapes, fusion_hidden=8)).eval()
    traced = _with_whole_lstms(network)
    assert any(isinstance(module, nn.LSTM) for module in network.modules()), "the network stays as it is"
    assert not any(isinstance(module, nn.LSTM) for module in traced.modules())
