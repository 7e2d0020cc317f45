"""What the micro-Whisper is taught: its words, where it looks, and what each frame holds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor
from torch.nn import functional

from emi_bench.micro_whisper.targets import IGNORED, TAIL_SHARE

if TYPE_CHECKING:
    from emi_bench.micro_whisper.batches import Batch
    from emi_bench.micro_whisper.network import Output
    from emi_bench.micro_whisper.tokens import Tokens

__all__ = ["Losses", "losses"]

NEIGHBOURS: Final = ((-2, 0.05), (-1, 0.2), (0, 0.5), (1, 0.2), (2, 0.05))  # of a timestamp, 20 ms apart
NO_SPEECH_SHARE: Final = 0.95  # of the first token's probability in a clip without speech


@dataclass(frozen=True, slots=True)
class Losses:
    """Means over what each is asked of."""

    text: Tensor
    looked: Tensor
    looked_early: Tensor
    frames: Tensor
    phonemes: Tensor

    def detached(self) -> Losses:
        """The same numbers, without what led to them."""
        return Losses(*(getattr(self, each.name).detach() for each in fields(self)))

    def total(self) -> Tensor:
        """Their weighted sum. Frames teach the encoder, and attention the decoder, long before text could."""
        return (
            self.text + 0.3 * self.looked + 0.1 * self.looked_early + 0.5 * self.frames + 0.5 * self.phonemes
        )


def losses(output: Output, batch: Batch, tokens: Tokens) -> Losses:
    """All of a batch."""
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
    """Cross-entropy to an even look over each span, a little of it over the span's tail."""
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
