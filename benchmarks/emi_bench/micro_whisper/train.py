"""Training in rounds: short windows first, whole ones of 30 s last."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import torch

from emi_bench.micro_whisper.batches import PHONEMES, Stage, batches
from emi_bench.micro_whisper.losses import losses
from emi_bench.micro_whisper.network import MicroWhisper, Size
from emi_bench.speech.vocabulary import VOCABULARY

if TYPE_CHECKING:
    from collections.abc import Callable

    from emi_bench.micro_whisper.losses import Losses
    from emi_bench.micro_whisper.tokens import Tokens

__all__ = ["Plan", "Round", "train"]


@dataclass(frozen=True, slots=True)
class Round:
    """Stages under one rise and fall of the learning rate; the optimiser begins anew."""

    stages: tuple[Stage, ...]
    peak: float
    warmup: int = 20  # steps


# Short windows teach most in the least time. What was learnt in them alone fails in 30 s, which is what a
# recogniser always sees, and on speech longer than it ever heard: gentler rounds carry it over.
ROUNDS: Final = (
    Round((Stage(2_000, 4.0, 16, augmented=0.3), Stage(200, 12.0, 8)), peak=3e-3, warmup=100),
    Round((Stage(300, 8.0, 12, longest_s=8.0, augmented=0.6),), peak=8e-4),
    Round((Stage(140, 30.0, 4, longest_s=8.0, augmented=0.6),), peak=4e-4),
    Round((Stage(520, 30.0, 4, longest_s=8.0, augmented=0.6),), peak=9e-4),
    Round((Stage(620, 8.0, 12, longest_s=8.0, augmented=0.4),), peak=1.5e-3),
    Round((Stage(170, 30.0, 5, longest_s=8.0, augmented=0.4),), peak=6e-4),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a training depends on."""

    seed: int = 1
    size: Size = field(default_factory=Size)
    rounds: tuple[Round, ...] = ROUNDS

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for each in self.rounds for stage in each.stages)


def train(
    plan: Plan,
    tokens: Tokens,
    on_step: Callable[[int, Losses], None],
    on_round: Callable[[int, MicroWhisper], None] = lambda _, __: None,
) -> MicroWhisper:
    """A trained network.

    Args:
        plan: seed, sizes, stages.
        tokens: ids.
        on_step: told the steps done and the losses of the last.
        on_round: told the rounds done, with the network as it is.
    """
    torch.manual_seed(plan.seed)
    network = MicroWhisper(plan.size, tokens, len(VOCABULARY), len(PHONEMES))
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.train()
    done = 0
    for number, each in enumerate(plan.rounds, start=1):
        optimizer = torch.optim.AdamW(trained, lr=each.peak, betas=(0.9, 0.98), weight_decay=0.01)
        steps, began = sum(stage.steps for stage in each.stages), done
        for index, stage in enumerate(each.stages):
            for batch in batches(stage, tokens, seed=plan.seed * 1_000 + number * 10 + index):
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
    """Of the peak: a warm-up, then half a cosine down to a fiftieth."""
    if step < warmup:
        return (step + 1) / warmup
    along = (step - warmup) / max(1, steps - warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, along)))
