"""TAEMI's work from its configuration, against PyTorch's own counter and the network's own parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from emi_models.inputs import COMPACT_SHAPES, TAEMI_SHAPES, FusionInputs
from emi_models.networks.config import TaemiConfig, taemi_parameters, taemi_work
from emi_models.networks.taemi import Taemi

SMALL = TaemiConfig(shapes=COMPACT_SHAPES, d_model=32, heads=4, mlp_hidden=48)


@pytest.mark.parametrize(
    ("config", "batch"),
    [
        (TaemiConfig(shapes=TAEMI_SHAPES), 1),
        (SMALL, 3),
        (replace(SMALL, modalities=("audio", "text")), 2),
        (replace(SMALL, anchor="audio"), 1),
        (replace(SMALL, anchor="vision", missing="zero"), 1),
        (replace(SMALL, attention="self"), 1),
        (replace(SMALL, attention="none"), 2),
    ],
)
def test_operations_and_parameters_are_those_of_the_network(config: TaemiConfig, batch: int) -> None:
    with torch.device("meta"):
        network = Taemi(config).eval().requires_grad_(False)
        window = FusionInputs.empty(config.shapes, batch)
    counter: Any = FlopCounterMode(display=False)
    with counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        network(window)
    assert taemi_work(config, batch).flops == counter.get_total_flops()
    assert taemi_parameters(config) == sum(weight.numel() for weight in network.parameters())


def test_bytes_are_weights_once_and_each_window() -> None:
    one, four = taemi_work(SMALL, 1), taemi_work(SMALL, 4)
    window = sum(t.nbytes for t in FusionInputs.empty(COMPACT_SHAPES).tensors()) + 6 * 4
    assert four.bytes - one.bytes == 3 * window
    assert one.bytes == window + 4 * taemi_parameters(SMALL)
    assert taemi_work(SMALL, 1, weight_bytes=2).bytes == window + 2 * taemi_parameters(SMALL)
