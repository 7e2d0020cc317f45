"""Each architecture from a small random model in its own hub format; batches and pieces change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from emi_models.encoders.hub import KINDS, HubEncoder, kind_of
from emi_models.encoders.pretrained import quiet_transformers
from emi_models.encoders.wav2vec import Wav2vecEncoder, frames_for
from emi_models.errors import ModelIntegrityError, ModelUnavailableError
from emi_models.inputs import InputError
from tests.models.encoders.tiny_models import LAYERS, SPEECH, WIDTH, WORDS, edit_json, tiny_speech

SIZES = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 48}
PICTURE = {"image_size": 32, "patch_size": 8}
SPEECH_SIZES = {
    **SIZES,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
TEXT = {**SIZES, "vocab_size": len(WORDS), "max_position_embeddings": 160, "pad_token_id": 0}
VISION_READS = {
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.3, 0.4],
    "size": {"height": 32, "width": 32},
}
CROPPED: dict[str, Any] = {
    **VISION_READS,
    "size": {"shortest_edge": 36},
    "crop_size": {"height": 32, "width": 32},
    "resample": 3,
}
WAVES = {"do_normalize": True, "sampling_rate": 16_000, "feature_size": 1, "padding_value": 0.0}
# Architecture: class, settings of its configuration, preprocessor.
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None]] = {
    "vit": ("ViT", {**SIZES, **PICTURE}, VISION_READS),
    "dinov2": ("Dinov2", {**SIZES, **PICTURE, "mlp_ratio": 2}, CROPPED),
    "dinov2_with_registers": ("Dinov2WithRegisters", {**SIZES, **PICTURE, "mlp_ratio": 2}, CROPPED),
    "clip_vision_model": ("CLIPVision", {**SIZES, **PICTURE}, CROPPED),
    "siglip_vision_model": ("SiglipVision", {**SIZES, **PICTURE}, VISION_READS),
    "wav2vec2": ("Wav2Vec2", SPEECH_SIZES, WAVES),
    "hubert": ("Hubert", SPEECH_SIZES, WAVES),
    "wavlm": ("WavLM", SPEECH_SIZES, WAVES),
    "data2vec-audio": ("Data2VecAudio", {**SPEECH_SIZES, "conv_pos_kernel_size": 3}, WAVES),
    "bert": ("Bert", TEXT, None),
    "roberta": ("Roberta", TEXT, None),
    "xlm-roberta": ("XLMRoberta", TEXT, None),
    "distilbert": (
        "DistilBert",
        {"dim": WIDTH, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": 48, "vocab_size": len(WORDS)},
        None,
    ),
    "mpnet": ("MPNet", TEXT, None),
    "modernbert": ("ModernBert", {**TEXT, "cls_token_id": 2, "sep_token_id": 3}, None),
    "deberta": ("Deberta", TEXT, None),
    "deberta-v2": ("DebertaV2", TEXT, None),
    "electra": ("Electra", {**TEXT, "embedding_size": WIDTH}, None),
}
# Built apart: they have extractors of log-mels, or two towers. `new` is code that is not here.
APART = {"clip", "siglip", "wav2vec2-bert", "whisper", "new"}
TEXTS = ["I am so proud of you!", "", "what a wonderful surprise, we will not give up today", "money money"]


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing

    made = Tokenizer(WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token=WORDS[1]))
    made.normalizer, made.pre_tokenizer = Lowercase(), BertPreTokenizer()
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.save(str(folder / "tokenizer.json"))
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 160, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def tiny(name: str, folder: Path) -> tuple[Path, Any]:
    """The folder and transformers' own model."""
    torch.manual_seed(4)
    stem, settings, reads = MODELS[name]
    model = getattr(transformers, f"{stem}Model")(getattr(transformers, f"{stem}Config")(**settings)).eval()
    with torch.no_grad():  # random norms and biases, so that one left out would show
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    with quiet_transformers():
        model.save_pretrained(folder)
    if reads is None:
        write_tokenizer(folder)
    else:
        (folder / "preprocessor_config.json").write_text(json.dumps(reads))
    return folder, model


def pictures(count: int = 5) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    draw = np.random.default_rng(1)
    return [draw.integers(0, 256, (40 + 7 * i, 50 - 3 * i, 3), dtype=np.uint8) for i in range(count)]


def sounds() -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    draw = np.random.default_rng(2)
    return [draw.normal(0, 0.1, n).astype(np.float32) for n in (16_000, 9_000, 12_345, 100, 0)]


def of(modality: str) -> list[str]:
    return [name for name in MODELS if KINDS[name].modality == modality]


