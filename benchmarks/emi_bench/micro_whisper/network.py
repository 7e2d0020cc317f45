"""Whisper's own network in a small size, with two parts that only training needs."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from emi_bench.micro_whisper.tokens import TIMESTAMPS

if TYPE_CHECKING:
    from emi_bench.micro_whisper.tokens import Tokens

__all__ = ["ALIGNMENT_HEADS", "MicroWhisper", "Output", "Size"]

ALIGNMENT_HEADS: Final = (0, 1)  # of the last decoder layer: they are taught to look at the word being said
LOCAL_OFFSETS: Final = ((-4, -1, 1, 4), (-10, -4, 4, 10), (-16, -7, 7, 16))  # frames, by layer and head
LOCAL_SHARPNESS: Final = 1.5


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of the network; the smallest make a test quick."""

    width: int = 128
    encoder_layers: int = 3
    decoder_layers: int = 2
    heads: int = 4
    feed_forward: int = 512


@dataclass(frozen=True, slots=True)
class Output:
    """What a batch gives."""

    logits: Tensor  # (batch, tokens, vocabulary)
    frame_logits: Tensor  # (batch, frames, words + 1): silence is 0
    phoneme_logits: Tensor  # (batch, frames, phonemes + 1), of the first encoder layer
    looked: Tensor  # (batch, heads, tokens, frames): attention of the alignment heads
    looked_early: Tensor  # (batch, tokens, frames): of the first head of the first layer


class MicroWhisper(nn.Module):
    """transformers' Whisper; timestamps share one map, and frames name their word while it is trained.

    A timestamp's embedding is a linear map of the encoder's sinusoid of the same 20 ms: whatever is learnt of
    one time holds for all, so that short clips teach long ones. `export` writes the embeddings out.
    """

    def __init__(self, size: Size, tokens: Tokens, words: int, phonemes: int) -> None:
        """Draw the weights from torch's generator.

        Args:
            size: of the network.
            tokens: ids; timestamps are the last of them.
            words: in the vocabulary.
            phonemes: that they are made of.
        """
        from transformers import WhisperConfig, WhisperForConditionalGeneration

        super().__init__()
        config = WhisperConfig(
            vocab_size=tokens.size,
            d_model=size.width,
            encoder_layers=size.encoder_layers,
            decoder_layers=size.decoder_layers,
            encoder_attention_heads=size.heads,
            decoder_attention_heads=size.heads,
            encoder_ffn_dim=size.feed_forward,
            decoder_ffn_dim=size.feed_forward,
            init_std=0.06,
            bos_token_id=tokens.end,
            eos_token_id=tokens.end,
            pad_token_id=tokens.end,
            decoder_start_token_id=tokens.start,
            suppress_tokens=[],
            begin_suppress_tokens=[tokens.end],
            attn_implementation="eager",
        )
        self.whisper: Any = WhisperForConditionalGeneration(config)
        encoder, decoder = self.whisper.model.encoder, self.whisper.model.decoder
        quick = copy.deepcopy(encoder.config)
        quick._attn_implementation = "sdpa"  # nobody asks where the encoder looks
        for layer in encoder.layers:
            layer.self_attn.config = quick
        _attend_nearby(encoder, size)
        with torch.no_grad():
            encoder.conv1.weight *= 3.0  # else the sound is faint beside the positions
            encoder.conv2.weight *= 3.0
            decoder.embed_positions.weight.copy_(0.1 * _sinusoids(448, size.width))
        self.texts = nn.Parameter(torch.randn(tokens.size - TIMESTAMPS, size.width) * 0.05)
        self.times = nn.Parameter(torch.eye(size.width) * 0.06)
        self.frame_words = nn.Linear(size.width, words + 1)
        self.frame_phonemes = nn.Sequential(nn.LayerNorm(size.width), nn.Linear(size.width, phonemes + 1))
        self.register_buffer("sinusoids", _sinusoids(TIMESTAMPS, size.width), persistent=False)

    def embeddings(self) -> Tensor:
        """(vocabulary, width), of inputs and outputs alike."""
        sinusoids: Any = self.sinusoids
        return torch.cat([self.texts, sinusoids @ self.times])

    def encode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder and what its first layer give, each (batch, frames, width).

        Args:
            features: log-mel, (batch, 80, 2 * frames), up to 3000 of them.
        """
        encoder = self.whisper.model.encoder
        hidden = nn.functional.gelu(encoder.conv1(features))
        hidden = nn.functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
        early = hidden = encoder.layers[0](hidden, None)
        for layer in encoder.layers[1:]:
            hidden = layer(hidden, None)
        return encoder.layer_norm(hidden), early

    def forward(self, features: Tensor, inputs: Tensor) -> Output:
        """All positions at once.

        Args:
            features: (batch, 80, 2 * frames).
            inputs: token ids, (batch, tokens).
        """
        encoded, early = self.encode(features)
        embeddings = self.embeddings()
        decoded = self.whisper.model.decoder(
            inputs_embeds=embeddings[inputs],
            encoder_hidden_states=encoded,
            use_cache=False,
            output_attentions=True,
        )
        return Output(
            logits=decoded.last_hidden_state @ embeddings.T,
            frame_logits=self.frame_words(encoded),
            phoneme_logits=self.frame_phonemes(early),
            looked=decoded.cross_attentions[-1][:, list(ALIGNMENT_HEADS)],
            looked_early=decoded.cross_attentions[0][:, 0],
        )

    def finished(self) -> Any:
        """The model of transformers with the embeddings written out."""
        with torch.no_grad():
            self.whisper.model.decoder.embed_tokens.weight.copy_(self.embeddings())
        self.whisper.tie_weights()
        return self.whisper


def _sinusoids(length: int, width: int) -> Tensor:
    """Whisper's positions: sines, then cosines."""
    rates = torch.exp(-math.log(10_000) / (width // 2 - 1) * torch.arange(width // 2))
    angles = torch.arange(length)[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _attend_nearby(encoder: Any, size: Size) -> None:
    """Let each head begin by looking a few frames away: a rotation of the sinusoids of the positions.

    Attention that must first discover that speech is local takes long to learn; this is learnt further.
    """
    half, each = size.width // 2, size.width // size.heads // 2
    picked = torch.linspace(0, half // 2, each).round().long()
    rates = torch.exp(-math.log(10_000) / (half - 1) * picked)
    with torch.no_grad():
        for layer, offsets in zip(encoder.layers, LOCAL_OFFSETS, strict=False):
            query, key = layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight
            for head in range(size.heads):
                turn = rates * offsets[head % len(offsets)]
                for index, column in enumerate(picked.tolist()):
                    row = head * 2 * each + 2 * index
                    query[row, column] += LOCAL_SHARPNESS
                    query[row + 1, half + column] += LOCAL_SHARPNESS
                    sine, cosine = turn[index].sin(), turn[index].cos()
                    key[row, column] += LOCAL_SHARPNESS * cosine
                    key[row, half + column] += LOCAL_SHARPNESS * sine
                    key[row + 1, column] -= LOCAL_SHARPNESS * sine
                    key[row + 1, half + column] += LOCAL_SHARPNESS * cosine
