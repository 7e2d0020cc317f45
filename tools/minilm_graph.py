"""Make the graph of all-MiniLM-L6-v2 that the package carries: `python -m tools.minilm_graph`.

The graph has no weights. It names the tensors of the published `model.safetensors` by offset and length, so
that ONNX Runtime maps them from the model store's file. The same file gives the same bytes.

Source of the architecture: BERT, as `BertModel` of transformers computes it in evaluation mode, then the mean
over tokens and the norm of sentence-transformers' `Pooling` and `Normalize`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from emi_models.encoders.sentence import GRAPH, SENTENCE_DIM, VOCABULARY, WEIGHTS, read_header
from emi_models.files import atomic_write
from emi_models.store import ModelStore

__all__ = ["build"]

OPSET: Final = 20  # the first with Gelu
IR_VERSION: Final = 9  # that of onnx 1.15, with which this opset came
HEADS: Final = 12
LAYERS: Final = 6
INNER: Final = 1536
POSITIONS: Final = 512
EPSILON: Final = 1e-12  # `layer_norm_eps` of the model's config.json
SHORTEST: Final = 1e-12  # torch.nn.functional.normalize divides by no less
MASKED: Final = -1e9  # added to the score of a padding token, whose share is then exactly 0


class _Graph:
    """Nodes and tensors under way."""

    def __init__(self, weights: Path) -> None:
        header = read_header(weights)
        self._stored: dict[str, Any] = json.loads(header)
        self._data_start = 8 + len(header)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, TensorProto] = {}

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add one operator; the name of its output."""
        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, *values: float, dtype: type[np.generic] = np.int64) -> str:
        """A small tensor of shape (n,) that lies in the graph itself; the same values are one tensor."""
        name = f"{dtype.__name__}_{'_'.join(map(str, values))}"
        self.tensors[name] = numpy_helper.from_array(np.array(values, dtype), name)
        return name

    def weight(self, name: str, *shape: int) -> str:
        """A float32 tensor of the weights' file."""
        stored = self._stored[name]
        if (stored["dtype"], stored["shape"]) != ("F32", list(shape)):
            raise ValueError(f"{name} is {stored['dtype']} {stored['shape']}, not F32 {list(shape)}")
        start, stop = stored["data_offsets"]
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": WEIGHTS, "offset": self._data_start + start, "length": stop - start}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        self.tensors[name] = tensor
        return name

    def linear(self, x: str, name: str, width: int, inner: int) -> str:
        """A dense layer of rows, (n, inner) -> (n, width); its weights are stored as (width, inner)."""
        weights = self.weight(f"{name}.weight", width, inner), self.weight(f"{name}.bias", width)
        return self.add("Gemm", x, *weights, transB=1)

    def norm(self, x: str, name: str) -> str:
        """Layer normalisation of rows, (n, 384)."""
        weights = self.weight(f"{name}.weight", SENTENCE_DIM), self.weight(f"{name}.bias", SENTENCE_DIM)
        return self.add("LayerNormalization", x, *weights, axis=-1, epsilon=EPSILON)

    def layer(self, x: str, name: str, heads: str, penalty: str) -> str:
        """One transformer layer of rows, (b * t, 384).

        Args:
            x: the rows.
            name: what the layer's tensors begin with.
            heads: the shape (b, t, heads, width of a head).
            penalty: added to the scores, (b, 1, 1, t).
        """
        size, head = SENTENCE_DIM, SENTENCE_DIM // HEADS
        split = [
            self.add("Reshape", self.linear(x, f"{name}.attention.self.{part}", size, size), heads)
            for part in ("query", "key", "value")
        ]
        query = self.add("Transpose", split[0], perm=[0, 2, 1, 3])  # (b, heads, t, head)
        key = self.add("Transpose", split[1], perm=[0, 2, 3, 1])  # (b, heads, head, t)
        value = self.add("Transpose", split[2], perm=[0, 2, 1, 3])
        query = self.add("Mul", query, self.constant(1 / math.sqrt(head), dtype=np.float32))
        scores = self.add("Add", self.add("MatMul", query, key), penalty)  # (b, heads, t, t)
        mixed = self.add("MatMul", self.add("Softmax", scores, axis=-1), value)
        mixed = self.add("Transpose", mixed, perm=[0, 2, 1, 3])
        mixed = self.add("Reshape", mixed, self.constant(-1, size))
        mixed = self.linear(mixed, f"{name}.attention.output.dense", size, size)
        x = self.norm(self.add("Add", mixed, x), f"{name}.attention.output.LayerNorm")
        inner = self.add("Gelu", self.linear(x, f"{name}.intermediate.dense", INNER, size))
        outer = self.linear(inner, f"{name}.output.dense", size, INNER)
        return self.norm(self.add("Add", outer, x), f"{name}.output.LayerNorm")


