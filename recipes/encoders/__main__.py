"""Train TAEMI on frozen and on trained encoders, seed by seed, and compare.

    python -m recipes.encoders --out runs/encoders

All variants have the same corpus, the same tiny encoders at the start and the same number of epochs; the best
epoch on the valid clips counts. This takes some minutes on one core of a CPU. It writes `result.json` and
prints a table.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from rich.console import Console
from rich.table import Table

from emi_models import EMOTIONS
from emi_models.data.dataset import open_clips
from emi_models.training.config import TrainConfig
from emi_models.training.fit import fit
from recipes.encoders.corpus import Corpus, tiny_encoders, write_corpus

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["VARIANTS", "compare", "settings"]

VARIANTS: Final[dict[str, tuple[str, ...]]] = {
    "frozen": (),
    "text trained": ("text",),
    "audio and text trained": ("audio", "text"),
}


def settings(encoders: dict[str, Path], train: tuple[str, ...], epochs: int, seed: int) -> TrainConfig:
    """The training settings of all variants; `train` names the modalities whose encoders are trained."""
    training = {
        "seed": seed,
        "max_epochs": epochs,
        "patience": epochs,
        "batch_size": 8,
        "learning_rate": 5e-3,
        "threads": 1,
        "recipe": "paper",
    }
    network = {"d_model": 32, "mlp_hidden": 64, "dropout": 0.0, "modality_dropout": 0.0}
    models = {modality: str(encoders[modality]) for modality in train}
    return TrainConfig.model_validate(
        {"training": training, "network": network, "encoders": {"train": train, "models": models}}
    )


def compare(
    out: Path,
    corpus: Corpus,
    seeds: int,
    epochs: int,
    console: Console | None,
    variants: Sequence[str] = tuple(VARIANTS),
) -> dict[str, Any]:
    """Scores of the variants on the valid clips, by seed: the mean and each emotion's Pearson."""
    encoders = tiny_encoders(out / "models")
    if not (out / "data" / "manifest.csv").is_file():
        write_corpus(corpus, encoders, out / "data")
    clips = open_clips(out / "data")
    found: dict[str, Any] = {"corpus": clips.description, "epochs": epochs, "torch": torch.__version__}
    for name in variants:
        train, runs = VARIANTS[name], []
        for seed in range(seeds):
            config = settings(encoders, train, epochs, seed)
            place = out / "runs" / f"{name.replace(' ', '-')}-{seed}"
            result = fit("taemi", clips, place, config, force=True, console=console)
            best = result.stages[-1].best
            runs.append(
                {"mean": result.score, **{emotion: best[f"pearson_{emotion}"] for emotion in EMOTIONS}}
            )
        found[name] = runs
    return found


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.encoders", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=Corpus().train)
    parser.add_argument("--valid", type=int, default=Corpus().valid)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    asked = parser.parse_args()
    console = Console(stderr=True)
    corpus = Corpus(train=asked.train, valid=asked.valid)
    found = compare(asked.out, corpus, asked.seeds, asked.epochs, console)
    (asked.out / "result.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    table = Table("Pearson on valid", *VARIANTS, box=None)
    for key in ("mean", *EMOTIONS):
        cells = [
            f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
            for values in ([run[key] for run in found[name]] for name in VARIANTS)
        ]
        table.add_row(key, *cells)
    Console().print(table)


if __name__ == "__main__":
    _main()
