"""Every system, and TAEMI's ablations, in every engine: exported, loaded by name, and the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from emi_engine import EngineKind, load_engine
from emi_engine.onnx_export import export_onnx
from emi_engine.parity import TOLERANCE, probe_window
from emi_models import MODALITIES
from emi_models.checkpoint import LoadedCheckpoint, load_checkpoint
from emi_models.inputs import FusionInputs
from emi_models.networks.base import FusionNetwork
from tests.models.networks.zoo import SMALL, VARIANTS, network, save, windows

SAME_GRAPH = {"taemi, no dropout", "two_stage", "two_stage, motion only"}  # as others, but for sizes


@pytest.fixture(scope="module", params=[name for name in VARIANTS if name not in SAME_GRAPH])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with its ONNX next to it, so that each is exported once."""
    path = tmp_path_factory.mktemp("systems") / "net.safetensors"
    save(path, network(request.param), VARIANTS[request.param][0])
    path.with_suffix(".onnx").write_bytes(export_onnx(load_checkpoint(path)))
    return path


@pytest.mark.slow
def test_onnx_runtime_agrees_with_pytorch_at_every_batch_size(checkpoint: Path) -> None:
    with load_engine(checkpoint, "torch") as oracle, load_engine(checkpoint, "onnxruntime") as engine:
        assert oracle.header.system == engine.header.system
        for seed, batch in enumerate((1, 1, 2, 3, 8, 32)):
            window = probe_window(SMALL, batch, seed=seed)
            assert np.abs(engine.infer(window) - oracle.infer(window)).max() <= TOLERANCE
        everything, nothing = windows(3), windows(3).without(*MODALITIES)
        for window in (everything, nothing):
            assert np.abs(engine.infer(window) - oracle.infer(window)).max() <= TOLERANCE
        assert np.abs(engine.infer(everything) - engine.infer(nothing)).max() > 10 * TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [("taemi", {"targets": 2}), ("semantic_matters", {"targets": 1}), ("semantic_matters", {"task": "bah"})],
)
def test_as_many_values_come_as_the_checkpoint_has_targets(
    tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    path = save(tmp_path / "own.safetensors", network(name, **settings), name)
    count = settings.get("targets", 1)
    kinds: list[EngineKind] = ["torch", "onnxruntime", *(["incremental"] if name == "taemi" else [])]  # type: ignore[list-item]  # both are kinds
    window = probe_window(SMALL, 3)
    answers = []
    for kind in kinds:
        with load_engine(path, kind) as engine:
            answers.append(engine.infer(window))
            assert len(engine.header.targets) == count
    for answer in answers:
        assert answer.shape == (3, count)
        assert np.abs(answer - answers[0]).max() <= TOLERANCE


class SideBySide(FusionNetwork):
    """Several networks in one, so that one export, whose fixed part takes a second, serves for all."""

    def __init__(self, networks: Sequence[FusionNetwork]) -> None:
        super().__init__(networks[0].config)
        self.networks = nn.ModuleList(networks)

    def forward(self, window: FusionInputs) -> Tensor:
        return torch.cat([each(window) for each in self.networks], dim=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("taemi", {}),
        ("two_stage", {}),
        ("dual_stage", {"layers": 1, "tcn_layers": 1, "segments": 2}),
        ("semantic_matters", {}),
    ],
)
def test_every_subset_of_modalities_is_exported_with_the_same_numbers(
    tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    """All but the whole set, which is above; the windows have gaps, and modalities that are missing."""
    subsets = list(chain.from_iterable(combinations(MODALITIES, count) for count in (1, 2)))
    networks = [network(name, subset, **settings) for subset in subsets]
    header = load_checkpoint(save(tmp_path / "one.safetensors", networks[0], VARIANTS[name][0])).header
    together = SideBySide(networks).eval()
    model = export_onnx(LoadedCheckpoint(network=together, header=header, content_hash="0" * 64), batch=4)
    session = onnxruntime.InferenceSession(model)
    for window in (windows(4), probe_window(SMALL, 4, seed=5)):
        given = dict(zip(window.names(), (tensor.numpy() for tensor in window.tensors()), strict=True))
        (exported,) = session.run(None, given)
        with torch.inference_mode():
            expected = together(window).numpy()
        assert np.abs(exported - expected).max() <= TOLERANCE
        for first in range(0, 36, 6):
            assert np.ptp(expected[:, first : first + 6], axis=0).min() > 10 * TOLERANCE