def build(weights: Path) -> bytes:
    """The graph as ONNX: `input_ids` and `attention_mask`, int64 (b, t), to `embedding`, float32 (b, 384).

    A second output is `states`, float32 (b, t, 384): the tokens' own, of which the embedding is the mean.

    `attention_mask` is 1 at a token and 0 at padding.

    Args:
        weights: the published `model.safetensors`, of which only the header is read.

    Raises:
        KeyError: it lacks a tensor.
        ValueError: a tensor has another type or shape.
    """
    graph = _Graph(weights)
    add, constant = graph.add, graph.constant
    words = graph.weight("embeddings.word_embeddings.weight", VOCABULARY, SENTENCE_DIM)
    kinds = graph.weight("embeddings.token_type_embeddings.weight", 2, SENTENCE_DIM)
    places = graph.weight("embeddings.position_embeddings.weight", POSITIONS, SENTENCE_DIM)

    shape = add("Shape", "input_ids")  # (b, t)
    tokens = add("Gather", shape, constant(1))
    x = add("Add", add("Gather", words, "input_ids"), add("Gather", kinds, constant(0)))  # (b, t, 384)
    x = add("Add", x, add("Slice", places, constant(0), tokens))
    x = graph.norm(add("Reshape", x, constant(-1, SENTENCE_DIM)), "embeddings.LayerNorm")  # (b * t, 384)

    present = add("Cast", "attention_mask", to=TensorProto.FLOAT)
    absent = add("Sub", constant(1.0, dtype=np.float32), present)
    penalty = add("Mul", absent, constant(MASKED, dtype=np.float32))
    penalty = add("Unsqueeze", penalty, constant(1, 2))  # (b, 1, 1, t)
    heads = add("Concat", shape, constant(HEADS, SENTENCE_DIM // HEADS), axis=0)
    for layer in range(LAYERS):
        x = graph.layer(x, f"encoder.layer.{layer}", heads, penalty)

    # The second output, which is only made if it is asked for: what the mean is of.
    x = add("Reshape", x, add("Concat", shape, constant(SENTENCE_DIM), axis=0), output="states")
    kept = add("Mul", x, add("Unsqueeze", present, constant(-1)))
    mean = add(
        "Div",
        add("ReduceSum", kept, constant(1), keepdims=0),
        add("ReduceSum", present, constant(1), keepdims=1),
    )
    length = add("ReduceL2", mean, constant(1), keepdims=1)
    add("Div", mean, add("Max", length, constant(SHORTEST, dtype=np.float32)), output="embedding")

    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "all-MiniLM-L6-v2",
            [_tensor(name, TensorProto.INT64, "b", "t") for name in ("input_ids", "attention_mask")],
            [
                _tensor("embedding", TensorProto.FLOAT, "b", SENTENCE_DIM),
                _tensor("states", TensorProto.FLOAT, "b", "t", SENTENCE_DIM),
            ],
            list(graph.tensors.values()),
        ),
        producer_name="emi-live",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised


def _tensor(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


if __name__ == "__main__":
    atomic_write(GRAPH, build(ModelStore().locate("all-minilm-l6-v2") / WEIGHTS))
