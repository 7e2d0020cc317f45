"""Checkpoints to run engines on: random weights, so that every branch of the network shows in the result."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emi_engine.onnx_export import export_onnx
from emi_models.checkpoint import CheckpointHeader, load_checkpoint, save_checkpoint
from emi_models.inputs import COMPACT_SHAPES
from emi_models.networks import describe_config
from emi_models.networks.taemi import Taemi, TaemiConfig

CONFIG = TaemiConfig(shapes=COMPACT_SHAPES, d_model=64, heads=4, mlp_hidden=512)


def write_checkpoint(path: Path, config: TaemiConfig = CONFIG, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    header = CheckpointHeader(
        system="taemi",
        config=describe_config(config),
        modalities=config.modalities,
        encoders=dict.fromkeys(config.modalities, "test@1"),
        data="none",
        licence="Apache-2.0",
        scores={},
        created_by="test",
    )
    save_checkpoint(path, Taemi(config), header)
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the compact bundle's sizes, trained on all modalities, with its ONNX next to it."""
    path = write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "net.safetensors")
    path.with_suffix(".onnx").write_bytes(export_onnx(load_checkpoint(path)))
    return path
