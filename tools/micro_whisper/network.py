"""Whisper's network in a small size, with two parts that only training needs, and the losses of training."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.micro_whisper.examples import IGNORED, TAIL_SHARE, TIMESTAMPS

if TYPE_CHECKING:
    from tools.micro_whisper.examples import Batch, Tokens

__all__ = ["ALIGNMENT_HEADS", "Losses", "MicroWhisper", "NetworkOutput", "Size", "losses"]

ALIGNMENT_HEADS: Final = (0, 1)  # of the last decoder layer: they are taught to look at the word being said
LOCAL_OFFSETS: Final = ((-4, -1, 1, 4), (-10, -4, 4, 10), (-16, -7, 7, 16))  # frames, by layer and head
LOCAL_SHARPNESS: Final = 1.5
NEIGHBOURS: Final = ((-2, 0.05), (-1, 0.2), (0, 0.5), (1, 0.2), (2, 0.05))  # of a timestamp, 20 ms apart
NO_SPEECH_SHARE: Final = 0.95  # of the first token's probability in a clip without speech


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of the network; small ones make a test fast."""

    width: int = 128
    encoder_layers: int = 3
    decoder_layers: int = 2
    heads: int = 4
    feed_forward: int = 512


@dataclass(frozen=True, slots=True)
class NetworkOutput:
    """The output for a batch."""

    logits: Tensor  # (batch, tokens, vocabulary)
    frame_logits: Tensor  # (batch, frames, words + 1): silence is 0
    phoneme_logits: Tensor  # (batch, frames, phonemes + 1), of the first encoder layer
    looked: Tensor  # (batch, heads, tokens, frames): attention of the alignment heads
    looked_early: Tensor  # (batch, tokens, frames): of the first head of the first layer


class MicroWhisper(nn.Module):
    """transformers' Whisper with a shared map for timestamps, and a word and a phoneme for each frame.

    A timestamp's embedding is a linear map of the encoder's sinusoid of the same 20 ms: what is learnt for
    one time holds for all, so that short clips also teach long ones. `export` writes the embeddings out.
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
        quick._attn_implementation = "sdpa"  # the attention of the encoder is not needed
        for layer in encoder.layers:
            layer.self_attn.config = quick
        _attend_nearby(encoder, size)
        with torch.no_grad():
            encoder.conv1.weight *= 3.0  # else the sound is weak compared with the positions
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
        """Output of the encoder and of its first layer, each (batch, frames, width).

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

    def forward(self, features: Tensor, inputs: Tensor) -> NetworkOutput:
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
        return NetworkOutput(
            logits=decoded.last_hidden_state @ embeddings.T,
            frame_logits=self.frame_words(encoded),
            phoneme_logits=self.frame_phonemes(early),
            looked=decoded.cross_attentions[-1][:, list(ALIGNMENT_HEADS)],
            looked_early=decoded.cross_attentions[0][:, 0],
        )

    def finished(self) -> Any:
        """The model of transformers, with all embeddings written into it."""
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
    """Make each head attend to frames nearby at the start: a rotation of the sinusoids of the positions.

    Attention that must first learn that speech is local takes long; training continues from here.
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


@dataclass(frozen=True, slots=True)
class Losses:
    """The parts of the loss, each a mean."""

    text: Tensor
    looked: Tensor
    looked_early: Tensor
    frames: Tensor
    phonemes: Tensor

    def detached(self) -> Losses:
        """The same numbers without their gradients."""
        return Losses(*(getattr(self, each.name).detach() for each in fields(self)))

    def total(self) -> Tensor:
        """Their weighted sum. Frames teach the encoder, and attention the decoder, long before text could."""
        return (
            self.text + 0.3 * self.looked + 0.1 * self.looked_early + 0.5 * self.frames + 0.5 * self.phonemes
        )


def losses(output: NetworkOutput, batch: Batch, tokens: Tokens) -> Losses:
    """All parts of the loss of a batch."""
    log_probabilities = output.logits.log_softmax(-1)
    return Losses(
        text=_text(log_probabilities, batch, tokens),
        looked=_looked(output.looked, batch.said),
        looked_early=_looked(output.looked_early[:, None], batch.seen),
        frames=_frames(output.frame_logits, batch.frame_words),
        phonemes=_frames(output.phoneme_logits, batch.frame_phonemes),
    )


def _frames(logits: Tensor, wanted: Tensor) -> Tensor:
    return functional.cross_entropy(logits.transpose(1, 2), wanted, ignore_index=IGNORED)


def _text(log_probabilities: Tensor, batch: Batch, tokens: Tokens) -> Tensor:
    labels = batch.labels
    asked = labels != IGNORED
    safe = labels.clamp(min=0)
    loss = -log_probabilities.gather(-1, safe[..., None])[..., 0]
    first_stamp = tokens.no_timestamps + 1
    soft = torch.zeros_like(loss)
    for step, share in NEIGHBOURS:
        near = (safe + step).clamp(first_stamp, tokens.size - 1)
        soft = soft - share * log_probabilities.gather(-1, near[..., None])[..., 0]
    loss = torch.where(safe >= first_stamp, soft, loss)
    # faster-whisper reads the probability of no speech where the first token is said; the rest of it keeps
    # the first timestamp ahead of all words, since that is what is then taken.
    opens = (batch.inputs == tokens.start) & batch.silent[:, None]
    quiet = -(
        NO_SPEECH_SHARE * log_probabilities[..., tokens.no_speech]
        + (1 - NO_SPEECH_SHARE) * log_probabilities[..., first_stamp]
    )
    loss = torch.where(opens, quiet, loss)
    asked = asked | opens
    return (loss * asked).sum() / asked.sum()


def _looked(attention: Tensor, spans: Tensor) -> Tensor:
    """Cross-entropy with even attention over each span, with a small share on the span's tail."""
    frames = torch.arange(attention.shape[-1])
    first, last, tail = (spans[..., index, None] for index in range(3))
    core = ((frames >= first) & (frames < last)).float()
    behind = ((frames >= last) & (frames < tail)).float()
    has_tail = (tail > last).float()
    wanted = (1 - TAIL_SHARE * has_tail) * core / core.sum(-1, keepdim=True).clamp(min=1)
    wanted = wanted + TAIL_SHARE * behind / behind.sum(-1, keepdim=True).clamp(min=1)
    asked = (last > first)[..., 0].float()
    cross_entropy = -(wanted[:, None] * (attention + 1e-6).log()).sum(-1).mean(1)
    return (cross_entropy * asked).sum() / asked.sum().clamp(min=1)
