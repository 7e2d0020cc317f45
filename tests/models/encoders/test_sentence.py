from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_models.encoders import COMPACT_ENCODERS
from emi_models.encoders.sentence import (
    ENCODER_ID,
    GRAPH,
    MAX_TOKENS,
    SENTENCE_DIM,
    WEIGHTS,
    SentenceEncoder,
    read_header,
)
from emi_models.errors import ModelIntegrityError, ModelUnavailableError
from emi_models.marked import MARK
from tools.minilm_graph import build

TEXTS = [
    "i am so proud of you",
    "What a wonderful surprise!",
    "",
    "we will not give up, not today and not tomorrow, and nobody will make us",
]
ODD = ["a", "?!", "naïve café, ÜBER", "中文 and 12,5 %", "🙂🙂 \u200b\x00 end", "joy " * 300, "x" * 400]

# What the published config.json says of the architecture.
CONFIG = {
    "architectures": ["BertModel"],
    "hidden_act": "gelu",
    "hidden_size": 384,
    "intermediate_size": 1536,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 6,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "vocab_size": 30522,
}


@pytest.fixture(scope="module")
def encoder(minilm: Path) -> SentenceEncoder:
    return SentenceEncoder(minilm)


@pytest.fixture(scope="module")
def reference(
    minilm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[list[str]], NDArray[np.float32]]:
    """The same model by transformers, with the pooling of sentence-transformers; each text alone."""
    transformers = pytest.importorskip("transformers", reason="the reference, transformers, is not installed")
    import torch

    folder = tmp_path_factory.mktemp("reference")
    for name in (WEIGHTS, "tokenizer.json"):
        (folder / name).symlink_to(minilm / name)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    model: Any = transformers.AutoModel.from_pretrained(
        str(folder), local_files_only=True, dtype=torch.float32
    ).eval()

    def encode(texts: list[str]) -> NDArray[np.float32]:
        rows = []
        with torch.inference_mode():
            for text in texts:
                tokens = tokenizer(text, truncation=True, max_length=128, return_tensors="pt")
                mean = model(**tokens).last_hidden_state[0].mean(dim=0)
                rows.append(torch.nn.functional.normalize(mean, dim=0).numpy())
        return np.stack(rows)

    return encode


def test_its_id_is_the_one_that_checkpoints_name() -> None:
    assert COMPACT_ENCODERS["text"] == ENCODER_ID


@pytest.mark.slow
def test_sentences_of_goemotions_are_as_by_transformers(
    encoder: SentenceEncoder, reference: Callable[[list[str]], NDArray[np.float32]], assets: Path
) -> None:
    lines = (assets / "goemotions" / "dev.tsv").read_text(encoding="utf-8").split("\n")
    texts = [line.split("\t")[0] for line in lines[:200]] + ODD
    wanted = reference(texts)
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(alone, wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(texts), wanted, rtol=0, atol=1e-5)


def test_embeddings_have_length_one(encoder: SentenceEncoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), SENTENCE_DIM)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_nothing_gives_nothing(encoder: SentenceEncoder) -> None:
    assert encoder.encode([]).shape == (0, SENTENCE_DIM)


def test_likeness_is_of_meaning(encoder: SentenceEncoder) -> None:
    vectors = encoder.encode(["the dog is happy", "a cheerful puppy", "interest rates rose by one percent"])
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > 0.5
    assert far < 0.2


def test_the_same_text_gives_the_same_bits(encoder: SentenceEncoder) -> None:
    assert encoder.encode(TEXTS).tobytes() == encoder.encode(TEXTS).tobytes()


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_text_does_not_depend_on_its_batch_mates(encoder: SentenceEncoder, batch_size: int) -> None:
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode(TEXTS, batch_size=batch_size), alone, atol=1e-6)


def test_a_long_text_is_cut_at_128_tokens(encoder: SentenceEncoder) -> None:
    kept = " ".join(["joy"] * (MAX_TOKENS - 2))  # and the first and last token of BERT
    cut = encoder.encode([kept])
    np.testing.assert_array_equal(encoder.encode([f"{kept} money"]), cut)
    assert np.abs(encoder.encode([kept.removesuffix(" joy") + " money"]) - cut).max() > 1e-3


def test_the_state_at_the_mark_depends_on_where_the_mark_is(encoder: SentenceEncoder) -> None:
    texts = [f"{MARK} I am sure of it", f"I am sure {MARK} of it"]
    states = encoder.encode_marked(texts)
    np.testing.assert_allclose(np.linalg.norm(states, axis=1), 1.0, atol=1e-5)
    assert states[0] @ states[1] < 0.99
    np.testing.assert_allclose(encoder.encode_marked(texts[1:]), states[1:], atol=1e-6)


def test_a_mark_far_into_a_long_text_is_found(encoder: SentenceEncoder) -> None:
    """Words are left out from the start, so the end of the text alone decides."""
    long = " ".join(["money"] * 400)
    one, other = encoder.encode_marked([f"joy {long} {MARK} now", f"grief {long} {MARK} now"])
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_graph_is_the_one_that_its_maker_makes(minilm: Path) -> None:
    assert build(minilm / WEIGHTS) == GRAPH.read_bytes()


