from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from emi_models.encoders.text import (
    GTE_BASE,
    GTE_EN_MLM_BASE,
    REMOTE_CODE,
    TransformerTextEncoder,
)
from emi_models.errors import ModelIntegrityError, ModelUnavailableError
from emi_models.marked import MARK
from tests.models.encoders.tiny_models import BERT, WIDTH, WORDS, edit_json, tiny_bert

TEXTS = ["i am so proud of you", "What a wonderful surprise!", "", "we will not give up, not today"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def encoder(tiny: tuple[Path, Any]) -> TransformerTextEncoder:
    return TransformerTextEncoder(tiny[0], BERT)


def test_it_is_the_last_state_of_the_first_token(
    tiny: tuple[Path, Any], encoder: TransformerTextEncoder
) -> None:
    ids = torch.tensor([[2, 5, 6, 7, 8, 9, 10, 3]])  # [CLS] i am so proud of you [SEP]
    with torch.inference_mode():
        states = tiny[1](input_ids=ids).last_hidden_state
    vector = encoder.encode(TEXTS[:1])
    assert vector.shape == (1, WIDTH)
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, states[:, 0].numpy(), atol=1e-5)
    assert np.abs(vector - states.mean(dim=1).numpy()).max() > 1e-2
    assert abs(np.linalg.norm(vector) - 1) > 1e-2  # as it is


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_text_does_not_depend_on_its_batch_mates(encoder: TransformerTextEncoder, batch_size: int) -> None:
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode(TEXTS, batch_size=batch_size), alone, atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 1e-2


def test_the_same_text_gives_the_same_bits(encoder: TransformerTextEncoder) -> None:
    assert encoder.encode(TEXTS).tobytes() == encoder.encode(TEXTS).tobytes()


def test_nothing_gives_nothing(encoder: TransformerTextEncoder) -> None:
    assert encoder.encode([]).shape == (0, WIDTH)


def test_a_long_text_is_cut_at_128_tokens(encoder: TransformerTextEncoder) -> None:
    kept = " ".join(["joy"] * 126)  # and [CLS] and [SEP]
    np.testing.assert_allclose(encoder.encode([f"{kept} money"]), encoder.encode([kept]), atol=1e-6)
    shorter = " ".join(["joy"] * 125)
    assert np.abs(encoder.encode([f"{shorter} money"]) - encoder.encode([kept])).max() > 1e-4


def test_the_state_at_the_mark_is_the_mean_over_its_tokens(
    encoder: TransformerTextEncoder, tiny: tuple[Path, Any]
) -> None:
    folder, model = tiny
    text = f"i am {MARK} so proud"
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    tokens = tokenizer(text, return_tensors="pt")
    places = [
        place
        for place, (start, end) in enumerate(tokenizer(text, return_offsets_mapping=True)["offset_mapping"])
        if start < end and text.index(MARK) <= start < text.index(MARK) + len(MARK)
    ]
    with torch.inference_mode():
        expected = model(**tokens).last_hidden_state[0, places].mean(dim=0).numpy()
    np.testing.assert_allclose(encoder.encode_marked([text])[0], expected, atol=1e-5)
    assert encoder.encode_marked([]).shape == (0, encoder.dim)


def test_letters_are_lowered(encoder: TransformerTextEncoder) -> None:
    assert encoder.encode(["I AM Proud"]).tobytes() == encoder.encode(["i am proud"]).tobytes()


def test_a_tokenizer_json_will_do_instead_of_a_vocabulary(
    tmp_path: Path, encoder: TransformerTextEncoder
) -> None:
    folder, _ = tiny_bert(tmp_path)
    encoder._tokenizer.save_pretrained(folder)
    (folder / "vocab.txt").unlink()
    np.testing.assert_allclose(
        TransformerTextEncoder(folder, BERT).encode(TEXTS), encoder.encode(TEXTS), atol=1e-6
    )


