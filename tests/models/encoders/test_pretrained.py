from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from emi_models.encoders import TAEMI_ENCODERS
from emi_models.encoders.text import GTE_BASE, TransformerTextEncoder
from emi_models.encoders.vit import VIT_BASE, VitEncoder
from emi_models.encoders.wav2vec import AUDEERING, Wav2vecEncoder
from emi_models.errors import ModelIntegrityError, ModelUnavailableError
from emi_models.inputs import TAEMI_SHAPES
from emi_models.store import CATALOGUE
from tests.models.encoders.tiny_models import (
    BERT,
    SPEECH,
    VIT,
    edit_json,
    edit_weights,
    tiny_bert,
    tiny_speech,
    tiny_vit,
)

KINDS = {
    "vit": (VitEncoder, VIT, "encoder.layer.1.attention.output.dense.weight"),
    "bert": (TransformerTextEncoder, BERT, "encoder.layer.1.output.dense.weight"),
    "wav2vec2": (Wav2vecEncoder, SPEECH, "wav2vec2.encoder.layers.1.attention.v_proj.weight"),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_vit(folder / "vit")
    tiny_bert(folder / "bert")
    tiny_speech(folder / "wav2vec2")
    return folder


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(originals: Path, tmp_path: Path, kind: str) -> Path:
    return Path(shutil.copytree(originals / kind, tmp_path / kind))


def load(kind: str, folder: Path) -> Any:
    encoder, spec, _ = KINDS[kind]
    return encoder(folder, spec)


def test_ids_and_sizes_are_those_that_checkpoints_and_networks_name() -> None:
    assert TAEMI_ENCODERS["vision"] == VIT_BASE.encoder_id
    assert TAEMI_ENCODERS["audio"] == AUDEERING.encoder_id
    assert TAEMI_ENCODERS["text"] == GTE_BASE.encoder_id
    assert VIT_BASE.hidden_size == TAEMI_SHAPES.vision_dim
    assert AUDEERING.hidden_size + 3 == TAEMI_SHAPES.audio_dim
    assert GTE_BASE.hidden_size == TAEMI_SHAPES.text_dim


@pytest.mark.parametrize("spec", [VIT_BASE, AUDEERING, GTE_BASE], ids=lambda spec: str(spec.encoder_id))
def test_the_store_fetches_what_the_encoders_read(spec: Any) -> None:
    entry = CATALOGUE[spec.store_name]
    assert spec.encoder_id in entry.files[0].url
    assert {"config.json", "model.safetensors"} <= {file.path for file in entry.files}


def test_a_whole_folder_loads_and_draws_nothing(
    kind: str, folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity(logging.INFO)
    capfd.readouterr()
    encoder = load(kind, folder)
    assert capfd.readouterr() == ("", "")
    assert encoder.encoder_id == f"tiny/{kind}"
    assert transformers_logging.get_verbosity() == logging.INFO
    assert transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.WARNING)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named_with_the_remedy(kind: str, folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelUnavailableError, match=rf"{name} of tiny/{kind}") as caught:
        load(kind, folder)
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_not_read(kind: str, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelUnavailableError, match="pickled"):
        load(kind, folder)


@pytest.mark.parametrize(
    ("entry", "value"), [("model_type", "distilbert"), ("hidden_size", 64), ("num_hidden_layers", 6)]
)
def test_another_model_is_refused(kind: str, folder: Path, entry: str, value: object) -> None:
    edit_json(folder / "config.json", **{entry: value})
    with pytest.raises(ModelIntegrityError, match=rf"tiny/{kind}.*{value}"):
        load(kind, folder)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe"])
def test_a_damaged_config_is_refused(kind: str, folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelIntegrityError, match=r"config\.json"):
        load(kind, folder)


def test_damaged_weights_are_refused(kind: str, folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    for content in (whole[: len(whole) // 2], b"not weights" * 50, b""):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(ModelIntegrityError, match="loaded") as caught:
            load(kind, folder)
        assert "\n" not in str(caught.value)


def test_a_missing_weight_is_an_error_and_not_a_random_number(kind: str, folder: Path) -> None:
    weight = KINDS[kind][2]
    edit_weights(folder, weight)
    with pytest.raises(ModelIntegrityError, match="1 weights"):
        load(kind, folder)


def test_a_weight_of_another_shape_is_refused(kind: str, folder: Path) -> None:
    edit_weights(folder, KINDS[kind][2], torch.zeros(3, 3))
    with pytest.raises(ModelIntegrityError, match="loaded"):
        load(kind, folder)


def test_how_weights_lie_in_their_file_has_no_part_in_the_result(kind: str, folder: Path) -> None:
    """Not even in the last bit: training may read another copy than live use does."""
    path = folder / "model.safetensors"
    first, weights = load(kind, folder), load_file(path)
    for longer in (8, 20):
        save_file(weights, path, metadata={"format": "pt", "note": "n" * longer})
        again = load(kind, folder)
        assert torch.equal(answer(kind, first), answer(kind, again))


def answer(kind: str, encoder: Any) -> torch.Tensor:
    rng = np.random.default_rng(0)
    taken = {
        "vit": rng.integers(0, 256, (1, 224, 224, 3), dtype=np.uint8),
        "bert": ["i am so proud of you"],
        "wav2vec2": rng.normal(0.0, 0.1, 400).astype(np.float32),
    }
    return torch.from_numpy(encoder.encode(taken[kind]))