PROGRAM = """
import os, sys
from emi_live.bundle import find_bundle
from emi_live.stages.text import TextStage
from emi_models.encoders.sentence import SentenceEncoder
import numpy, onnxruntime, tokenizers
before = len(os.listdir("/proc/self/task"))
encoder = SentenceEncoder(sys.argv[1], threads=int(sys.argv[2]))
encoder.encode(["i am so proud of you", "not today"] * 100)
started = len(os.listdir("/proc/self/task")) - before
heavy = {"torch", "torchaudio", "transformers", "mediapipe", "matplotlib", "onnx"} & set(sys.modules)
print(started, *sorted(heavy))
"""


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_it_imports_no_torch_and_starts_as_many_threads_as_told(minilm: Path, threads: int) -> None:
    # The thread that calls counts as the first.
    command = [sys.executable, "-c", PROGRAM, str(minilm), str(threads)]
    out = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (out.stdout, out.stderr) == (f"{threads - 1}\n", "")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_folder_without_a_file_is_refused(minilm: Path, tmp_path: Path, name: str) -> None:
    for other in {"model.safetensors", "tokenizer.json"} - {name}:
        (tmp_path / other).symlink_to(minilm / other)
    with pytest.raises(ModelUnavailableError, match=f"lacks {name}") as caught:
        SentenceEncoder(tmp_path)
    assert "emi models pull all-minilm-l6-v2" in str(caught.value)


@pytest.fixture
def spoilt(minilm: Path, tmp_path: Path) -> Callable[[bytes, int], Path]:
    """Make a folder with a weights' file of this beginning and this size; what follows takes no room."""

    def make(beginning: bytes, size: int) -> Path:
        (tmp_path / "tokenizer.json").symlink_to(minilm / "tokenizer.json")
        (tmp_path / WEIGHTS).write_bytes(beginning)
        os.truncate(tmp_path / WEIGHTS, size)
        return tmp_path

    return make


def stored(header: dict[str, Any]) -> bytes:
    """A safetensors header with its length in front."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.pop("encoder.layer.3.output.dense.bias"),
        lambda header: header["embeddings.LayerNorm.bias"].update(dtype="F16", data_offsets=[4096, 4864]),
        lambda header: header["pooler.dense.bias"].update(shape=[1, 384]),
    ],
    ids=["missing", "type", "shape"],
)
def test_other_tensors_than_the_published_are_one_line(
    minilm: Path, spoilt: Callable[[bytes, int], Path], change: Callable[[dict[str, Any]], object]
) -> None:
    header = json.loads(read_header(minilm / WEIGHTS))
    change(header)
    with pytest.raises(ModelIntegrityError, match="tensors") as caught:
        SentenceEncoder(spoilt(stored(header), (minilm / WEIGHTS).stat().st_size))
    assert "\n" not in str(caught.value)
    assert "emi models pull all-minilm-l6-v2" in str(caught.value)


@pytest.mark.parametrize(
    ("kept", "match"),
    [(0, "tensors"), (5, "tensors"), (8, "tensors"), (1000, "tensors"), (2**20, "weights are missing")],
)
def test_a_truncated_file_is_one_line(
    minilm: Path, spoilt: Callable[[bytes, int], Path], kept: int, match: str
) -> None:
    with (minilm / WEIGHTS).open("rb") as file:
        beginning = file.read(kept)
    with pytest.raises(ModelIntegrityError, match=match) as caught:
        SentenceEncoder(spoilt(beginning, kept))
    assert "\n" not in str(caught.value)


def test_a_file_without_its_last_byte_is_refused(minilm: Path, spoilt: Callable[[bytes, int], Path]) -> None:
    header = read_header(minilm / WEIGHTS)
    size = (minilm / WEIGHTS).stat().st_size
    with pytest.raises(ModelIntegrityError, match=f"{size - 1} bytes of {size}"):
        SentenceEncoder(spoilt(len(header).to_bytes(8, "little") + header, size - 1))


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\xff" * 64])
def test_another_file_is_one_line(spoilt: Callable[[bytes, int], Path], content: bytes) -> None:
    with pytest.raises(ModelIntegrityError, match="tensors"):
        SentenceEncoder(spoilt(content, len(content)))


@pytest.mark.parametrize("kind", ["half", "empty", "smaller"])
def test_a_damaged_tokenizer_is_one_line(minilm: Path, tmp_path: Path, kind: str) -> None:
    text = (minilm / "tokenizer.json").read_text(encoding="utf-8")
    known = json.loads(text)
    known["model"]["vocab"] = dict(list(known["model"]["vocab"].items())[:1000])
    made = {"half": text[: len(text) // 2], "empty": "", "smaller": json.dumps(known)}[kind]
    (tmp_path / "tokenizer.json").write_text(made, encoding="utf-8")
    (tmp_path / WEIGHTS).symlink_to(minilm / WEIGHTS)
    with pytest.raises(ModelIntegrityError, match=r"tokenizer\.json .*emi models pull") as caught:
        SentenceEncoder(tmp_path)
    assert "\n" not in str(caught.value)


def test_links_to_the_folder_and_to_its_files_work(
    encoder: SentenceEncoder, minilm: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").symlink_to(minilm)
    (tmp_path / "files").mkdir()
    for name in (WEIGHTS, "tokenizer.json"):
        (tmp_path / "files" / name).symlink_to(minilm / name)
    for folder in ("folder", "files"):
        found = SentenceEncoder(tmp_path / folder).encode(TEXTS)
        assert found.tobytes() == encoder.encode(TEXTS).tobytes()


def test_a_link_to_a_file_of_another_name_says_what_to_do(minilm: Path, tmp_path: Path) -> None:
    """As in the cache of a model hub."""
    shutil.copy(minilm / WEIGHTS, tmp_path / "blob")
    (tmp_path / WEIGHTS).symlink_to("blob")
    (tmp_path / "tokenizer.json").symlink_to(minilm / "tokenizer.json")
    with pytest.raises(ModelUnavailableError, match=r"blob.*copy"):
        SentenceEncoder(tmp_path)


def test_loading_draws_nothing_on_the_terminal(capfd: pytest.CaptureFixture[str], minilm: Path) -> None:
    SentenceEncoder(minilm)
    assert capfd.readouterr() == ("", "")
