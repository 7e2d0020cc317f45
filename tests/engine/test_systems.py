"""Every system, and TAEMI's ablations, in every engine: exported, loaded by name, and the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession
from torch import Tensor, nn

from emi_engine import EngineKind, load_engine
from emi_engine.onnx_export import export_onnx
from emi_engine.parity import TOLERANCE, probe_window
from emi_models import MODALITIES
from emi_models.checkpoint import load_checkpoint
from emi_models.inputs import FusionInputs
from emi_models.networks import SYSTEMS
from emi_models.networks.base import FusionNetwork
from tests.models.networks.zoo import SMALL, VARIANTS, network, save, windows

SAME_GRAPH = {"taemi, no dropout", "two_stage", "two_stage, motion only"}  # as others, but for sizes
EXPORTED = {
    system: [name for name, (of, _) in VARIANTS.items() if of == system and name not in SAME_GRAPH]
    for system in SYSTEMS
}


class SideBySide(FusionNetwork):
    """Several networks in one, so that one export, whose fixed part takes seconds, serves for all."""

    def __init__(self, networks: Sequence[FusionNetwork]) -> None:
        super().__init__(networks[0].config)
        self.networks = nn.ModuleList(networks)

    def forward(self, window: FusionInputs) -> Tensor:
        return torch.cat([each(window) for each in self.networks], dim=1)


def exported(paths: Sequence[Path], batch: int | None = None) -> tuple[SideBySide, InferenceSession]:
    """The networks of these checkpoints side by side, and a session of ONNX Runtime that runs them."""
    loaded = [load_checkpoint(path) for path in paths]
    together = SideBySide([each.network for each in loaded]).eval()
    model = export_onnx(replace(loaded[0], network=together), batch=batch)
    return together, InferenceSession(model, providers=["CPUExecutionProvider"])


def run(session: InferenceSession, window: FusionInputs) -> np.ndarray:
    given = zip(window.names(), (tensor.numpy() for tensor in window.tensors()), strict=True)
    answer: np.ndarray = session.run(None, dict(given))[0]
    return answer


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_onnx_runtime_agrees_with_pytorch_at_every_batch_size(tmp_path: Path, system: str) -> None:
    variants = EXPORTED[system]
    paths = [save(tmp_path / f"{name}.safetensors", network(name), system) for name in variants]
    _, session = exported(paths)

    def both(window: FusionInputs) -> np.ndarray:
        answer = run(session, window)
        assert answer.shape == (window.batch, 6 * len(variants))
        oracle = np.concatenate([engine.infer(window) for engine in oracles], axis=1)
        assert np.abs(answer - oracle).max() <= TOLERANCE
        return answer

    with ExitStack() as stack:
        oracles = [stack.enter_context(load_engine(path, "torch")) for path in paths]
        assert {oracle.header.system for oracle in oracles} == {system}
        for seed, batch in enumerate((1, 1, 2, 3, 8, 32)):
            both(probe_window(SMALL, batch, seed=seed))
        difference = np.abs(both(windows(3)) - both(windows(3).without(*MODALITIES)))
    for first in range(0, difference.shape[1], 6):
        assert difference[:, first : first + 6].max() > 10 * TOLERANCE, variants[first // 6]


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
    paths = [save(tmp_path / f"{i}.safetensors", each, name) for i, each in enumerate(networks)]
    together, session = exported(paths, batch=4)
    for window in (windows(4), probe_window(SMALL, 4, seed=5)):
        with torch.inference_mode():
            expected = together(window).numpy()
        assert np.abs(run(session, window) - expected).max() <= TOLERANCE
        for first in range(0, 36, 6):
            assert np.ptp(expected[:, first : first + 6], axis=0).min() > 10 * TOLERANCE
