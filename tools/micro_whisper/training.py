"""Training in rounds, short windows first and whole ones of 30 s last; and export for faster-whisper."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from emi_bench.speech.synthetic import VOCABULARY
from tools.micro_whisper.examples import PHONEMES, TrainingPhase, batches
from tools.micro_whisper.network import ALIGNMENT_HEADS, MicroWhisper, Size, losses

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenizers import Tokenizer

    from tools.micro_whisper.examples import Tokens
    from tools.micro_whisper.network import Losses, MicroWhisper

__all__ = ["QUANTISATION", "Round", "TrainingPlan", "export", "train"]
QUANTISATION: Final = "int8"
COPIED: Final = ("tokenizer.json", "preprocessor_config.json")


@dataclass(frozen=True, slots=True)
class Round:
    """Phases under one rise and fall of the learning rate, with a new optimiser."""

    phases: tuple[TrainingPhase, ...]
    peak: float
    warmup: int = 20  # steps


# Short windows teach most in the least time, but alone they fail in windows of 30 s, which a recogniser
# always gets, and on longer speech: rounds with a lower rate transfer it.
ROUNDS: Final = (
    Round((TrainingPhase(2_000, 4.0, 16, augmented=0.3), TrainingPhase(200, 12.0, 8)), peak=3e-3, warmup=100),
    Round((TrainingPhase(300, 8.0, 12, longest_s=8.0, augmented=0.6),), peak=8e-4),
    Round((TrainingPhase(140, 30.0, 4, longest_s=8.0, augmented=0.6),), peak=4e-4),
    Round((TrainingPhase(520, 30.0, 4, longest_s=8.0, augmented=0.6),), peak=9e-4),
    Round((TrainingPhase(620, 8.0, 12, longest_s=8.0, augmented=0.4),), peak=1.5e-3),
    Round((TrainingPhase(170, 30.0, 5, longest_s=8.0, augmented=0.4),), peak=6e-4),
)


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """All that a training depends on."""

    seed: int = 1
    size: Size = field(default_factory=Size)
    rounds: tuple[Round, ...] = ROUNDS

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for each in self.rounds for phase in each.phases)


def train(
    plan: TrainingPlan,
    tokens: Tokens,
    on_step: Callable[[int, Losses], None],
    on_round: Callable[[int, MicroWhisper], None] = lambda _, __: None,
) -> MicroWhisper:
    """Train a network.

    Args:
        plan: seed, sizes, phases.
        tokens: ids.
        on_step: called with the steps done and the losses of the last.
        on_round: called with the rounds done and the network.
    """
    torch.manual_seed(plan.seed)
    network = MicroWhisper(plan.size, tokens, len(VOCABULARY), len(PHONEMES))
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.train()
    done = 0
    for number, each in enumerate(plan.rounds, start=1):
        optimizer = torch.optim.AdamW(trained, lr=each.peak, betas=(0.9, 0.98), weight_decay=0.01)
        steps, began = sum(phase.steps for phase in each.phases), done
        for index, phase in enumerate(each.phases):
            for batch in batches(phase, tokens, seed=plan.seed * 1_000 + number * 10 + index):
                for group in optimizer.param_groups:
                    group["lr"] = each.peak * _share(done - began, steps, each.warmup)
                found = losses(network(batch.features, batch.inputs), batch, tokens)
                optimizer.zero_grad(set_to_none=True)
                found.total().backward()
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                done += 1
                on_step(done, found.detached())
        on_round(number, network)
    return network.eval()


def _share(step: int, steps: int, warmup: int) -> float:
    """The share of the peak rate: a warm-up, then half a cosine down to a fiftieth."""
    if step < warmup:
        return (step + 1) / warmup
    along = (step - warmup) / max(1, steps - warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, along)))


def export(network: MicroWhisper, tokenizer: Tokenizer, folder: Path) -> None:
    """Write model.bin, config.json, vocabulary.json and the files that faster-whisper asks for.

    Args:
        network: trained or not.
        tokenizer: the one it was trained with.
        folder: is made; files of these names in it are replaced.
    """
    from ctranslate2.converters import TransformersConverter
    from transformers import WhisperFeatureExtractor

    model = network.finished()
    last = model.config.decoder_layers - 1
    model.generation_config.alignment_heads = [[last, head] for head in ALIGNMENT_HEADS]
    with tempfile.TemporaryDirectory() as made:
        source = Path(made)
        tokenizer.save(str(source / COPIED[0]))
        kind = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
        (source / "tokenizer_config.json").write_text(json.dumps(kind), encoding="utf-8")
        model.save_pretrained(source)
        WhisperFeatureExtractor().save_pretrained(source)
        converter = TransformersConverter(str(source), copy_files=list(COPIED))
        converter.convert(str(folder), quantization=QUANTISATION, force=True)
