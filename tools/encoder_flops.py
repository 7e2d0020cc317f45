"""GPU hours of the encoders on a corpus, calculated: operations of the real architectures over a GPU's peak.

Nothing is run on a GPU, and no weights are needed: PyTorch counts the operations of each network on tensors
that have a shape and no values. What share of its peak a GPU reaches with them was not measured; a range is
assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ENCODERS", "GPUS", "Feed", "Gpu", "flops_per_s", "gpu_table"]


@dataclass(frozen=True, kw_only=True)
class Feed:
    """What `emi extract` gives the encoders of a second of media; each can be set."""

    crops_per_s: float = 6.0  # face.crop_fps
    clip_s: float = 12.0  # wav2vec 2.0 gets a clip in one piece
    utterance_s: float = 4.0  # assumed; Whisper gets each once, when it is over
    padding_s: float = 4.0  # behind each (emi_models/speech/whisper.py)
    speech: float = 1.0  # share of the time in which somebody speaks; 1 is the upper limit
    tokens_per_s: float = 4.0  # of Whisper, while somebody speaks; assumed
    text_tokens: float = 128.0  # the text model's limit; each utterance is one text


@dataclass(frozen=True)
class Gpu:
    """A GPU's data sheet: dense fp16 operations a second in its tensor cores, and bytes a second."""

    flops: float
    bytes_per_s: float


# NVIDIA's data sheets, without sparsity: A100 (SXM, 80 GB), H100 (SXM), L4, T4.
GPUS: Final = {
    "A100": Gpu(312e12, 2.039e12),
    "H100": Gpu(989e12, 3.35e12),
    "L4": Gpu(121e12, 0.3e12),
    "T4": Gpu(65e12, 0.32e12),
}
BATCHES: Final = (1, 16)  # utterances that Whisper decodes together, at worst and at best


def gpu_table(
    feed: Feed, gpu: str, utilisation: tuple[float, float], corpora: Mapping[str, float], only: str = ""
) -> str:
    """GPU hours of each encoder for each corpus, lowest to highest, as a table in Markdown.

    Args:
        feed: what the encoders get.
        gpu: a name of `GPUS`.
        utilisation: shares of the peak, least and most, that encoders reach. A decoder, which makes one token
            after the other, is bound by the reading of its weights: its share follows from `BATCHES`.
        corpora: hours of media, by name.
        only: as of `flops_per_s`.
    """
    card = GPUS[gpu]
    lines = [
        "| encoder | GFLOP a second of media | " + " | ".join(corpora) + " |",
        "|---|--:|" + "--:|" * len(corpora),
    ]
    for name, cost in flops_per_s(feed, only).items():
        low, high = utilisation
        if "decoder" in name:  # 2 operations for the 2 bytes of a weight, for each text of the batch
            low, high = (min(most * card.bytes_per_s / card.flops, utilisation[1]) for most in BATCHES)
        hours = " | ".join(
            f"{_hours(cost / card.flops / high * of)} to {_hours(cost / card.flops / low * of)}"
            for of in corpora.values()
        )
        lines.append(f"| {name} | {cost / 1e9:,.1f} | {hours} |")
    return "\n".join(lines)


def flops_per_s(feed: Feed, only: str = "") -> dict[str, float]:
    """Operations for a second of media, by encoder; a multiplication and an addition are two.

    Args:
        feed: what the encoders get.
        only: count those whose name has this in it.
    """
    return {name: count(feed) for name, count in ENCODERS.items() if only in name}


def _vit(feed: Feed) -> float:
    from transformers import ViTConfig, ViTModel

    return feed.crops_per_s * _count(lambda: ViTModel(_eager(ViTConfig())), (1, 3, 224, 224))


def _wav2vec(**sizes: Any) -> Callable[[Feed], float]:
    def count(feed: Feed) -> float:
        from transformers import Wav2Vec2Config, Wav2Vec2Model

        samples = round(feed.clip_s * 16_000)
        return _count(lambda: Wav2Vec2Model(_eager(Wav2Vec2Config(**sizes))), (1, samples)) / feed.clip_s

    return count


def _whisper(
    part: str, width: int, layers: int, decoders: int, mels: int, vocabulary: int
) -> Callable[[Feed], float]:
    def count(feed: Feed) -> float:
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperDecoder, WhisperEncoder

        heard_s = min(30.0, feed.utterance_s + feed.padding_s)
        config = _eager(
            WhisperConfig(
                d_model=width,
                encoder_layers=layers,
                decoder_layers=decoders,
                encoder_attention_heads=width // 64,
                decoder_attention_heads=width // 64,
                encoder_ffn_dim=4 * width,
                decoder_ffn_dim=4 * width,
                num_mel_bins=mels,
                vocab_size=vocabulary,
                max_source_positions=round(heard_s * 50),
            )
        )
        tokens = max(1, round(feed.utterance_s * feed.tokens_per_s))
        if part == "encoder":
            once = _count(lambda: WhisperEncoder(config), (1, mels, round(heard_s * 100)))
        else:
            once = _count(
                lambda: WhisperDecoder(config),
                (1, tokens),
                attention_mask=(1, 1, tokens, tokens),
                encoder_hidden_states=(1, round(heard_s * 50), width),
            )
            once += 2.0 * tokens * width * vocabulary  # the choice of each token
        return once * feed.speech / feed.utterance_s

    return count


def _bert(**sizes: Any) -> Callable[[Feed], float]:
    def count(feed: Feed) -> float:
        from transformers import BertConfig, BertModel

        tokens = round(feed.text_tokens)
        once = _count(
            lambda: BertModel(_eager(BertConfig(**sizes))), (1, tokens), attention_mask=(1, 1, tokens, tokens)
        )
        return once * feed.speech / feed.utterance_s

    return count


LARGE: Final = {
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "conv_bias": True,
}
ENCODERS: Final[dict[str, Callable[[Feed], float]]] = {
    "vision: ViT-B/16": _vit,
    "audio: wav2vec 2.0 base": _wav2vec(),
    "audio: wav2vec 2.0 large, 12 layers (taemi)": _wav2vec(num_hidden_layers=12, **LARGE),
    "audio: wav2vec 2.0 large": _wav2vec(num_hidden_layers=24, **LARGE),
    "words: Whisper base, encoder": _whisper("encoder", 512, 6, 6, 80, 51_865),
    "words: Whisper base, decoder": _whisper("decoder", 512, 6, 6, 80, 51_865),
    "words: Whisper large-v3, encoder (turbo has the same)": _whisper("encoder", 1280, 32, 32, 128, 51_866),
    "words: Whisper large-v3, decoder": _whisper("decoder", 1280, 32, 32, 128, 51_866),
    "words: Whisper large-v3-turbo, decoder (taemi)": _whisper("decoder", 1280, 32, 4, 128, 51_866),
    "text: GTE base (taemi)": _bert(),
    "text: MiniLM L6": _bert(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    ),
}


def _eager(config: Any) -> Any:
    """Attention as products of matrices, which the counter sees."""
    config._attn_implementation = "eager"
    return config


def _count(build: Callable[[], Any], shape: tuple[int, ...], **more: tuple[int, ...]) -> float:
    """The operations of one pass, on tensors without values; what has a mask of attention gets tokens."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network = build().eval()
        given = torch.zeros(shape, dtype=torch.long if "attention_mask" in more else torch.float32)
        network(given, **{name: torch.zeros(of) for name, of in more.items()})
    return float(counter.get_total_flops())


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 9.5 else f"{hours:.2g}"
