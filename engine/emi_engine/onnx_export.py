"""A checkpoint's network as ONNX: shipped next to it, cached from an earlier start, or exported now.

An export takes seconds (docs/decisions/0005-cpu-engine-default.md), so the packaged checkpoint has its ONNX
next to it: `python -m emi_engine.onnx_export models/emi_models/checkpoints/compact.safetensors` writes it.

ONNX states each tensor's type, and TensorRT computes in the types that it finds: so the precision of a plan
is decided here.
"""

from __future__ import annotations

import copy
import json
import logging
import sys
import warnings
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnx
import torch
from torch import nn

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

    from torch import Tensor

    from emi_engine.load import Step
    from emi_engine.protocol import Precision
    from emi_models.checkpoint import LoadedCheckpoint

__all__ = ["export_beside", "export_onnx", "onnx_model"]

_log = logging.getLogger(__name__)


def onnx_model(
    checkpoint: LoadedCheckpoint,
    checkpoint_path: Path,
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
    found = find_model(checkpoint.content_hash, checkpoint_path, cache, precision=precision, batch=batch)
    if found is not None:
        return found
    _log.info("exporting the network to ONNX: once for a checkpoint, about ten seconds")
    with step("exporting the network to ONNX (once, about 10 s)") if step else nullcontext():
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
                _with_whole_lstms(FlatNetwork(checkpoint.network, precision)),
                example.tensors(),
                input_names=list(FusionInputs.names()),
                output_names=["intensities"],
                dynamic_shapes=None if batch else (any_batch,),
                opset_version=OPSET,
                custom_translation_table={torch.ops.emi_live.lstm.default: _onnx_lstm},
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


# PyTorch 2.13 traces an LSTM step by step: 90 to 150 CPU seconds for the 599 frames of a window, to arrive at
# one LSTM node a layer. This operator is such a layer: traced in one step, whatever the length.
_library: Final = torch.library.Library("emi_live", "FRAGMENT")
_library.define("lstm(Tensor x, Tensor w, Tensor r, Tensor b) -> Tensor")


@torch.library.register_fake("emi_live::lstm", lib=_library)  # type: ignore[untyped-decorator]  # PyTorch's
def _lstm_shape(x: Tensor, w: Tensor, r: Tensor, b: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], r.shape[2])


def _onnx_lstm(x: Any, w: Any, r: Any, b: Any) -> Any:
    """The states (B, T, H) of one layer over x (B, T, D), from zeros on, in ONNX's operators."""
    from onnxscript.onnx_opset import opset18 as op

    hidden = int(r.shape[2])
    states, _, _ = op.LSTM(op.Transpose(x, perm=[1, 0, 2]), w, r, b, hidden_size=hidden)  # (T, 1, B, H)
    return op.Transpose(op.Squeeze(states, op.Constant(value_ints=[1])), perm=[1, 0, 2])


class _WholeLstm(nn.Module):
    """Stands for an `nn.LSTM` while the network is traced: its states (B, T, H), nothing else."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for w, r, b_w, b_r in lstm.all_weights:
            layer = nn.Module()
            layer.w, layer.r = (nn.Parameter(_onnx_order(each)[None]) for each in (w, r))  # (1, 4 H, D or H)
            layer.b = nn.Parameter(torch.cat([_onnx_order(b_w), _onnx_order(b_r)])[None])  # (1, 8 H)
            self.layers.append(layer)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        for layer in self.layers:
            x = torch.ops.emi_live.lstm(x, layer.w, layer.r, layer.b)
        return x, None


def _onnx_order(gates: Tensor) -> Tensor:
    """From PyTorch's order of the four gates (input, forget, cell, output) to ONNX's (i, o, f, c)."""
    i, f, c, o = gates.detach().chunk(4)
    return torch.cat([i, o, f, c])


def _with_whole_lstms(network: nn.Module) -> nn.Module:
    """The network as the exporter is to trace it; a copy if it holds an LSTM (ours call `lstm(x)[0]`)."""
    if not any(isinstance(module, nn.LSTM) for module in network.modules()):
        return network
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.LSTM):
                setattr(module, name, _WholeLstm(child))
    return network


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
    exported = path.with_suffix(".onnx")
    atomic_write(exported, export_onnx(load_checkpoint(path)))
    return exported


if __name__ == "__main__":
    for name in sys.argv[1:]:
        export_beside(Path(name))
