from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from emi_models.encoders.text import GTE_EN_MLM_BASE, TransformerTextEncoder, identify_text
from emi_models.encoders.vit import VitEncoder, identify_face
from emi_models.encoders.wav2vec import AUDEERING, HUBERT_LARGE, Wav2vecEncoder, identify_speech
from emi_models.errors import ModelIntegrityError, ModelUnavailableError
from tests.models.encoders.tiny_models import (
    BERT,
    SPEECH,
    VIT,
    WIDTH,
    WORDS,
    edit_json,
    sizes,
    tiny_bert,
    tiny_speech,
    tiny_vit,
    write_model,
)


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12]


def test_a_model_of_the_published_sizes_goes_by_the_published_name(tmp_path: Path) -> None:
    assert identify_face(tiny_vit(tmp_path / "vit")[0], VIT) is VIT
    assert identify_text(tiny_bert(tmp_path / "bert")[0], BERT) is BERT
    assert identify_speech(tiny_speech(tmp_path / "speech")[0], SPEECH) is SPEECH


def test_a_model_of_other_sizes_is_named_by_them_and_its_weights_and_runs(tmp_path: Path) -> None:
    face, _ = tiny_vit(tmp_path / "vit")
    spec = identify_face(face)
    assert spec.encoder_id == f"vit-32x2@{digest(face)}"
    encoder = VitEncoder(face, spec)
    assert (encoder.encoder_id, encoder.dim) == (spec.encoder_id, WIDTH)
    text, _ = tiny_bert(tmp_path / "bert")
    assert identify_text(text).encoder_id == f"bert-32x2@{digest(text)}"
    assert TransformerTextEncoder(text, identify_text(text)).dim == WIDTH


def test_a_copy_has_the_same_name_and_other_weights_another(tmp_path: Path) -> None:
    face, _ = tiny_vit(tmp_path / "vit")
    copy = Path(shutil.copytree(face, tmp_path / "copy"))
    assert identify_face(copy) == identify_face(face)
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert identify_face(copy) != identify_face(face)


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm"])
@pytest.mark.parametrize("head", [True, False])
def test_speech_models_have_three_columns_more_where_they_rate_affect(
    tmp_path: Path, kind: str, head: bool
) -> None:
    folder, _, _ = tiny_speech(tmp_path, kind, head=head)
    spec = identify_speech(folder)
    assert spec.encoder_id == f"{kind}-32x2@{digest(folder)}"
    encoder = Wav2vecEncoder(folder, spec)
    assert encoder.dim == WIDTH + 3 * head


def test_the_published_sizes_without_the_head_are_not_the_published_model(tmp_path: Path) -> None:
    folder, _, _ = tiny_speech(tmp_path, head=False)
    spec = identify_speech(folder, SPEECH)
    assert spec == replace(SPEECH, encoder_id=f"wav2vec2-32x2@{digest(folder)}", store_name="", affect=False)


def test_other_published_speech_models_go_by_their_own_names(tmp_path: Path) -> None:
    folder, _, _ = tiny_speech(tmp_path, "hubert", head=False)
    edit_json(folder / "config.json", hidden_size=1024, num_hidden_layers=24)
    assert identify_speech(folder) is HUBERT_LARGE


def test_a_text_model_like_bert_is_one_of_those_that_run(tmp_path: Path) -> None:
    from transformers import RobertaConfig, RobertaModel

    config = RobertaConfig(**sizes(vocab_size=len(WORDS), max_position_embeddings=160, pad_token_id=0))
    model = RobertaModel(config).eval()
    write_model(tmp_path, config, model.state_dict())
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")
    edit_json(tmp_path / "config.json", tokenizer_class="BertTokenizer")
    spec = identify_text(tmp_path)
    assert spec.encoder_id == f"roberta-32x2@{digest(tmp_path)}"
    encoder = TransformerTextEncoder(tmp_path, spec)
    tokens = torch.tensor([[2, 5, 6, 3]])  # [CLS] i am [SEP]
    with torch.inference_mode():
        wanted = model(tokens).last_hidden_state[0, 0]
    assert encoder.encode(["i am"])[0] == pytest.approx(wanted.numpy(), abs=1e-5)


def test_the_one_that_needs_code_is_known_by_its_sizes(tmp_path: Path) -> None:
    folder, _ = tiny_bert(tmp_path)
    edit_json(folder / "config.json", model_type="new", hidden_size=768, num_hidden_layers=12)
    assert identify_text(folder) is GTE_EN_MLM_BASE


def test_another_kind_of_model_is_refused_with_those_that_can_run(tmp_path: Path) -> None:
    folder, _ = tiny_bert(tmp_path)
    with pytest.raises(ModelIntegrityError, match="bert"):
        identify_speech(folder, AUDEERING)
    edit_json(folder / "config.json", hidden_size="wide")
    with pytest.raises(ModelIntegrityError, match="width wide"):
        identify_text(folder)


def test_an_empty_folder_is_told_with_how_a_model_comes_into_it(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"config\.json"):
        identify_face(tmp_path)


def test_what_lacks_in_a_model_of_ones_own_is_not_to_be_pulled_from_a_hub(tmp_path: Path) -> None:
    folder, _ = tiny_vit(tmp_path)
    spec = identify_face(folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelUnavailableError, match="whole") as caught:
        VitEncoder(folder, spec)
    assert "hf download" not in str(caught.value)
