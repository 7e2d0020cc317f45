"""A checkpoint's network as ONNX: shipped next to it, cached from an earlier start, or exported now.

An export takes seconds (docs/decisions/0005-cpu-engine-default.md), so the packaged checkpoint has its ONNX
next to it: `python -m emi_engine.onnx_export models/emi_models/checkpoints/compact.safetensors` writes it.

ONNX states each tensor's type, and TensorRT computes in the types that it finds: so the precision of a plan
is decided here.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch

from emi_engine.onnxruntime_engine import (
    ANSWERS_KEY,
    HASH_KEY,
    OPSET,
    PROBE_WINDOWS,
    cache_place,
    find_model,
)
from emi_engine.parity import FlatNetwork, Probe
from emi_engine.protocol import EngineError
from emi_models.checkpoint import load_checkpoint
from emi_models.files import atomic_write
from emi_models.inputs import FusionInputs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emi_engine.load import Step
    from emi_engine.protocol import Precision
    from emi_models.checkpoint import LoadedCheckpoint

__all__ = ["export_beside", "export_onnx", "onnx_model"]

_log = logging.getLogger(__name__)


def onnx_model(
    checkpoint: LoadedCheckpoint,
    beside: Path,
    cache: Path | None = None,
    *,
    precision: Precision = "fp32",
    batch: int | None = None,
    step: Step | None = None,
) -> bytes:
    """The network of a checkpoint in ONNX, as `export_onnx` gives it, from the first place that has it.

    Looks where `find_model` does; else exports, and keeps the result in the cache if it can be written.
    `step` is entered around an export.
    """
    found = find_model(checkpoint.content_hash, beside, cache, precision=precision, batch=batch)
    if found is not None:
        return found
    _log.info("exporting the network to ONNX: once for a checkpoint, some seconds")
    with step("exporting the network to ONNX (once)") if step else nullcontext():
        model = export_onnx(checkpoint, precision, batch)
    try:
        atomic_write(cache_place(checkpoint.content_hash, cache, precision, batch), model)
    except OSError as error:
        _log.info("the exported network is not kept, so the next start exports again: %s", error)
    return model


def export_onnx(
    checkpoint: LoadedCheckpoint, precision: Precision = "fp32", batch: int | None = None
) -> bytes:
    """The network of a checkpoint in ONNX: fixed frames; inside are the weights and what proves them.

    Inputs are named as the fields of `FusionInputs`; the output is `intensities`, (batch, K). Features and
    intensities are float32 in every precision.

    Args:
        checkpoint: the network, whose own weights stay as they are.
        precision: what weights and activations are in. Softmax is in fp32 in any case, as LayerNormalization
            is by itself (its `stash_type`): sums over frames have no room in 8 or 11 bits. What masks frames
            is finite in each precision.
        batch: the one number of windows that it takes; None = any.

    Raises:
        EngineError: the network has something that cannot be exported.
    """
    example = FusionInputs.empty(checkpoint.network.config.shapes, batch=batch or 2)
    any_batch = ({0: torch.export.Dim("batch")},) * len(FusionInputs.names())
    try:
        with _quiet():
            program = torch.onnx.export(
                FlatNetwork(checkpoint.network, precision),
                example.tensors(),
                input_names=list(FusionInputs.names()),
                output_names=["intensities"],
                dynamic_shapes=None if batch else (any_batch,),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        reason = str(error).partition("\n")[0]
        raise EngineError(
            f"the network cannot be exported to ONNX: {reason}; choose the engine `torch`"
        ) from error
    if program is None:
        raise EngineError("the ONNX exporter returned no model; choose the engine `torch`")
    model = program.model_proto
    answers = Probe.of(checkpoint, PROBE_WINDOWS).expected.astype(float).round(6)  # the same on every CPU
    said = {HASH_KEY: checkpoint.content_hash, ANSWERS_KEY: json.dumps(answers.tolist())}
    for key, value in said.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    _strip(model)
    if precision != "fp32":
        _widen_softmax(model.graph)
    written = BytesIO()
    onnx.save(model, written)
    return written.getvalue()


def _strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes on each node: stack traces with the paths of the machine that exported."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]


def _widen_softmax(graph: onnx.GraphProto) -> None:
    """Have each softmax computed in float32, between two casts; TensorRT still sees attention in it."""
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type != "Softmax":
            graph.node.append(node)
            continue
        scores, weights = node.input[0], node.output[0]
        node.input[0], node.output[0] = f"{scores}_fp32", f"{weights}_fp32"
        up = onnx.helper.make_node("Cast", [scores], node.input, f"{node.name}_up", to=onnx.TensorProto.FLOAT)
        down = onnx.helper.make_node("Cast", node.output, [weights], f"{node.name}_down", to=types[weights])
        graph.node.extend([up, node, down])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks to its own developers from the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # "torchvision is not installed", four times
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside the exporter, and axis names it merges
            yield
    finally:
        logger.setLevel(level)


def export_beside(path: Path) -> Path:
    """Write a checkpoint's ONNX next to it, in fp32 and for any batch: then it runs without PyTorch.

    Raises:
        CheckpointError: `path` is not a checkpoint.
        EngineError: its network cannot be exported.
    """
    beside = path.with_suffix(".onnx")
    atomic_write(beside, export_onnx(load_checkpoint(path)))
    return beside


if __name__ == "__main__":
    for name in sys.argv[1:]:
        export_beside(Path(name))
