"""What TensorRT is given in fp16 and bf16 computes the network: the ONNX itself is run, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from emi_engine.parity import precision_price, probe_window
from emi_engine.protocol import PRECISIONS, TOLERANCES, Precision
from emi_models.checkpoint import LoadedCheckpoint
from emi_models.inputs import FusionInputs
from tests.engine.tensorrt.conftest import Exported

ELEMENTS = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}


def run(model: bytes, precision: Precision, window: FusionInputs) -> np.ndarray:
    """Each row alone: ONNX Runtime has no bf16 on the CPU; ONNX's own reference has all and is slow."""
    feeds = [
        {
            name: tensor[row : row + 1].numpy()
            for name, tensor in zip(window.names(), window.tensors(), strict=True)
        }
        for row in range(window.batch)
    ]
    if precision == "bf16":
        reference = ReferenceEvaluator(onnx.load_from_string(model))
        return np.concatenate([reference.run(None, feed)[0] for feed in feeds])
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, feed)[0] for feed in feeds])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bundle", "precision", "count"),
    [
        ("compact", "fp16", 16),  # not in bf16, which is too coarse for it: docs/engines.md
        ("compact, random", "bf16", 4),
        ("taemi", "fp16", 3),
        ("taemi", "bf16", 3),
    ],
)
def test_parity_with_eager_fp32_on_random_masks_and_tokens(
    loaded: Callable[[str], LoadedCheckpoint],
    exported: Exported,
    bundle: str,
    precision: Precision,
    count: int,
) -> None:
    network = loaded(bundle).network
    window = probe_window(network.config.shapes, count, seed=3)
    window = replace(window, text=torch.nn.functional.normalize(window.text, dim=1))  # as embeddings are
    window = FusionInputs.stack([window, FusionInputs.empty(network.config.shapes)])  # and one of nothing
    with torch.inference_mode():
        expected = network(window).numpy()
    out = run(exported(bundle, precision), precision, window)
    assert out.dtype == np.float32
    assert 0 < np.abs(out - expected).max() <= TOLERANCES[precision]
    assert np.abs(expected[:-1] - expected[-1]).max() > 4 * TOLERANCES[precision]  # windows matter at all


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_weights_are_in_the_precision_and_the_window_in_single(
    exported: Exported, precision: Precision
) -> None:
    graph = onnx.load_from_string(exported("taemi", precision)).graph
    outside = {v.name: v.type.tensor_type for v in (*graph.input, *graph.output)}
    assert list(outside) == [*FusionInputs.names(), "intensities"]
    for name, tensor in outside.items():
        flag = name.endswith(("_mask", "_present"))
        assert tensor.elem_type == (onnx.TensorProto.BOOL if flag else onnx.TensorProto.FLOAT)
        assert tensor.shape.dim[0].dim_value == 1
    large = [t for t in graph.initializer if np.prod(t.dims) >= 512 and t.data_type != onnx.TensorProto.BOOL]
    assert len(large) > 20
    assert {t.data_type for t in large} == {ELEMENTS[precision]}
    norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
    assert [next(a.i for a in node.attribute if a.name == "stash_type") for node in norms] == [1, 1]  # fp32
    wide = {node.output[0] for node in graph.node if node.op_type == "Cast" and node.attribute[0].i == 1}
    softmaxes = [node for node in graph.node if node.op_type == "Softmax"]
    assert len(softmaxes) == 4
    assert all(node.input[0] in wide for node in softmaxes)
    for tensor in graph.initializer:
        assert np.isfinite(onnx.numpy_helper.to_array(tensor).astype(np.float64)).all()  # no -inf that masks


@pytest.mark.slow
def test_exporting_leaves_the_checkpoint_s_own_network_alone(
    loaded: Callable[[str], LoadedCheckpoint], exported: Exported
) -> None:
    exported("taemi", "bf16")
    assert {p.dtype for p in loaded("taemi").network.parameters()} == {torch.float32}


def test_the_price_of_a_precision_is_measured(loaded: Callable[[str], LoadedCheckpoint]) -> None:
    prices = [precision_price(loaded("compact"), precision, 4) for precision in PRECISIONS]
    assert prices[0] == 0.0
    assert 0 < 2 * prices[1] < prices[2]
