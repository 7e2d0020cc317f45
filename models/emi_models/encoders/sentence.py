"""The text encoder of the `compact` bundle: all-MiniLM-L6-v2 in ONNX Runtime, without PyTorch.

The graph is in this package, and has no weights: it names the tensors of the published `model.safetensors` by
offset and length, and ONNX Runtime maps them from the file in the model store (docs/decisions/0026).
`tools/minilm_graph.py` makes the graph.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_models.errors import ModelIntegrityError, ModelUnavailableError
from emi_models.libraries import cpu_options
from emi_models.marked import marked_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = [
    "ENCODER_ID",
    "GRAPH",
    "MAX_TOKENS",
    "SENTENCE_DIM",
    "VOCABULARY",
    "WEIGHTS",
    "SentenceEncoder",
    "read_header",
]

ENCODER_ID: Final = "sentence-transformers/all-MiniLM-L6-v2"
SENTENCE_DIM: Final = 384
MAX_TOKENS: Final = 128  # the length the model was trained at; 12 s of speech are about 40 words
VOCABULARY: Final = 30_522  # tokens that have an embedding

GRAPH: Final = Path(__file__).with_name("all_minilm_l6_v2.onnx")
WEIGHTS: Final = "model.safetensors"
TOKENIZER: Final = "tokenizer.json"
# Of the published file. With both right, every tensor is where the graph looks for it.
WEIGHTS_SIZE: Final = 90_868_376  # bytes
HEADER_SHA256: Final = "a1621c79b67c1aa27f5784108b97e010fa884e26b187ba5c351328d9125e10a7"

REMEDY: Final = "run `emi models pull all-minilm-l6-v2`"


class SentenceEncoder:
    """Turns texts into vectors of length 1 whose dot product is their similarity in meaning.

    Texts are taken as they are. The model's tokenizer lower-cases them itself; punctuation, which some
    recognisers give and some do not, it keeps. Runs on the CPU in float32, holds no state; one thread at a
    time. The weights' file stays mapped as long as the encoder lives.

    Source: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2.
    """

    def __init__(self, folder: str | Path, *, threads: int = 1) -> None:
        """Load the model; nothing is fetched and nothing is unpickled.

        Args:
            folder: holds `model.safetensors` and `tokenizer.json` as they are published.
            threads: that compute, at least 1, the calling one included. Two take 0.84 of the time and 1.14 of
                the CPU that one takes (docs/decisions/0026).

        Raises:
            ModelUnavailableError: a file of the model is not in the folder, or cannot be read.
            ModelIntegrityError: a file is damaged, or of another model.
        """
        folder = Path(folder)
        missing = [name for name in (TOKENIZER, WEIGHTS) if not (folder / name).is_file()]
        if missing:
            raise ModelUnavailableError(f"{folder} lacks {' and '.join(missing)} of {ENCODER_ID}: {REMEDY}")
        self._tokenizer = _load_tokenizer(folder / TOKENIZER)
        self._session = _open_session(folder / WEIGHTS, threads)

    def encode(self, texts: Sequence[str], *, batch_size: int = 64) -> NDArray[np.float32]:
        """Embeddings, shape (len(texts), 384), each of length 1; the caller owns them.

        A text is cut at 128 tokens. The same call gives the same bits; a text's vector depends on its batch
        mates by no more than rounding (< 1e-6). An empty text gets a vector too, that of no words: do not
        ask for it.
        """
        embeddings = np.empty((len(texts), SENTENCE_DIM), np.float32)
        # One by one, since the library's own batches start a thread on every core.
        tokens = [self._tokenizer.encode(text).ids for text in texts]
        for rows, [found] in self._batches(tokens, "embedding", batch_size):
            embeddings[rows] = found
        return embeddings

    def encode_marked(self, texts: Sequence[str], *, batch_size: int = 64) -> NDArray[np.float32]:
        """The last hidden states at the mark of each text, shape (len(texts), 384), brought to length 1.

        See `emi_models.marked`: the mean over the mark's tokens.
        """
        vectors = np.empty((len(texts), SENTENCE_DIM), np.float32)
        marked = [marked_tokens(text, self._tokenizer.encode, MAX_TOKENS) for text in texts]
        for rows, [states] in self._batches([ids for ids, _ in marked], "states", batch_size):
            for line, row in enumerate(rows):
                mean = states[line, marked[row][1]].mean(axis=0)
                vectors[row] = mean / max(1e-12, float(np.linalg.norm(mean)))
        return vectors

    def _batches(
        self, tokens: Sequence[Sequence[int]], output: str, batch_size: int
    ) -> Iterator[tuple[list[int], list[NDArray[np.float32]]]]:
        """One of the graph's outputs for all texts: rows of them, and what the graph gives for those."""
        # Batches of like length waste no work on padding; results go back to where their text stands.
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            ids = np.zeros((len(rows), len(tokens[rows[-1]])), np.int64)
            mask = np.zeros_like(ids)
            for line, row in enumerate(rows):
                ids[line, : len(tokens[row])] = tokens[row]
                mask[line, : len(tokens[row])] = 1
            yield rows, self._session.run([output], {"input_ids": ids, "attention_mask": mask})


def read_header(path: Path) -> bytes:
    """The header of a safetensors file: JSON with type, shape and place of each tensor.

    Source: https://huggingface.co/docs/safetensors, "Format".

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return file.read(min(length, path.stat().st_size))


def _load_tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the class that the tokenizers library raises
        raise ModelIntegrityError(f"{path} cannot be used ({error}): {REMEDY}") from error
    if (size := tokenizer.get_vocab_size()) != VOCABULARY:
        raise ModelIntegrityError(f"{path} has {size} tokens, and {ENCODER_ID} {VOCABULARY}: {REMEDY}")
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    return tokenizer


def _open_session(path: Path, threads: int) -> Any:
    _check_weights(path)
    file = path.resolve()  # ONNX Runtime refuses a link that leads out of the folder
    if file.name != WEIGHTS:
        raise ModelUnavailableError(
            f"{path} is a link to {file}, which ONNX Runtime does not follow: copy the file, or {REMEDY}"
        )
    import onnxruntime

    options = cpu_options(threads)
    options.enable_cpu_mem_arena = False  # texts differ in length, and an arena keeps room for the longest
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(file.parent))
    raised = onnxruntime.capi.onnxruntime_pybind11_state  # exceptions without a common base
    try:
        return onnxruntime.InferenceSession(
            GRAPH.read_bytes(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except (raised.Fail, raised.InvalidArgument, raised.InvalidGraph, raised.RuntimeException) as error:
        raise ModelUnavailableError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run {ENCODER_ID} with {path} ({error}): "
            "install onnxruntime 1.21 or newer"
        ) from error


def _check_weights(path: Path) -> None:
    """Return if every tensor is where the graph looks for it."""
    try:
        size = path.stat().st_size
        header = read_header(path)
    except OSError as error:
        raise ModelUnavailableError(f"{path} cannot be read ({error.strerror}): {REMEDY}") from error
    if hashlib.sha256(header).hexdigest() != HEADER_SHA256:
        raise ModelIntegrityError(
            f"{path} does not list the tensors of {ENCODER_ID} as published (another model, or one saved "
            f"again): {REMEDY}"
        )
    if size != WEIGHTS_SIZE:
        raise ModelIntegrityError(
            f"{path} has {size} bytes of {WEIGHTS_SIZE}, so weights are missing: {REMEDY}"
        )