def test_every_architecture_is_tried() -> None:
    assert set(MODELS) | APART == set(KINDS)


@pytest.mark.parametrize("name", of("vision"))
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_pictures(name: str, pooling: str, tmp_path: Path) -> None:
    folder, model = tiny(name, tmp_path / name)
    encoder = HubEncoder(folder, pooling=pooling)  # type: ignore[arg-type]  # of the two
    found = encoder.encode_pictures(pictures(), batch_size=2)
    assert found.shape == (5, WIDTH) == (5, encoder.dim)
    assert np.allclose(found, encoder.encode_pictures(pictures(), batch_size=5), atol=1e-5)
    square = pictures()[0][:32, :32]
    reads = MODELS[name][2] or {}
    pixels = (square.astype(np.float32) / 255 - reads["image_mean"]) / reads["image_std"]
    edit_json(folder / "preprocessor_config.json", size={"height": 32, "width": 32})
    with torch.inference_mode():
        out = model(pixel_values=torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None])
    states = out.last_hidden_state[0]
    whole = out.pooler_output[0] if name.startswith(("clip", "siglip")) else states[0]
    expected = states.mean(dim=0) if pooling == "mean" else whole
    again = HubEncoder(folder, pooling=pooling).encode_pictures([square])  # type: ignore[arg-type]  # of the two
    assert np.allclose(again[0], expected.numpy(), atol=1e-5)
    assert not np.allclose(found[0], found[1], atol=1e-3)