def test_half_precision_weights_are_widened(tmp_path: Path) -> None:
    """The published gte-base is stored in float16."""
    from safetensors.torch import load_file, save_file

    folder, model = tiny_bert(tmp_path)
    halves = {name: value.half() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    encoder = TransformerTextEncoder(folder, BERT)
    with torch.inference_mode():
        states = model.half().float()(input_ids=torch.tensor([[2, 5, 6, 3]])).last_hidden_state
    np.testing.assert_allclose(encoder.encode(["i am"]), states[:, 0].numpy(), atol=1e-5)


def test_a_folder_without_words_is_refused(tmp_path: Path) -> None:
    folder, _ = tiny_bert(tmp_path)
    (folder / "vocab.txt").unlink()
    with pytest.raises(ModelUnavailableError, match=r"tokenizer\.json"):
        TransformerTextEncoder(folder, BERT)


def test_words_of_a_larger_model_are_refused(tmp_path: Path) -> None:
    folder, _ = tiny_bert(tmp_path, words=(*WORDS, "more"))
    with pytest.raises(ModelIntegrityError, match="tokens"):
        TransformerTextEncoder(folder, BERT)


def test_distilbert_does_not_pass_for_the_bundle_s_model(tmp_path: Path) -> None:
    """A published baseline fell back to it silently: the width is the same, the model is not."""
    folder, _ = tiny_bert(tmp_path)
    edit_json(folder / "config.json", model_type="distilbert", hidden_size=768, num_hidden_layers=6)
    with pytest.raises(ModelIntegrityError, match="distilbert, 768"):
        TransformerTextEncoder(folder, GTE_BASE)


def as_remote(folder: Path, auto_map: dict[str, str] | None = None) -> Path:
    """The folder of a model of the full width that names code of its own."""
    tiny_bert(folder)
    names = {"AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"} if auto_map is None else auto_map
    edit_json(folder / "config.json", model_type="new", hidden_size=768, num_hidden_layers=12, auto_map=names)
    return folder


def test_remote_code_is_refused_unless_allowed(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="Python code") as caught:
        TransformerTextEncoder(as_remote(tmp_path), GTE_EN_MLM_BASE)
    assert "\n" not in str(caught.value)


def test_allowing_remote_code_does_not_let_another_model_in(tmp_path: Path) -> None:
    with pytest.raises(ModelIntegrityError, match="another model"):
        TransformerTextEncoder(as_remote(tmp_path), GTE_BASE, allow_remote_code=True)


@pytest.mark.parametrize("auto_map", [{}, {"AutoModel": "modeling.NewModel"}, {"AutoModel": "Eve/x--m.N"}])
def test_other_code_than_the_pinned_is_refused(tmp_path: Path, auto_map: dict[str, str]) -> None:
    with pytest.raises(ModelIntegrityError, match="40ced75c3017"):
        TransformerTextEncoder(as_remote(tmp_path, auto_map), GTE_EN_MLM_BASE, allow_remote_code=True)


# A stand-in for the hub's cache on this machine, with code of our own where the published code would be.
CONFIGURATION = """
from transformers import PretrainedConfig
class NewConfig(PretrainedConfig):
    model_type = "new"
    vocab_size: int = 8
    hidden_size: int = 8
    num_hidden_layers: int = 1
    pad_token_id: int = 0
"""
MODELING = """
import torch
import transformers
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from .configuration import NewConfig
class NewModel(PreTrainedModel):
    config_class = NewConfig
    def __init__(self, config):
        super().__init__(config)
        self.embeddings = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()
    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        return BaseModelOutput(last_hidden_state=self.embeddings(input_ids))
"""
RUN = """
import os, sys
from emi_models.encoders.text import GTE_EN_MLM_BASE, TransformerTextEncoder
from emi_models.errors import ModelUnavailableError
folder, prepared, hub = sys.argv[1:]
try:
    TransformerTextEncoder(folder, GTE_EN_MLM_BASE, allow_remote_code=True)
except ModelUnavailableError as error:
    print(error)
os.rename(prepared, hub)
encoder = TransformerTextEncoder(folder, GTE_EN_MLM_BASE, allow_remote_code=True)
print(encoder.encode(["i am", "joy"]).sum(axis=1).tolist())
"""


@pytest.mark.slow
def test_allowed_code_runs_from_the_pinned_commit_alone(tmp_path: Path) -> None:
    """In a process of its own, since where the hub's cache lies is fixed when transformers is imported."""
    from safetensors.torch import save_file

    folder = as_remote(tmp_path / "model")
    edit_json(
        folder / "config.json",
        vocab_size=len(WORDS),
        architectures=["NewModel"],
        auto_map={
            "AutoConfig": "Alibaba-NLP/new-impl--configuration.NewConfig",
            "AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel",
        },
    )
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    rows = torch.zeros(len(WORDS), 768)
    rows[2, 0] = 7.0  # of [CLS]
    save_file({"embeddings.weight": rows}, folder / "model.safetensors", metadata={"format": "pt"})

    code = REMOTE_CODE["new"]
    prepared = tmp_path / "prepared"
    cache = prepared / "models--Alibaba-NLP--new-impl"
    for revision in ("0" * 40, code.revision):
        snapshot = cache / "snapshots" / revision
        snapshot.mkdir(parents=True)
        (snapshot / "configuration.py").write_text(CONFIGURATION)
        wrong = "raise SystemExit('the wrong commit')"
        (snapshot / "modeling.py").write_text(MODELING if revision == code.revision else wrong)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0" * 40)

    hub = tmp_path / "hf" / "hub"
    hub.parent.mkdir()
    done = subprocess.run(
        (sys.executable, "-W", "ignore", "-c", RUN, str(folder), str(prepared), str(hub)),
        env=os.environ | {"HF_HOME": str(hub.parent), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    absent, sums = done.stdout.splitlines()
    assert f"hf download Alibaba-NLP/new-impl --revision {code.revision}" in absent
    assert sums == "[7.0, 7.0]"
