"""The speech model and the network that drift is measured with: real ones, or seeded random ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from emi_live.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from emi_models.encoders.wav2vec import Wav2vecEncoder
    from emi_models.networks.base import FusionNetwork

__all__ = ["RANDOM_MODELS", "Judge", "Listener", "open_judge", "open_listener"]

SEED: Final = 0
# audeering's shape, and one that any machine runs many times faster than real time.
RANDOM_MODELS: Final[Mapping[str, dict[str, Any]]] = {
    "random-large": {
        "hidden_size": 1024,
        "num_hidden_layers": 12,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    "random-small": {
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "conv_dim": (64,) * 7,
        "num_conv_pos_embedding_groups": 4,
    },
}
LARGE: Final = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """A speech model: what it is in words, and whether its weights are random."""

    encoder: Wav2vecEncoder
    what: str
    random: bool


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """A network for six intensities, and how many seconds of voice it is shown."""

    network: FusionNetwork
    what: str
    random: bool
    span_s: float


def open_listener(name: str, scratch: Path) -> Listener:
    """The model in a folder, or a random one of `RANDOM_MODELS`, whose weights go to `scratch` first.

    Raises:
        ConfigurationError: it is neither.
        ModelUnavailableError, ModelIntegrityError: the folder does not hold a model that can run.
    """
    from pathlib import Path

    from emi_models.encoders.identity import identify_speech
    from emi_models.encoders.wav2vec import Wav2vecEncoder

    random = name in RANDOM_MODELS
    folder = scratch if random else Path(name)
    if not folder.is_dir():
        raise ConfigurationError(
            f"--model {name} is not a folder; give one with a model's config.json and model.safetensors, or "
            f"{' or '.join(RANDOM_MODELS)}"
        )
    if random:
        _write_random(folder, RANDOM_MODELS[name])
    encoder = Wav2vecEncoder(folder, identify_speech(folder))
    config = encoder.model.config
    what = (
        f"{config.model_type}, {config.num_hidden_layers} layers of width {config.hidden_size}, "
        f"{config.feat_extract_norm} norm in the convolutions"
    )
    if random:
        return Listener(encoder, f"{name}, {what}, seed {SEED}", random)
    return Listener(encoder, f"{encoder.encoder_id}: {what}", random)


def open_judge(checkpoint: Path | None, listener: Listener) -> Judge:
    """The network of a checkpoint, or a TAEMI of the paper's sizes with seeded random weights.

    Raises:
        CheckpointError: it cannot be read, or does not take this model's features or give six intensities.
    """
    import torch

    from emi_models.checkpoint import load_checkpoint
    from emi_models.errors import CheckpointError
    from emi_models.inputs import TAEMI_SHAPES
    from emi_models.systems import build_network

    encoder = listener.encoder
    if checkpoint is None:
        shapes = {
            name: getattr(TAEMI_SHAPES, name)
            for name in ("vision_frames", "vision_dim", "audio_frames", "text_dim")
        }
        config: dict[str, Any] = {"shapes": {**shapes, "audio_dim": encoder.dim}}
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            network = build_network("taemi", config, ("vision", "audio", "text")).eval()
        return Judge(network, f"TAEMI of the paper's sizes, random weights, seed {SEED}", True, 12.0)
    loaded = load_checkpoint(checkpoint, {"audio": encoder.encoder_id})
    header = loaded.header
    if "audio" not in header.modalities or not header.emotions:
        raise CheckpointError(
            f"{checkpoint} was trained on {', '.join(header.modalities)} and gives "
            f"{', '.join(header.emotions) or 'no emotions'}; drift needs one with audio and six intensities"
        )
    what = f"{checkpoint.name}: {header.system}, sha256 {loaded.content_hash[:12]}"
    return Judge(loaded.network, what, False, float(header.spans_s.get("audio", 12.0)))


def _write_random(folder: Path, sizes: dict[str, Any]) -> None:
    """A model's files with random weights and a random head, as a hub's repository would have them."""
    import torch
    import transformers
    from safetensors.torch import save_file

    from emi_models.encoders.wav2vec import AFFECT

    width = sizes["hidden_size"]
    config = transformers.Wav2Vec2Config(**sizes, **LARGE, id2label=dict(enumerate(AFFECT)))
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = transformers.Wav2Vec2Model(config)
        head = {
            "classifier.dense.weight": torch.randn(width, width) / width**0.5,
            "classifier.dense.bias": torch.zeros(width),
            "classifier.out_proj.weight": torch.randn(len(AFFECT), width) / width**0.5,
            "classifier.out_proj.bias": torch.full((len(AFFECT),), 0.5),
        }
    tensors = {f"wav2vec2.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors | head, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    taken = {"do_normalize": True, "sampling_rate": 16_000}
    (folder / "preprocessor_config.json").write_text(json.dumps(taken), encoding="utf-8")