def test_a_picture_is_cut_from_the_middle_as_its_processor_does(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    folder, _ = tiny("dinov2", tmp_path)
    encoder = HubEncoder(folder)
    picture = pictures()[1]
    height, width = picture.shape[:2]
    scale = 36 / min(height, width)
    sized = image.fromarray(picture).resize((round(width * scale), round(height * scale)), image.BICUBIC)
    whole = np.asarray(sized)
    top, left = (whole.shape[0] - 32) // 2, (whole.shape[1] - 32) // 2
    expected = (whole[top : top + 32, left : left + 32] / 255 - CROPPED["image_mean"]) / CROPPED["image_std"]
    found = encoder._sized(picture).permute(1, 2, 0).numpy()
    steps = np.abs((found - expected) * CROPPED["image_std"] * 255)  # noise: it is clipped at each pass there
    assert (steps.mean() <= 0.5, steps.max() <= 8.0) == (True, True)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_of_two_towers_the_one_that_sees_is_loaded(name: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    stem = {"clip": "CLIP", "siglip": "Siglip"}[name]
    config = getattr(transformers, f"{stem}Config")(
        text_config={**SIZES, "vocab_size": 30, "max_position_embeddings": 16},
        vision_config={**SIZES, **PICTURE},
    )
    with quiet_transformers():
        getattr(transformers, f"{stem}Model")(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(VISION_READS))
    encoder = HubEncoder(tmp_path)
    assert (encoder.name, encoder.dim) == (name, WIDTH)
    assert encoder.encode_pictures(pictures(2)).shape == (2, WIDTH)


@pytest.mark.parametrize("name", of("audio"))
def test_sounds(name: str, tmp_path: Path) -> None:
    folder, model = tiny(name, tmp_path / name)
    encoder = HubEncoder(folder)
    alone = encoder.encode_sounds(sounds(), batch_size=1)
    assert [each.shape for each in alone] == [(frames_for(len(s)), WIDTH) for s in sounds()]
    together = encoder.encode_sounds(sounds(), batch_size=4)
    for one, other in zip(alone, together, strict=True):
        assert np.allclose(one, other, atol=1e-4)
    exact = sounds()[0].astype(np.float64)
    given = torch.tensor((exact - exact.mean()) / np.sqrt(exact.var() + 1e-7), dtype=torch.float32)[None]
    with torch.inference_mode():
        assert np.allclose(alone[0], model(given).last_hidden_state[0].numpy(), atol=1e-4)


def test_a_group_norm_sees_one_sound_at_a_time(tmp_path: Path) -> None:
    folder, _, _ = tiny_speech(tmp_path, head=False, feat_extract_norm="group", do_stable_layer_norm=False)
    encoder = HubEncoder(folder)
    for one, other in zip(
        encoder.encode_sounds(sounds(), 1), encoder.encode_sounds(sounds(), 4), strict=True
    ):
        assert np.array_equal(one, other)


def test_the_head_of_affect_is_the_live_encoders(tmp_path: Path) -> None:
    folder, _, _ = tiny_speech(tmp_path)
    sound = sounds()[0]
    encoder = HubEncoder(folder)
    assert encoder.dim == WIDTH + 3
    live = Wav2vecEncoder(folder, SPEECH).encode(sound)
    assert np.allclose(encoder.encode_sounds([sound])[0], live, atol=1e-5)


def test_long_sound_is_encoded_in_pieces(tmp_path: Path) -> None:
    folder, _ = tiny("wav2vec2", tmp_path)
    encoder = HubEncoder(folder)
    sound = np.random.default_rng(3).normal(0, 0.1, 13 * 16_000).astype(np.float32)
    found = encoder.encode_sounds([sound])[0]
    assert found.shape == (599 + frames_for(16_000), WIDTH)
    assert np.allclose(found[:599], encoder.encode_sounds([sound[: 12 * 16_000]])[0], atol=1e-4)
    with pytest.raises(InputError):
        encoder.encode_sounds([np.zeros((2, 3), np.float32)])


def test_w2v2_bert_reads_log_mels(tmp_path: Path) -> None:
    torch.manual_seed(6)
    config = transformers.Wav2Vec2BertConfig(
        **SIZES, feature_projection_input_dim=160, conv_depthwise_kernel_size=7
    )
    with quiet_transformers():
        transformers.Wav2Vec2BertModel(config).save_pretrained(tmp_path)
        transformers.SeamlessM4TFeatureExtractor().save_pretrained(tmp_path)
    encoder = HubEncoder(tmp_path)
    alone, together = (encoder.encode_sounds(sounds()[:3], size) for size in (1, 3))
    for sound, one, other in zip(sounds(), alone, together, strict=False):
        assert abs(len(one) - len(sound) / 320) <= 2
        assert np.allclose(one, other, atol=1e-4)


def test_of_whisper_the_encoder(tmp_path: Path) -> None:
    torch.manual_seed(7)
    sizes = {"d_model": WIDTH, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 60}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 48}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = transformers.WhisperConfig(**sizes, **heads, **special, decoder_ffn_dim=48)
    with quiet_transformers():
        transformers.WhisperModel(config).save_pretrained(tmp_path)
        transformers.WhisperFeatureExtractor().save_pretrained(tmp_path)
    encoder = HubEncoder(tmp_path)
    found = encoder.encode_sounds(sounds()[:2], 2)
    assert [each.shape for each in found] == [(50, WIDTH), (29, WIDTH)]
    assert np.allclose(found[0], encoder.encode_sounds(sounds()[:1])[0], atol=1e-4)


@pytest.mark.parametrize("name", of("text"))
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_texts(name: str, pooling: str, tmp_path: Path) -> None:
    folder, model = tiny(name, tmp_path / name)
    encoder = HubEncoder(folder, pooling=pooling)  # type: ignore[arg-type]  # of the two
    found = encoder.encode_texts(TEXTS, batch_size=3)
    assert found.shape == (4, WIDTH) == (4, encoder.dim)
    assert np.allclose(found, np.concatenate([encoder.encode_texts([text]) for text in TEXTS]), atol=1e-4)
    ids = [2, *[WORDS.index("money")] * 2, 3]  # [CLS] money money [SEP]
    with torch.inference_mode():
        states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    expected = states.mean(dim=0) if pooling == "mean" else states[0]
    assert np.allclose(found[3], expected.numpy(), atol=1e-4)


def test_ids_tell_weights_and_poolings_apart(tmp_path: Path) -> None:
    folder, _ = tiny("bert", tmp_path / "a")
    one, other = HubEncoder(folder).encoder_id, HubEncoder(folder, pooling="mean").encoder_id
    assert one != other
    assert one.startswith(f"bert-{WIDTH}x{LAYERS}@")
    assert HubEncoder(tiny("vit", tmp_path / "b")[0]).pooling == "mean"


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"config\.json"):
        kind_of(tmp_path)
    folder, _ = tiny("vit", tmp_path / "vit")
    edit_json(folder / "config.json", model_type="resnet")
    with pytest.raises(ModelIntegrityError, match="resnet"):
        kind_of(folder)
    edit_json(folder / "config.json", model_type="vit")
    edit_json(folder / "preprocessor_config.json", size=None)
    with pytest.raises(ModelIntegrityError, match="size"):
        HubEncoder(folder).encode_pictures(pictures(1))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelUnavailableError, match="preprocessor"):
        HubEncoder(folder)
    text, _ = tiny("bert", tmp_path / "bert")
    edit_json(text / "config.json", model_type="new")
    with pytest.raises(ModelUnavailableError, match="allow_remote_code"):
        HubEncoder(text)
