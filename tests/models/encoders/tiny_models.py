"""Tiny random models in transformers' format, of the kinds that the `taemi` bundle's encoders load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from emi_models.encoders.pretrained import ModelSpec, quiet_transformers
from emi_models.encoders.wav2vec import SpeechSpec

WIDTH, LAYERS = 32, 2
AFFECT = ("arousal", "dominance", "valence")  # as the published model has them
VIT = ModelSpec("tiny/vit", "vit", WIDTH, LAYERS, store_name="vit-base-in21k")
BERT = ModelSpec("tiny/bert", "bert", WIDTH, LAYERS, store_name="gte-base")
SPEECH = SpeechSpec("tiny/wav2vec2", "wav2vec2", WIDTH, LAYERS, store_name="wav2vec2-emotion", affect=True)

WORDS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("i", "am", "so", "proud", "of", "you", "what", "a", "wonderful", "surprise", "we", "will", "not"),
    *("give", "up", "today", "joy", "money", ",", "!", "##ly"),
)
PREPROCESSOR = {
    "vit": {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 224},
    "speech": {"do_normalize": True, "sampling_rate": 16_000, "feature_size": 1, "padding_value": 0.0},
}


def sizes(**more: Any) -> dict[str, Any]:
    """The sizes that all tiny models share."""
    return {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        **more,
    }


def write_model(folder: Path, config: Any, tensors: dict[str, Tensor], preprocessor: str = "") -> Path:
    """A folder as a hub repository gives it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    kept = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    if preprocessor:
        (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR[preprocessor]))
    return folder


def tiny_vit(folder: Path) -> tuple[Path, Any]:
    """The folder and transformers' own model, with a pooling layer that nothing here uses."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(1)
    model = ViTModel(ViTConfig(**sizes())).eval()
    with torch.no_grad():  # random layer norms, so that one left out would show
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    write_model(folder, model.config, {}, "vit")
    with quiet_transformers():
        model.save_pretrained(folder)  # by the tensor names of published files, which are not those in memory
    return folder, model


def tiny_bert(folder: Path, words: tuple[str, ...] = WORDS) -> tuple[Path, Any]:
    """The folder and transformers' own model; its tokenizer is a `vocab.txt`."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(2)
    config = BertConfig(**sizes(vocab_size=len(WORDS), max_position_embeddings=160, initializer_range=0.2))
    model = BertModel(config).eval()
    write_model(folder, config, model.state_dict())
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    return folder, model


def tiny_speech(
    folder: Path, kind: str = "wav2vec2", *, head: bool = True, old_names: bool = False, **config: Any
) -> tuple[Path, Any, dict[str, Tensor]]:
    """The folder, transformers' own model, and the head's tensors.

    Weights are named as in a checkpoint with a head: below `wav2vec2.`; with `old_names` those of weight
    normalisation too as checkpoints before PyTorch 2.1 have them.
    """
    import transformers

    torch.manual_seed(3)
    name = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}[kind]
    large = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
    settings = sizes(
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        initializer_range=0.2,
        **(large | config),
    )
    if head:
        settings["id2label"] = dict(enumerate(AFFECT))
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**settings)).eval()
    tensors = {f"{kind}.{key}": value for key, value in model.state_dict().items()}
    if old_names:
        tensors = {
            key.replace("parametrizations.weight.original0", "weight_g").replace(
                "parametrizations.weight.original1", "weight_v"
            ): value
            for key, value in tensors.items()
        }
    classifier = {
        "classifier.dense.weight": 0.3 * torch.randn(WIDTH, WIDTH),
        "classifier.dense.bias": 0.3 * torch.randn(WIDTH),
        "classifier.out_proj.weight": torch.randn(3, WIDTH),
        "classifier.out_proj.bias": torch.randn(3),
    }
    write_model(folder, model.config, tensors | (classifier if head else {}), "speech")
    return folder, model, classifier


def edit_json(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file; None takes one away."""
    found = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


def edit_weights(folder: Path, name: str, tensor: Tensor | None = None) -> None:
    """Put another tensor in place, or leave that one out."""
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors[name]
    if tensor is not None:
        tensors[name] = tensor
    save_file(tensors, path, metadata={"format": "pt"})
